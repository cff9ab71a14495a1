"""Hand-over of slots inside a session: atomic, at checkpoints, with nobody else in between, over any restart."""

from __future__ import annotations

import pytest

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import gpus, limits
from frazil_scheduler.ledger import tables
from model.world import World
from unit.scheduler.stories import session
from unit.scheduler.test_compute import begin, end_draining, epochs, states

CLASSES = "class2d_streaming"
REFINE = "refine_streaming"
DONE, SWITCHING, CANCELLED = (
    session_pb2.SlotSwitch.STATE_DONE,
    session_pb2.SlotSwitch.STATE_SWITCHING,
    session_pb2.SlotSwitch.STATE_CANCELLED,
)


def plan(world: World, name: str = "s") -> session_pb2.SlotSwitch:
    (row,) = world.rows(tables.session, tables.session.c.name == name)
    return session_pb2.SlotSwitch.FromString(row["slot_switch"])


def handed_over(world: World) -> list[str]:
    return [row["slot_key"] for row in world.rows(tables.slot) if row["handoff_session_id"]]


def rival(world: World) -> str:
    """Another session's worker waits for any slot, before whatever is queued later."""
    other = world.create("rival", until="preprocess", priority=100)
    world.change(other, "start")
    return other


def test_two_workers_become_one_and_classification_with_nobody_in_between(world: World) -> None:
    session_id = begin(world, 2, workers_wanted=2)
    rival(world)
    assert states(world, CLASSES) == ["WAITING"]
    before = epochs(world)
    switch = world.switch(session_id, preprocess=1, class2d_streaming=1)
    assert (switch.state, switch.asked_by) == (SWITCHING, "person")
    assert handed_over(world) == ["GPU-1#0"]
    end_draining(world)
    assert states(world) == ["RUNNING", "PAUSED", "WAITING"]
    assert states(world, CLASSES) == ["RUNNING"]
    assert world.worker_of(CLASSES).slot_key == "GPU-1#0"
    assert plan(world).state == DONE
    assert handed_over(world) == []
    parked = [row for row in world.rows(tables.job) if row["parked"]]
    assert [(row["job_type"], row["sequence"]) for row in parked] == [("preprocess", 2)]
    assert before.items() & epochs(world).items()  # the worker that stays was not touched


def test_classification_gives_way_to_refinement_and_returns(world: World, more_jobs: None) -> None:
    session_id = begin(world, 2)
    classes = world.worker_of(CLASSES)
    world.checkpoint(classes)
    world.switch(session_id, preprocess=1, refine_streaming=1)
    world.settle("one")
    assert classes.draining
    end_draining(world)
    assert (states(world, CLASSES), states(world, REFINE)) == (["PAUSED"], ["RUNNING"])
    world.switch(session_id, preprocess=1, class2d_streaming=1)
    end_draining(world)
    assert (states(world, CLASSES), states(world, REFINE)) == (["RUNNING"], ["PAUSED"])
    assert plan(world).state == DONE


@pytest.mark.parametrize("moment", range(5))
def test_a_restart_at_any_moment_changes_nothing_of_the_outcome(world: World, moment: int) -> None:
    session_id = begin(world, 1)
    rival(world)

    def restart_at(now: int) -> None:
        if moment == now:
            world.restart()
            world.hello("one")
            world.settle("one")

    worker = world.worker_of("preprocess")
    world.switch(session_id, class2d_streaming=1)
    restart_at(0)
    world.settle("one")
    restart_at(1)
    world.end(worker, 0)
    restart_at(2)
    world.deliver("one")  # the probe that proves the slot free
    restart_at(3)
    world.settle("one")
    restart_at(4)
    assert plan(world).state == DONE
    assert states(world, CLASSES) == ["RUNNING"]
    assert handed_over(world) == []


def test_a_pause_gives_it_up_and_the_jobs_return_with_the_session(world: World) -> None:
    session_id = begin(world, 1)
    world.switch(session_id, class2d_streaming=1)
    world.settle("one")
    assert world.change(session_id, "pause") == "PAUSING"
    assert (plan(world).state, handed_over(world)) == (CANCELLED, [])
    end_draining(world)
    world.change(session_id, "start")
    world.settle("one")
    assert (states(world), states(world, CLASSES)) == (["RUNNING"], ["WAITING"])


def test_what_is_parked_stays_so_over_a_pause(world: World) -> None:
    session_id = begin(world, 1)
    world.switch(session_id, class2d_streaming=1)
    end_draining(world)
    world.change(session_id, "pause")
    end_draining(world)
    assert session(world)["state"] == "PAUSED"
    world.change(session_id, "start")
    world.settle("one")
    assert (states(world), states(world, CLASSES)) == (["PAUSED"], ["RUNNING"])


def test_a_person_takes_it_back_while_the_worker_still_stops(world: World) -> None:
    session_id = begin(world, 1)
    rival(world)
    world.switch(session_id, class2d_streaming=1)
    assert world.switch(session_id).state == CANCELLED
    end_draining(world)
    # The slot is nobody's privilege any more: the rival's priority counts.
    assert handed_over(world) == []
    assert states(world) == ["WAITING", "RUNNING"]


