"""Placement: who gets which slot, and why the others wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frazil_scheduler.placement import Holder, Kind, Reason, Slot, WaitingJob, schedule


def job(sequence: int, *, lane: str = "default", gpu: int = 8, cpu: int = 2, program: str = "p") -> WaitingJob:
    return WaitingJob(
        job_id=f"job-{sequence}",
        sequence=sequence,
        lane=lane,
        program=program,
        gpu_memory_min_mib=gpu,
        cpu_memory_min_mib=cpu,
        indefinite=True,
    )


def slot(name: str, memory: int = 10, **values: object) -> Slot:
    given_values = {"node_id": "node", "kind": Kind.GPU, "programs": frozenset({"p"})} | values
    return Slot(slot_key=name, memory_mib=memory, **given_values)


def grants(waiting: list[WaitingJob], slots: list[Slot]) -> dict[int, str]:
    placement = schedule(waiting, {"default": slots})
    return {grant.job.sequence: grant.slot.slot_key for grant in placement.grants}


def reason(waiting: WaitingJob, slots: list[Slot]) -> Reason:
    return schedule([waiting], {"default": slots}).blocked[waiting.job_id]


def test_the_smallest_fitting_slot_is_given() -> None:
    assert grants([job(1)], [slot("large", 80), slot("small", 8), slot("tiny", 4)]) == {1: "small"}


def test_the_earlier_job_is_served_first_whatever_the_order_of_the_list() -> None:
    assert grants([job(2), job(1)], [slot("only")]) == {1: "only"}


def test_a_later_job_takes_what_the_earlier_cannot_use() -> None:
    assert grants([job(1, gpu=40), job(2)], [slot("small", 8)]) == {2: "small"}


def test_a_cpu_slot_is_measured_by_the_cpu_minimum_and_a_gpu_comes_first() -> None:
    cpu = slot("cpu", 2, kind=Kind.CPU)
    assert grants([job(1)], [cpu]) == {1: "cpu"}
    assert grants([job(1)], [cpu, slot("gpu", 80)]) == {1: "gpu"}


def test_a_node_that_cannot_start_the_program_is_not_used() -> None:
    assert grants([job(1, program="q")], [slot("a")]) == {}
    assert reason(job(1, program="q"), [slot("a")]) is Reason.NO_NODE


def test_a_slot_offered_by_two_containers_is_given_once() -> None:
    shared = [slot("a", node_id="one"), slot("a", node_id="two")]
    assert grants([job(1), job(2)], shared) == {1: "a"}


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ([], Reason.NO_NODE),
        ([slot("a", ready=False)], Reason.NO_NODE),
        ([slot("a", 4)], Reason.LANE_TOO_SMALL),
        ([slot("a", 4), slot("b", ready=False)], Reason.NO_NODE),
        ([slot("a", quarantined=True)], Reason.LANE_QUARANTINED),
        ([slot("a", holder=Holder(job_id="x", indefinite=True))], Reason.LANE_HELD),
        ([slot("a", holder=Holder(job_id="x", indefinite=True)), slot("b", quarantined=True)], Reason.LANE_HELD),
        (
            [
                slot("a", holder=Holder(job_id="x", indefinite=True)),
                slot("b", holder=Holder(job_id="y", indefinite=False)),
            ],
            Reason.LANE_BUSY,
        ),
    ],
)
def test_a_blocked_job_is_told_why(slots: list[Slot], expected: Reason) -> None:
    assert reason(job(1), slots) is expected


def test_a_slot_just_given_to_a_streaming_job_counts_as_held() -> None:
    assert schedule([job(1), job(2)], {"default": [slot("a")]}).blocked == {"job-2": Reason.LANE_HELD}


def test_a_job_of_an_unknown_lane_waits_for_a_node() -> None:
    assert schedule([job(1, lane="gone")], {"default": [slot("a")]}).blocked == {"job-1": Reason.NO_NODE}


slots_of = st.lists(
    st.builds(
        slot,
        st.sampled_from([f"s{n}" for n in range(8)]),
        st.integers(1, 12),
        kind=st.sampled_from(Kind),
        ready=st.booleans(),
        quarantined=st.booleans(),
        holder=st.sampled_from([None, Holder(job_id="x", indefinite=True), Holder(job_id="y", indefinite=False)]),
        programs=st.sampled_from([frozenset({"p"}), frozenset({"p", "q"})]),
    ),
    max_size=8,
    unique_by=lambda one: one.slot_key,
)
jobs_of = st.lists(
    st.builds(
        job,
        st.integers(1, 30),
        gpu=st.integers(1, 12),
        cpu=st.integers(1, 12),
        program=st.sampled_from(["p", "q"]),
        lane=st.sampled_from(["default", "other"]),
    ),
    max_size=10,
    unique_by=lambda one: one.sequence,
)


@given(jobs_of, slots_of)
def test_every_job_is_granted_or_told_why_and_every_grant_is_lawful(waiting: list[WaitingJob], slots: list[Slot]) -> None:
    lanes = {"default": slots, "other": slots[:4]}
    placement = schedule(waiting, lanes)
    granted = {grant.job.job_id: grant.slot for grant in placement.grants}

    def could_use(one: WaitingJob, place: Slot) -> bool:
        minimum = one.gpu_memory_min_mib if place.kind is Kind.GPU else one.cpu_memory_min_mib
        free = place.ready and not place.quarantined and place.holder is None
        return free and place in lanes[one.lane] and one.program in place.programs and place.memory_mib >= minimum

    assert granted.keys() | placement.blocked.keys() == {one.job_id for one in waiting}
    assert not granted.keys() & placement.blocked.keys()
    assert len({place.slot_key for place in granted.values()}) == len(granted)
    used = {place.slot_key for place in granted.values()}
    for grant in placement.grants:
        assert could_use(grant.job, grant.slot)
        for other in waiting:  # F1: nobody who waits was overtaken on a slot they could use
            if other.job_id in placement.blocked and other.sequence < grant.job.sequence:
                assert not could_use(other, grant.slot)
    for other in waiting:  # F2: nothing usable stays free
        if other.job_id in placement.blocked:
            assert not any(could_use(other, place) and place.slot_key not in used for place in slots)
