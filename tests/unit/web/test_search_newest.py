"""The newest sequence is found by questions alone, from any hint, with few of them."""

from __future__ import annotations

import math

import pytest

from frazil_web.scheduler import search_newest


class Log:
    """A log that answers what the first event after a number is, and counts the questions."""

    def __init__(self, sequences: list[int]) -> None:
        self.sequences = sequences
        self.asked = 0

    async def event_after(self, sequence: int) -> int | None:
        self.asked += 1
        return next((number for number in self.sequences if number > sequence), None)


@pytest.mark.parametrize("hint", [0, 1, 5, 41, 42, 43, 1000])
@pytest.mark.parametrize("newest", [0, 1, 2, 41, 42, 43])
async def test_any_hint_leads_to_the_newest(newest: int, hint: int) -> None:
    assert await search_newest(Log(list(range(1, newest + 1))).event_after, hint) == newest


async def test_a_log_whose_head_was_cut_off_is_searched_too() -> None:
    assert await search_newest(Log([900, 901, 905]).event_after, 0) == 905


class Endless:
    """A gap-free log of `newest` events that needs no memory."""

    def __init__(self, newest: int) -> None:
        self.newest, self.asked = newest, 0

    async def event_after(self, sequence: int) -> int | None:
        self.asked += 1
        return sequence + 1 if sequence < self.newest else None


async def test_questions_grow_with_the_logarithm() -> None:
    log = Endless(3_000_000)
    assert await search_newest(log.event_after, 0) == log.newest
    assert log.asked <= 2 * math.ceil(math.log2(log.newest)) + 3
    log.asked = 0
    assert await search_newest(log.event_after, log.newest) == log.newest
    assert log.asked <= 25  # nothing after the hint: only the half below it is doubted
    log.asked, log.newest = 0, log.newest + 30
    assert await search_newest(log.event_after, 3_000_000) == log.newest
    assert log.asked <= 12
