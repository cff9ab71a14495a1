"""The options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import typer

from frazil.rpc.config import SCHEDULER_ADDRESS_DEFAULT

Given: TypeAlias = Mapping[str, Any]
"""What was said on the command line, by the name of the parameter."""

SCHEDULER_DEFAULT = SCHEDULER_ADDRESS_DEFAULT

SchedulerOption = Annotated[
    str, typer.Option("--scheduler", envvar="FRAZIL_SCHEDULER_ADDRESS", help="Address of the scheduler, host:port.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="Name or identity of a session.")]


def takes(flags: Mapping[str, tuple[Any, Any]], into: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a command many flags (name: annotation, default); their values come as argument `into`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != into]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in flags.items()
        ]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + shared

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            given = {name: values.pop(name) for name in flags}
            return command(**values, **{into: given})

        del wrapper.__dict__["__wrapped__"]  # typer must see the signature below, not the command's own
        wrapper.__dict__["__signature__"] = inspect.Signature(parameters)
        wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
        return wrapper

    return decorate
