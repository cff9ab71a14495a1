"""Placement: who gets which slot, and why the others wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frazil_scheduler.placement import Holder, Kind, Reason, Slot, WaitingJob, schedule


def job(
    sequence: int,
    *,
    lane: str = "default",
    gpu: int = 8,
    cpu: int = 2,
    program: str = "p",
    session: str = "s",
    priority: int = 0,
    gpus: frozenset[str] = frozenset(),
) -> WaitingJob:
    return WaitingJob(
        job_id=f"job-{sequence}",
        sequence=sequence,
        lane=lane,
        program=program,
        gpu_memory_min_mib=gpu,
        cpu_memory_min_mib=cpu,
        indefinite=True,
        session_id=session,
        priority=priority,
        gpus=gpus,
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


def test_priority_comes_before_age_and_age_decides_among_equals() -> None:
    assert grants([job(1), job(2, priority=5), job(3, priority=5)], [slot("only")]) == {2: "only"}


def test_a_job_takes_only_the_gpus_or_slots_it_is_bound_to() -> None:
    slots = [slot("A#0"), slot("A#1"), slot("B#0")]
    assert grants([job(1, gpus=frozenset({"B"}))], slots) == {1: "B#0"}
    assert grants([job(n, gpus=frozenset({"A"})) for n in (1, 2, 3)], slots) == {1: "A#0", 2: "A#1"}
    assert grants([job(1, gpus=frozenset({"A#1"}))], slots) == {1: "A#1"}


def test_a_bound_job_never_holds_up_the_others() -> None:
    waiting = [job(1, gpus=frozenset({"A"})), job(2)]
    assert grants(waiting, [slot("A#0", quarantined=True), slot("B#0")]) == {2: "B#0"}


def test_a_drained_slot_gets_no_job() -> None:
    assert grants([job(1)], [slot("a", drained=True)]) == {}
    assert reason(job(1), [slot("a", drained=True)]) is Reason.LANE_QUARANTINED


def test_a_slot_that_is_handed_over_goes_to_its_session_alone_though_others_are_before_it() -> None:
    handed = slot("large", 80, handoff_session_id="t")
    assert grants([job(1), job(2, session="t")], [handed]) == {2: "large"}
    assert grants([job(1, session="t")], [handed, slot("small", 8)]) == {1: "large"}  # nothing handed over lies idle
    assert grants([job(1)], [handed]) == {}
    assert reason(job(1), [handed]) is Reason.LANE_HELD


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
        ([slot("a", quarantined=True), slot("b", drained=True)], Reason.LANE_QUARANTINED),
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


def test_a_job_bound_to_gpus_is_told_of_these_alone() -> None:
    held = slot("A#0", holder=Holder(job_id="x", indefinite=False))
    bound = job(1, gpus=frozenset({"A"}))
    assert reason(bound, [held]) is Reason.GPUS_BUSY
    assert reason(bound, [held, slot("B#0", ready=False)]) is Reason.GPUS_BUSY
    assert reason(bound, [slot("B#0")]) is Reason.LANE_TOO_SMALL
    assert reason(bound, [slot("A#0", quarantined=True), slot("B#0")]) is Reason.LANE_QUARANTINED


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
        drained=st.booleans(),
        handoff_session_id=st.sampled_from(["", "", "s", "t"]),
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
        session=st.sampled_from(["s", "t", "u"]),
        priority=st.integers(0, 2),
        gpus=st.sampled_from([frozenset(), frozenset(), frozenset({"s1", "s2"})]),
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
        free = place.ready and not place.quarantined and not place.drained and place.holder is None
        free = free and place.handoff_session_id in ("", one.session_id) and (not one.gpus or place.slot_key in one.gpus)
        return free and place in lanes[one.lane] and one.program in place.programs and place.memory_mib >= minimum

    assert granted.keys() | placement.blocked.keys() == {one.job_id for one in waiting}
    assert not granted.keys() & placement.blocked.keys()
    assert len({place.slot_key for place in granted.values()}) == len(granted)
    used = {place.slot_key for place in granted.values()}
    for grant in placement.grants:
        assert could_use(grant.job, grant.slot)
        for other in waiting:  # F1: nobody who waits was overtaken on a slot they could use
            before = (-other.priority, other.sequence) < (-grant.job.priority, grant.job.sequence)
            if other.job_id in placement.blocked and before:
                assert not could_use(other, grant.slot)
    for other in waiting:  # F2: nothing usable stays free
        if other.job_id in placement.blocked:
            assert not any(could_use(other, place) and place.slot_key not in used for place in slots)
