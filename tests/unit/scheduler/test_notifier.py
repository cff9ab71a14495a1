"""The notifier: no change is missed, nobody waits longer than asked."""

from __future__ import annotations

import asyncio

from frazil_scheduler.notifier import Notifier


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
