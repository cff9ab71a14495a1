"""Virtual time: a heap of events on one thread, one source of chance, and a trace whose digest tells two runs apart."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any

TRACE_KEPT = 300


class Engine:
    """Runs events in the order of their time. Everything that happens follows from `seed` alone."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0  # seconds
        self.events = 0
        self.trace: deque[str] = deque(maxlen=TRACE_KEPT)
        self.after_each: Callable[[], None] = lambda: None
        self._digest = hashlib.sha256()
        self._heap: list[tuple[float, int, Callable[[], Any]]] = []
        self._number = 0

    def after(self, seconds: float, act: Callable[[], Any]) -> None:
        """Let something happen later; what happens at one moment happens in the order of the calls."""
        self._number += 1
        heapq.heappush(self._heap, (self.now + max(0.0, seconds), self._number, act))

    def run(self, until: float) -> None:
        """Let everything happen that is due by then."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, act = heapq.heappop(self._heap)
            self.events += 1
            act()
            self.after_each()
        self.now = until

    def note(self, *words: object) -> None:
        """Write a line of the trace."""
        line = f"{self.now:.3f} " + " ".join(str(word) for word in words)
        self.trace.append(line)
        self._digest.update(line.encode() + b"\n")

    @property
    def digest(self) -> str:
        """The digest of the whole trace so far."""
        return self._digest.hexdigest()

    def chance(self, probability: float) -> bool:
        """Let chance decide."""
        return self.random.random() < probability

    def between(self, low: float, high: float) -> float:
        """Return a number that chance chooses."""
        return self.random.uniform(low, high)
