"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from frazil.rpc.config import SCHEDULER_ADDRESS_DEFAULT

SCHEDULER_DEFAULT = SCHEDULER_ADDRESS_DEFAULT

SchedulerOption = Annotated[
    str, typer.Option("--scheduler", envvar="FRAZIL_SCHEDULER_ADDRESS", help="Address of the scheduler, host:port.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="Name or identity of a session.")]
