"""How long each stage of an exposure took, and when it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """Names and seconds of the stages in order, and the wall time of their end; `announce` is told each as it begins."""

    def __init__(
        self,
        announce: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.seconds: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self._announce = announce
        self._clock = clock
        self._wall_clock = wall_clock

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block; a name used twice adds up."""
        self._announce(name)
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - started
            self.ended[name] = self._wall_clock()
