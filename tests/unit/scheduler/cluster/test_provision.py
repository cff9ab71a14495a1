"""What is asked of a cluster, decision by decision."""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import pytest
from hypothesis import strategies

from frazil_scheduler.cluster.provision import FREE, ClusterJob, Need, Phase, Plan, Waiting, decide


def waits(job_id: str = "a", memory: int = 8000, program: str = "frazil-preprocess") -> Waiting:
    return Waiting(job_id=job_id, program=program, memory_min_mib=memory)


def has(name: str = "x", phase: Phase = Phase.PENDING, memory: int = 8000, **more: object) -> ClusterJob:
    values = {"name": name, "phase": phase, "program": "frazil-preprocess", "memory_mib": memory, **more}
    return ClusterJob(**values)  # type: ignore[arg-type]


def streams(name: str = "x", seconds_left: float | None = 100.0) -> ClusterJob:
    return has(name, Phase.SERVING, serves="s", indefinite=True, memory_min_mib=4000, seconds_left=seconds_left)


def plan(waiting: list[Waiting], cluster_jobs: list[ClusterJob], max_jobs: int = 8) -> Plan:
    return decide(waiting, cluster_jobs, max_jobs=max_jobs, handover_seconds=900.0, drain_seconds=180.0)


def test_each_waiting_job_gets_a_cluster_job_of_its_need() -> None:
    asked = plan([waits("a", 11_000), waits("b", 4000)], []).ask
    assert asked == (
        Need(job_id="a", program="frazil-preprocess", memory_min_mib=11_000),
        Need(job_id="b", program="frazil-preprocess", memory_min_mib=4000),
    )


@pytest.mark.parametrize("phase", FREE)
def test_what_is_on_its_way_is_not_asked_for_again(phase: Phase) -> None:
    assert plan([waits()], [has(phase=phase)]) == Plan(ask=(), cancel=(), drain=())


@pytest.mark.parametrize("phase", [Phase.SERVING, Phase.LEAVING, Phase.CANCELLING])
def test_what_serves_another_job_or_is_on_its_way_out_does_not_count(phase: Phase) -> None:
    assert [need.job_id for need in plan([waits()], [has(phase=phase)]).ask] == ["a"]


def test_a_slot_that_is_too_small_or_has_another_program_does_not_count() -> None:
    assert plan([waits(memory=11_000)], [has(memory=8000, phase=Phase.IDLE)]).ask
    assert plan([waits()], [has(program="frazil-reconstruct", phase=Phase.IDLE)]).ask


def test_the_first_in_the_queue_is_served_first_and_takes_the_smallest_that_fits() -> None:
    there = [has("large", memory=24_000), has("small", memory=8000)]
    assert plan([waits("a", 4000), waits("b", 20_000)], there).ask == ()


def test_the_lane_is_not_overfilled() -> None:
    there = [has(str(number), Phase.SERVING) for number in range(3)]
    assert [need.job_id for need in plan([waits("a"), waits("b")], there, max_jobs=4).ask] == ["a"]
    assert plan([waits("a")], there, max_jobs=3).ask == ()


def test_only_pending_excess_is_cancelled() -> None:
    there = [has(phase.value, phase) for phase in FREE]
    assert plan([], there).cancel == ("PENDING",)


def test_a_cluster_job_whose_job_has_moved_on_is_cancelled() -> None:
    assert plan([], [has(phase=Phase.STRAY)]).cancel == ("x",)


def test_before_the_end_of_its_time_a_streaming_job_gets_a_successor_of_its_own_need() -> None:
    assert plan([], [streams(seconds_left=901.0)]).ask == ()
    assert plan([], [streams(seconds_left=900.0)]).ask == (
        Need(job_id="s", program="frazil-preprocess", memory_min_mib=4000, follows="x"),
    )


def test_it_is_stopped_when_the_successor_is_there_and_not_before() -> None:
    for phase in (Phase.SUBMITTING, Phase.PENDING, Phase.STARTING):
        assert plan([], [streams(seconds_left=500.0), has("y", phase, follows="x")]) == Plan(ask=(), cancel=(), drain=())
    assert plan([], [streams(seconds_left=500.0), has("y", Phase.IDLE, follows="x")]).drain == ("x",)


def test_at_the_very_end_it_is_stopped_even_without_one() -> None:
    assert plan([], [streams(seconds_left=180.0), has("y", Phase.PENDING, follows="x")]).drain == ("x",)


def test_a_successor_serves_nobody_else_while_it_is_awaited_and_anybody_once_that_is_over() -> None:
    successor = has("y", Phase.IDLE, follows="x")
    assert [need.job_id for need in plan([waits()], [streams(seconds_left=500.0), successor]).ask] == ["a"]
    assert plan([waits()], [successor]).ask == ()


def test_a_job_that_ends_by_itself_is_left_to_do_so() -> None:
    bounded = replace(streams(seconds_left=10.0), indefinite=False)
    assert plan([], [bounded]) == Plan(ask=(), cancel=(), drain=())


@hypothesis.given(
    waiting=strategies.lists(strategies.builds(waits, strategies.just("a"), strategies.integers(1, 3)), max_size=6),
    there=strategies.lists(
        strategies.builds(has, strategies.uuids().map(str), strategies.sampled_from(Phase), strategies.integers(1, 3)),
        max_size=8,
    ),
    max_jobs=strategies.integers(1, 8),
)
def test_nothing_is_ever_asked_for_beyond_the_need_or_the_limit(
    waiting: list[Waiting], there: list[ClusterJob], max_jobs: int
) -> None:
    waiting = [replace(job, job_id=str(number)) for number, job in enumerate(waiting)]
    decided = plan(waiting, there, max_jobs)
    assert len(decided.ask) <= max(0, max_jobs - len(there))
    assert len({need.job_id for need in decided.ask}) == len(decided.ask)
    # after doing all of it and nothing having changed otherwise, there is nothing left to do
    left = [job for job in there if job.name not in decided.cancel]
    added = [has(f"new-{need.job_id}", Phase.PENDING, need.memory_min_mib) for need in decided.ask]
    again = plan(waiting, [*left, *added], max_jobs)
    assert not again.cancel
    assert len(again.ask) <= max(0, max_jobs - len(left) - len(added))
    if not decided.cancel and len(there) + len(added) < max_jobs:
        assert not again.ask
