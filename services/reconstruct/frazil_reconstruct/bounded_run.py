"""A run with an end: advanced step by step with checkpoints, and stopped with one to go on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from frazil.worker import WorkerContext
from frazil_reconstruct.checkpoints import CHECKPOINT_SECONDS, Checkpoints


class Counters(Protocol):
    """Where a run is."""

    cursor: int


class State(Protocol):
    """What a run goes on from."""

    @property
    def counters(self) -> Counters:
        """The counters."""

    def to_arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return what `from_arrays` takes."""


class Run(Protocol):
    """A computation in bounded steps."""

    @property
    def state(self) -> State:
        """The state as it is now."""

    def advance(self) -> bool:
        """Do a step; false when there was none left."""


def work(context: WorkerContext, run: Run, checkpoints: Checkpoints, progress: Callable[[], str]) -> bool:
    """Work to the end; false when told to stop before it: then there is a checkpoint to go on from."""
    saved_at = time.monotonic()
    while run.advance():
        context.report(progress())
        if context.stop_requested or time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
            checkpoints.save(int(run.state.counters.cursor), run.state.to_arrays())
            saved_at = time.monotonic()
        if context.stop_requested:
            return False
    return True
