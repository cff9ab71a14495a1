"""The notifier: no change is missed, nobody waits longer than asked. The pacer: at once when quiet, not too often when busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from frazil_scheduler.notifier import Notifier, Pacer


async def test_a_change_between_ticket_and_wait_is_not_missed() -> None:
    notifier = Notifier()
    ticket = notifier.ticket("a")
    notifier.notify(["a"])
    await asyncio.wait_for(notifier.wait("a", ticket, 60), 1)


async def test_only_those_who_wait_for_the_topic_wake() -> None:
    notifier = Notifier()
    waits = [asyncio.ensure_future(notifier.wait(topic, 0, 60)) for topic in ("a", "a", "b")]
    await asyncio.sleep(0)
    notifier.notify(["a"])
    await asyncio.wait_for(asyncio.gather(*waits[:2]), 1)
    assert not waits[2].done()
    notifier.close()
    await asyncio.wait_for(waits[2], 1)
    await asyncio.wait_for(notifier.wait("b", notifier.ticket("b"), 60), 1)


async def test_waiting_ends_by_itself_and_leaves_nothing_behind() -> None:
    notifier = Notifier()
    await asyncio.wait_for(notifier.wait("a", 0, 0.01), 1)
    waiting = asyncio.ensure_future(notifier.wait("a", 0, 60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert notifier._waiters == {}


class Hours:
    """A timer that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.calls.append((self.now + delay, callback))

    def turn(self, seconds: float) -> None:
        self.now += seconds
        due = [call for call in self.calls if call[0] <= self.now]
        self.calls = [call for call in self.calls if call[0] > self.now]
        for _, callback in due:
            callback()


@pytest.mark.parametrize(
    ("asked", "done"),
    [
        ([0, 10, 20], [0, 10, 20]),
        ([0, 0, 1, 2], [0, 5]),  # what is asked meanwhile is done once, at the end
        ([0, 1, 5, 6, 20], [0, 5, 10, 20]),
        ([0, *range(1, 20)], [0, 5, 10, 15, 20]),
    ],
)
def test_a_pacer_acts_at_once_and_then_not_more_often_than_it_may(asked: list[int], done: list[int]) -> None:
    hours = Hours()
    acted: list[float] = []
    pacer = Pacer(hours, 5.0, lambda: acted.append(hours.now - 100.0))
    for second in range(31):
        for _ in range(asked.count(second)):
            pacer.ask()
        hours.turn(1.0)
    assert acted == done
