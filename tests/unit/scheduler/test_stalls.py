"""Workers that live and make no progress: flagged, restarted under the next epoch, given up."""

from __future__ import annotations

from functools import partial
from typing import Any

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil_scheduler.domain import control
from frazil_scheduler.ledger import tables
from frazil_scheduler.stall import FLAG_SECONDS, RESTARTS_MAX
from model.world import Worker, World
from unit.scheduler.stories import job, notices, session, up

HALF_AN_HOUR = 1800.0  # what preprocessing and 2D classification may go without progress


def hang(world: World, job_type: str = "preprocess") -> Worker:
    """Let a job's worker hang past its limit and be killed; return the one that hung."""
    worker = world.worker_of(job_type)
    world.advance(HALF_AN_HOUR)
    world.settle("node")
    assert worker.token.lease_id not in world.workers
    return worker


def again(world: World) -> None:
    """Let the back-off pass and the next worker start."""
    world.advance(60.0)
    world.settle("node")


def exposure(world: World, path: str) -> Any:
    (row,) = world.rows(tables.exposure, tables.exposure.c.relative_path == path)
    return row


# -------------------------------------------------------------------------------------------------------- flagged, told
def test_a_job_without_progress_while_input_waits_is_flagged_until_it_moves(world: World) -> None:
    session_id = up(world)
    worker = world.worker_of("preprocess")
    world.advance(10 * HALF_AN_HOUR)
    assert not job(world)["stalled"]  # there is nothing to do
    world.register(session_id, "m1")
    world.register(session_id, "m2")
    world.claim(worker, 1)
    for _ in range(10):
        assert not job(world)["stalled"]
        world.advance(FLAG_SECONDS / 10)
    row = job(world)
    assert (row["stalled"], row["state"]) == (True, "RUNNING")
    assert "No progress for 10 min" in str(row["reason"])
    assert "starts anew in 20 min" in str(row["reason"])
    world.advance(1)
    assert len([sentence for sentence in notices(world) if "has stalled" in sentence]) == 1
    world.commit(worker)
    row = job(world)
    assert (row["stalled"], row["reason"]) == (False, "")


def test_a_worker_that_asks_for_work_and_gets_none_has_not_stalled(world: World) -> None:
    up(world, until="class2d", slots=2)
    session_id = world.rows(tables.session)[0]["session_id"]
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    world.commit(world.worker_of("preprocess"))
    worker = world.worker_of("class2d_streaming")
    for _ in range(10):  # one block is too few for it to do anything with
        world.asked[worker.token.lease_id] = world.mono
        world.advance(FLAG_SECONDS / 2)
    assert not job(world, "class2d_streaming")["stalled"]
    world.advance(FLAG_SECONDS / 2)
    assert job(world, "class2d_streaming")["stalled"]


# ------------------------------------------------------------------------------------------------------------ restarted
def test_a_worker_past_its_limit_starts_anew_under_the_next_epoch_and_its_exposure_is_blamed(world: World) -> None:
    session_id = up(world)
    world.register(session_id, "m1")
    world.register(session_id, "m2")
    world.claim(world.worker_of("preprocess"), 2)
    hung = hang(world)
    assert (job(world)["state"], job(world)["failures"]) == ("WAITING", 1)
    assert "made no progress for 30 min" in str(job(world)["reason"])
    attempts = {row["exposure_id"]: row["outcome"] for row in world.rows(tables.attempt)}
    assert attempts == {
        hung.claims[0].exposure.exposure_id: "CRASH",  # it hung at the first, and had only fetched the second
        hung.claims[1].exposure.exposure_id: "RETURNED",
    }
    again(world)
    assert world.worker_of("preprocess").token.epoch > hung.token.epoch
    assert any("Preprocessing worker: Its worker made no progress" in sentence for sentence in notices(world))


def test_an_exposure_that_hangs_every_worker_is_quarantined_and_its_job_goes_on(world: World) -> None:
    session_id = up(world)
    world.register(session_id, "poison")
    for _ in range(3):
        again(world)
        world.claim(world.worker_of("preprocess"), 1)
        hang(world)
    assert exposure(world, "poison")["state"] == "QUARANTINED"
    assert "made no progress for 30 min at this exposure" in exposure(world, "poison")["failure"]
    again(world)
    assert (job(world)["state"], job(world)["stalls"]) == ("RUNNING", 0)


def test_the_last_work_of_a_completing_session_can_hang_too(world: World) -> None:
    session_id = up(world, until="class2d", slots=2)
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    world.commit(world.worker_of("preprocess"))
    world.checkpoint(world.worker_of("class2d_streaming"))
    world.advance(HALF_AN_HOUR)
    assert not job(world, "class2d_streaming")["stalled"]  # it has all there is
    world.change(session_id, "complete")
    world.finish(world.worker_of("preprocess"))
    world.advance(1)
    hang(world, "class2d_streaming")
    again(world)
    world.finish(world.worker_of("class2d_streaming"))
    world.settle("node")
    assert job(world, "class2d_streaming")["state"] == "DONE"


def test_a_worker_that_hangs_with_nothing_left_to_do_does_not_keep_its_session_from_ending(world: World) -> None:
    session_id = up(world)
    world.advance(HALF_AN_HOUR)
    world.change(session_id, "complete")
    hang(world)
    again(world)
    assert (job(world)["state"], session(world)["state"]) == ("DONE", "COMPLETED")


# ------------------------------------------------------------------------------------------------------------- given up
def hang_until_given_up(world: World, job_type: str) -> None:
    for _ in range(RESTARTS_MAX):
        hang(world, job_type)
        assert job(world, job_type)["state"] == "WAITING"
        again(world)
    hang(world, job_type)


def test_a_streaming_job_that_never_gets_further_is_given_up_until_a_person_requeues_it(world: World) -> None:
    session_id = up(world, until="class2d", slots=2)
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    world.commit(world.worker_of("preprocess"))
    for _ in range(RESTARTS_MAX):
        world.checkpoint(world.worker_of("class2d_streaming"), 0)  # a word, and then nothing
        hang(world, "class2d_streaming")
        again(world)
    hang(world, "class2d_streaming")
    row = job(world, "class2d_streaming")
    assert row["state"] == "FAILED"
    assert "3 times in a row" in str(row["reason"])
    assert any("2D classification has failed" in sentence for sentence in notices(world))
    world.store.transact(lambda tx: control.requeue(tx, control.require(tx, str(row["job_id"]))))
    world.settle("node")
    row = job(world, "class2d_streaming")
    assert (row["state"], row["stalls"]) == ("RUNNING", 0)


def test_a_worker_that_has_worked_for_longer_than_its_limit_is_believed_again(world: World) -> None:
    session_id = up(world, until="class2d", slots=2)
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    world.commit(world.worker_of("preprocess"))
    for _ in range(RESTARTS_MAX + 2):
        for _ in range(5):
            world.advance(FLAG_SECONDS - 1)
            world.checkpoint(world.worker_of("class2d_streaming"), 0)
        hang(world, "class2d_streaming")
        assert job(world, "class2d_streaming")["state"] == "WAITING"
        again(world)


def test_a_bounded_job_that_hangs_is_given_up_after_as_many_restarts(world: World, more_jobs: None) -> None:
    session_id = up(world, slots=2)
    request = scheduler_pb2.SubmitJobRequest(session=session_id, job_type="count")
    world.store.transact(partial(control.submit, lanes=world.lanes, request=request))
    world.settle("node")
    hang_until_given_up(world, "count")
    assert job(world, "count")["state"] == "FAILED"
