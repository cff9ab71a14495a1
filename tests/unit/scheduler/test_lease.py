"""The lease machine: what may never happen whatever comes in whatever order, and the cases a person would ask about."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frazil_scheduler.lease import (
    BUSY_EXTERNAL,
    Cause,
    Event,
    Fenced,
    HelloSeen,
    JobReleased,
    JobRuns,
    Lease,
    Message,
    NodeSilent,
    ProofOverdue,
    ProvedFree,
    QuarantineKind,
    Refused,
    SlotFreed,
    SlotQuarantined,
    Started,
    State,
    Stop,
    StopAsked,
    WorkerExited,
    adopted,
    step,
    wanted,
)

FRESH = Lease(lease_id="l", epoch=7, boot_id="boot")
HELD = replace(FRESH, state=State.HELD)
FOUND = HelloSeen("boot", held=True, job_epoch=7)
MISSING = HelloSeen("boot", held=False, job_epoch=7)
REBOOTED = HelloSeen("other", held=False, job_epoch=7)

events = st.one_of(
    st.just(Started()),
    st.builds(Refused, st.sampled_from(["STALE_EPOCH", BUSY_EXTERNAL])),
    st.builds(StopAsked, st.sampled_from(Stop)),
    st.builds(WorkerExited, st.sampled_from([None, 0, 1, -9])),
    st.just(NodeSilent()),
    st.builds(HelloSeen, st.sampled_from(["boot", "other"]), st.booleans(), st.sampled_from([7, 8])),
    st.builds(ProvedFree, st.sampled_from(["", "the lock is held"])),
    st.just(ProofOverdue()),
    st.just(Fenced()),
)


def after(lease: Lease, *happened: Event) -> Lease:
    for event in happened:
        lease, _ = step(lease, event)
    return lease


@given(st.lists(events, max_size=12))
def test_laws_of_every_history(history: list[Event]) -> None:
    lease, bound = FRESH, True
    for event in history:
        before = lease
        lease, effects = step(before, event)
        kinds = [type(effect) for effect in effects]
        if before.state is State.CLOSED:
            assert (lease, effects) == (before, ())
        closes = lease.state is State.CLOSED and before.state is not State.CLOSED
        assert (SlotFreed in kinds) == closes
        if closes:  # only by proof, reboot or a person's word
            assert event in (ProvedFree(""), Fenced()) or (isinstance(event, HelloSeen) and event.boot_id == "other")
        if before.state is State.HELD and lease.state is not State.HELD:
            assert isinstance(event, StopAsked | WorkerExited | NodeSilent | HelloSeen | Fenced)
        if JobReleased in kinds:
            assert bound, "a job is released once"
            bound = False
        if JobRuns in kinds:
            assert isinstance(event, Started | HelloSeen)
            bound = True
        assert bound == (not lease.released)
        if lease.state is State.HELD:
            assert bound
            assert lease.stop is None
        if lease.state in (State.LOST, State.QUARANTINED, State.CLOSED):
            assert not bound


def test_nothing_happens_to_a_held_lease_by_time_or_by_a_late_proof() -> None:
    for event in (ProofOverdue(), ProvedFree(""), Started()):
        assert step(HELD, event) == (HELD, ())


def test_the_usual_life() -> None:
    assert wanted(FRESH) is Message.START
    lease, effects = step(FRESH, Started())
    assert (lease.state, effects, wanted(lease)) == (State.HELD, (JobRuns(),), None)
    lease, effects = step(lease, StopAsked(Stop.DRAIN))
    assert (lease.state, effects, wanted(lease)) == (State.RELEASING, (), Message.STOP)
    lease, effects = step(lease, WorkerExited(0))
    assert effects == (JobReleased(Cause.ASKED, "", 0),)
    assert wanted(lease) is Message.PROBE
    lease, effects = step(lease, ProvedFree())
    assert (lease.state, effects, wanted(lease)) == (State.CLOSED, (SlotFreed(),), None)


def test_a_death_of_its_own_is_told_with_code_and_last_words() -> None:
    lease, effects = step(HELD, WorkerExited(-11, "Segmentation fault"))
    assert (lease.state, effects) == (State.RELEASING, (JobReleased(Cause.DIED, "Segmentation fault", -11),))


def test_a_lost_lease_heals_when_its_node_is_back_and_nobody_else_has_the_job() -> None:
    lost = after(HELD, NodeSilent())
    assert lost.state is State.LOST
    assert wanted(lost) is None
    healed, effects = step(lost, FOUND)
    assert (healed, effects) == (HELD, (JobRuns(),))
    assert adopted(healed)


@pytest.mark.parametrize("moved_on", [HelloSeen("boot", held=True, job_epoch=8)])
def test_a_lost_lease_whose_job_has_moved_on_is_killed(moved_on: HelloSeen) -> None:
    back, effects = step(after(HELD, NodeSilent()), moved_on)
    assert (back.state, back.stop, effects) == (State.RELEASING, Stop.KILL, ())
    assert not adopted(back)


def test_a_stop_asked_while_the_node_was_lost_is_remembered() -> None:
    back = after(HELD, NodeSilent(), StopAsked(Stop.DRAIN), FOUND)
    assert (back.state, back.stop) == (State.RELEASING, Stop.KILL)


def test_a_draining_worker_found_after_a_restart_goes_on_draining() -> None:
    draining = after(HELD, StopAsked(Stop.DRAIN))
    assert adopted(after(draining, FOUND))
    assert after(draining, FOUND) == draining


def test_a_worker_missing_at_hello_is_dead_and_its_slot_is_probed() -> None:
    lease, effects = step(HELD, MISSING)
    assert (lease.state, effects, wanted(lease)) == (State.RELEASING, (JobReleased(Cause.UNSEEN),), Message.PROBE)


def test_a_start_not_yet_arrived_is_sent_again_after_hello() -> None:
    assert step(FRESH, MISSING) == (FRESH, ())
    assert wanted(FRESH) is Message.START


def test_a_reboot_proves_every_lease_of_the_node_free() -> None:
    for lease in (FRESH, HELD, after(HELD, NodeSilent()), after(HELD, StopAsked(Stop.KILL))):
        assert after(lease, REBOOTED).state is State.CLOSED


def test_a_problem_quarantines_the_slot_and_a_later_proof_closes_the_lease() -> None:
    dead = after(HELD, WorkerExited(1))
    lease, effects = step(dead, ProvedFree("memory not released: 900 MiB"))
    assert effects == (SlotQuarantined(QuarantineKind.PROOF, "memory not released: 900 MiB"),)
    assert (lease.state, wanted(lease)) == (State.QUARANTINED, Message.PROBE)
    assert after(lease, ProvedFree()).state is State.CLOSED


def test_a_missing_proof_quarantines_the_slot_and_lets_the_job_go() -> None:
    lease, effects = step(after(HELD, StopAsked(Stop.KILL)), ProofOverdue())
    assert [type(effect) for effect in effects] == [JobReleased, SlotQuarantined]
    assert (lease.state, wanted(lease)) == (State.QUARANTINED, Message.STOP)


def test_a_slot_used_by_another_program_is_quarantined_and_the_job_goes_back() -> None:
    lease, effects = step(FRESH, Refused(BUSY_EXTERNAL, "pid 12 uses 3000 MiB"))
    assert lease.state is State.QUARANTINED
    assert effects == (
        JobReleased(Cause.REFUSED, f"{BUSY_EXTERNAL}: pid 12 uses 3000 MiB"),
        SlotQuarantined(QuarantineKind.EXTERNAL, "pid 12 uses 3000 MiB"),
    )


def test_a_refused_start_awaits_proof_before_the_slot_is_free() -> None:
    lease, effects = step(FRESH, Refused("SLOT_HELD"))
    assert (lease.state, effects, wanted(lease)) == (
        State.RELEASING,
        (JobReleased(Cause.REFUSED, "SLOT_HELD"),),
        Message.PROBE,
    )


def test_drain_becomes_kill_but_never_back() -> None:
    killing = after(HELD, StopAsked(Stop.DRAIN), StopAsked(Stop.KILL))
    assert killing.stop is Stop.KILL
    assert after(killing, StopAsked(Stop.DRAIN)).stop is Stop.KILL
