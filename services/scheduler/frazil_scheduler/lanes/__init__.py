"""Lane backends: each file in this folder decides where a lane's jobs may run. `load(name)` finds one by file name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from frazil.model.errors import ErrorKind, FrazilError


class LaneBackend(Protocol):
    """What the scheduler asks of a lane. A file in this folder has a class `Backend` that satisfies it."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        """Take the lane's name and its options from frazil.toml; raise FrazilError CONFIG_INVALID for what it does not know."""

    def accepts(self, node_id: str) -> bool:
        """Tell whether the slots of a node belong to the lane."""

    def node_globs(self) -> Sequence[str]:
        """Return the patterns of node names to show to people; empty means every node."""


def names() -> tuple[str, ...]:
    """Return the names of all backends, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> type[LaneBackend]:
    """Return the class of a backend; raises FrazilError LANE_BACKEND_UNKNOWN naming the known ones."""
    if name not in names():
        raise FrazilError(
            "LANE_BACKEND_UNKNOWN",
            f"There is no lane backend {name!r}; known are {', '.join(names())}.",
            kind=ErrorKind.NOT_FOUND,
        )
    backend: type[LaneBackend] = importlib.import_module(f"{__name__}.{name}").Backend
    return backend
