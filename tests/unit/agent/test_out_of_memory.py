from __future__ import annotations

from frazil.agent.out_of_memory import OomWatch, oom_kills


def test_a_kill_is_told_once() -> None:
    counts = iter([3, 3, 4, 4])
    watch = OomWatch(lambda: next(counts))
    assert [watch.has_killed() for _ in range(3)] == [False, True, False]


def test_this_machines_counters_are_read() -> None:
    assert oom_kills() >= 0
