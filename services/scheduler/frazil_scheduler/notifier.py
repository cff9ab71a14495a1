"""Waking coroutines that wait for a topic to change: without polling, without losing a change, and not too often."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Protocol


class Notifier:
    """Take a ticket, look, and if nothing was there wait on the ticket: a change in between wakes at once. One loop only."""

    def __init__(self) -> None:
        self._changes: defaultdict[str, int] = defaultdict(int)
        self._waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self.closed = False

    def ticket(self, topic: str) -> int:
        """Return the topic's count of changes, to be taken before looking."""
        return self._changes[topic]

    def notify(self, topics: Iterable[str]) -> None:
        """Wake everyone who waits for one of the topics."""
        for topic in topics:
            self._changes[topic] += 1
            for waiter in self._waiters.pop(topic, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self, topic: str, ticket: int, seconds: float) -> None:
        """Return when the topic has changed since the ticket, after so many seconds, or when everything closes."""
        if self.closed or self._changes[topic] != ticket or seconds <= 0:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters[topic]
        waiters.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiters.get(topic) is waiters:
                del self._waiters[topic]

    def close(self) -> None:
        """Wake everyone, for good."""
        self.closed = True
        self.notify(list(self._waiters))


class Timer(Protocol):
    """What an event loop knows of time."""

    def time(self) -> float:
        """Return seconds."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        """Call in so many seconds."""
        ...


class Pacer:
    """Does one thing at once when asked, but at most once in so many seconds: what is asked meanwhile is done at their end."""

    def __init__(self, timer: Timer, seconds: float, do: Callable[[], None]) -> None:
        self._timer, self._seconds, self._do = timer, seconds, do
        self._next = 0.0
        self._planned = False

    def ask(self) -> None:
        """Do it now or soon."""
        if self._planned:
            return
        wait = self._next - self._timer.time()
        if wait > 0:
            self._planned = True
            self._timer.call_later(wait, self._act)
        else:
            self._act()

    def _act(self) -> None:
        self._planned = False
        self._next = self._timer.time() + self._seconds
        self._do()