def test_a_newer_one_turns_it_round_and_the_slot_stays_in_the_session(world: World) -> None:
    session_id = begin(world, 1)
    rival(world)
    world.switch(session_id, class2d_streaming=1)
    world.settle("one")
    world.switch(session_id, preprocess=1)
    assert handed_over(world) == ["GPU-0#0"]
    end_draining(world)
    assert (states(world), states(world, CLASSES)) == (["RUNNING", "WAITING"], ["PAUSED"])
    assert plan(world).state == DONE


def test_other_compute_resources_end_the_plan(world: World) -> None:
    session_id = begin(world, 2)
    world.switch(session_id, class2d_streaming=1)
    end_draining(world)
    assert states(world) == ["PAUSED"]
    world.update(session_id, priority=5)
    assert states(world) == ["PAUSED"]
    world.update(session_id, preprocessing_workers=2)
    assert plan(world).state == CANCELLED
    world.settle("one")
    assert sorted(states(world)) == ["RUNNING", "WAITING"]


def test_completing_brings_everything_back(world: World) -> None:
    session_id = begin(world, 1)
    world.switch(session_id, preprocess=1)
    assert states(world, CLASSES) == ["PAUSED"]
    world.change(session_id, "complete")
    world.finish(world.worker_of("preprocess"))
    world.settle("one")
    world.finish(world.worker_of(CLASSES))
    world.settle("one")
    assert session(world)["state"] == "COMPLETED"


def test_it_is_given_up_when_a_wanted_job_has_failed(world: World) -> None:
    session_id = begin(world, 1)
    world.switch(session_id, class2d_streaming=1)
    world.settle("one")
    world.stream(session_id, CLASSES, start=False)
    assert plan(world).state == CANCELLED
    assert "does not run any more" in plan(world).sentence
    end_draining(world)
    world.settle("one")
    assert states(world) == ["RUNNING"]


def test_a_slot_that_is_never_proven_free_is_not_waited_for(world: World) -> None:
    session_id = begin(world, 1)
    world.switch(session_id, class2d_streaming=1)
    world.deliver("one")
    world.advance(limits.DRAIN_PREPROCESSING_SECONDS + limits.PROOF_SECONDS)
    world.hello("two", {"GPU-9#0": 24_000})
    world.settle("two")
    assert world.worker_of(CLASSES).slot_key == "GPU-9#0"
    assert (plan(world).state, handed_over(world)) == (DONE, [])


def test_the_worker_goes_whose_slot_the_others_can_use(world: World, more_jobs: None) -> None:
    session_id = world.create("s", workers_wanted=2)
    world.change(session_id, "start")
    world.hello("one", {"GPU-0#0": 9_000, "GPU-1#0": 24_000})
    world.settle("one")
    world.stream(session_id, CLASSES, start=False)
    world.switch(session_id, preprocess=1, refine_streaming=1)
    end_draining(world)
    assert world.worker_of(REFINE).slot_key == "GPU-1#0"
    assert plan(world).state == DONE


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ({"preprocess": 3}, "the session has 2. Change its compute resources first."),
        ({"class2d_streaming": 2}, "the session has 1"),
        ({"ab": 1}, "takes no part in a hand-over; what does is preprocess, class2d_streaming"),
        ({"preprocess": 0}, "names no job"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(world: World, wanted: dict[str, int], part: str) -> None:
    session_id = begin(world, 1, workers_wanted=2)
    with pytest.raises(FrazilError) as caught:
        world.switch(session_id, **wanted)
    assert part in caught.value.sentence
    assert plan(world).state == session_pb2.SlotSwitch.STATE_UNSPECIFIED


def test_only_a_running_session_hands_slots_over(world: World) -> None:
    session_id = world.create("s")
    with pytest.raises(FrazilError) as caught:
        world.switch(session_id, preprocess=1)
    assert caught.value.reason == "SESSION_STATE_WRONG"


def test_a_quarantined_worker_does_not_keep_the_hand_over_from_its_end(world: World) -> None:
    session_id = begin(world, 2)
    slot_key = world.worker_of(CLASSES).slot_key
    world.store.transact(lambda tx: gpus.quarantine(tx, slot_key, "maintenance"))
    world.switch(session_id, class2d_streaming=1)
    end_draining(world)
    assert states(world, CLASSES) == ["RUNNING"]
    assert plan(world).state == DONE


def test_taken_back_while_the_session_is_paused_nothing_runs_before_its_start(world: World) -> None:
    session_id = begin(world, 1)
    world.switch(session_id, class2d_streaming=1)
    end_draining(world)
    world.change(session_id, "pause")
    end_draining(world)
    assert world.switch(session_id).state == CANCELLED
    assert (states(world), states(world, CLASSES)) == (["PAUSED"], ["PAUSED"])
    world.change(session_id, "start")
    world.settle("one")
    assert (states(world), states(world, CLASSES)) == (["RUNNING"], ["WAITING"])
