"""What a person may do to jobs: submit, cancel, kill, requeue, change their priority."""

from __future__ import annotations

from typing import Any

import pytest

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import control, sessions, workers
from frazil_scheduler.ledger import records, tables
from model.world import World
from unit.scheduler.stories import job, notices, up

HOUR = 3600.0


def submit(world: World, session_id: str, **values: Any) -> dict[str, Any]:
    request = scheduler_pb2.SubmitJobRequest(session=session_id, job_type="count", **values)
    return dict(world.store.transact(lambda tx: control.submit(tx, world.lanes, request)))


def change(world: World, how: Any, job_type: str = "preprocess", *values: Any) -> dict[str, Any]:
    job_id = job(world, job_type)["job_id"]
    return dict(world.store.transact(lambda tx: how(tx, control.require(tx, job_id), *values)))


def refusal(world: World, session_id: str, **values: Any) -> FrazilError:
    with pytest.raises(FrazilError) as caught:
        submit(world, session_id, **values)
    assert world.rows(tables.job, tables.job.c.job_type == "count") == []
    return caught.value


# ------------------------------------------------------------------------------------------------------ auxiliary jobs
def test_an_auxiliary_job_is_run_once_with_its_parameters(world: World, more_jobs: None) -> None:
    session_id = up(world, slots=2)
    submit(world, session_id, parameters={"classes": "7"})
    world.settle("node")
    worker = world.worker_of("count")
    attach = worker_pb2.AttachRequest(lease=worker.token)
    reply = world.store.read(lambda tx: workers.attach(tx, attach))
    assert dict(reply.parameters) == {"classes": "7", "resolution_angstrom": "12.0", "symmetry": "C1", "mask": "True"}
    world.finish(worker)
    world.settle("node")
    assert job(world, "count")["state"] == "DONE"
    world.change(session_id, "pause")
    world.end(world.worker_of("preprocess"), 0)
    world.settle("node")
    world.change(session_id, "start")
    assert job(world, "count")["state"] == "DONE"  # it belongs to no streaming life


def test_what_is_not_given_is_the_sessions(world: World, more_jobs: None) -> None:
    session_id = world.create("s", priority=7, auxiliary_gpus=["GPU-1"])
    row = submit(world, session_id)
    assert (row["priority"], row["gpus"], row["lane"]) == (7, "GPU-1", "default")
    row = submit(world, session_id, priority=0, gpus=["GPU-2#1"])
    assert (row["priority"], row["gpus"]) == (0, "GPU-2#1")


def test_what_no_slot_of_the_lane_can_ever_serve_is_refused_at_once(world: World, more_jobs: None) -> None:
    session_id = world.create("s")
    world.hello("node", {"GPU-1#0": 4_000, "GPU-2#0": 24_000})
    world.store.transact(lambda tx: tx.run(tables.slot.delete().where(tables.slot.c.slot_key == "GPU-2#0")))
    error = refusal(world, session_id)
    assert error.reason == "NO_SLOT_FITS"
    assert "needs 7629 MiB on a GPU" in error.sentence
    assert "the largest has 4000 MiB" in error.sentence


def test_gpus_that_the_lane_does_not_have_or_that_are_too_small_are_refused(world: World, more_jobs: None) -> None:
    session_id = world.create("s")
    world.hello("node", {"GPU-1#0": 4_000, "GPU-2#0": 24_000})
    assert "(GPU-9) is in lane" in refusal(world, session_id, gpus=["GPU-9"]).sentence
    assert "that it is bound to is large enough" in refusal(world, session_id, gpus=["GPU-1"]).sentence
    assert submit(world, session_id, gpus=["GPU-2"])["state"] == "WAITING"


def test_a_lane_that_has_no_slot_yet_refuses_nothing(world: World, more_jobs: None) -> None:
    assert submit(world, world.create("s"))["state"] == "WAITING"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"lane": "nowhere"}, "LANE_UNKNOWN"),
        ({"priority": 101}, "PRIORITY_INVALID"),
        ({"priority": -1}, "PRIORITY_INVALID"),
        ({"parameters": {"classes": "0"}}, "PARAMETER_INVALID"),
        ({"parameters": {"colour": "red"}}, "PARAMETER_UNKNOWN"),
    ],
)
def test_a_wrong_submission_leaves_nothing(world: World, more_jobs: None, values: dict[str, Any], reason: str) -> None:
    assert refusal(world, world.create("s"), **values).reason == reason


def test_a_streaming_job_cannot_be_submitted(world: World) -> None:
    request = scheduler_pb2.SubmitJobRequest(session=world.create("s"), job_type="preprocess")
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: control.submit(tx, world.lanes, request))
    assert caught.value.reason == "JOB_TYPE_STREAMING"


def test_on_one_gpu_an_auxiliary_job_runs_while_the_session_is_paused(world: World, more_jobs: None) -> None:
    session_id = up(world)
    submit(world, session_id)
    world.change(session_id, "pause")
    for worker in list(world.workers.values()):
        world.end(worker, 0)
    world.settle("node")
    assert job(world, "count")["state"] == "PAUSED"  # a pause stops everything
    second = submit(world, session_id)
    world.settle("node")
    assert {row["job_id"]: row["state"] for row in world.rows(tables.job)}[second["job_id"]] == "RUNNING"


def test_a_bounded_job_that_runs_too_long_is_given_up(world: World, more_jobs: None) -> None:
    submit(world, up(world, slots=2))
    world.settle("node")
    worker = world.worker_of("count")
    for minute in range(4):  # it makes progress all the time
        beat = worker_pb2.HeartbeatRequest(lease=worker.token, progress=f"minute {minute}")
        world.store.transact(lambda tx, beat=beat: workers.keep_progress(tx, beat))
        world.advance(0.45 * HOUR)
    assert job(world, "count")["state"] == "RUNNING"
    world.advance(0.45 * HOUR)
    world.settle("node")
    row = job(world, "count")
    assert (row["state"], row["failures"]) == ("FAILED", 0)
    assert "more than 2 h" in row["reason"]
    assert any("Counting job has failed" in sentence for sentence in notices(world))


# --------------------------------------------------------------------------------------------------------- the levers
def test_priority_changes_who_is_next(world: World) -> None:
    first, second = world.create("a", until="preprocess"), world.create("b", until="preprocess")
    for session_id in (first, second):
        world.change(session_id, "start")
    by_session = {row["session_id"]: row for row in world.rows(tables.job)}
    later = by_session[second]["job_id"]
    world.store.transact(lambda tx: control.set_priority(tx, control.require(tx, later), 50))
    world.hello("node", {"GPU-1#0": 24_000})
    states = {row["session_id"]: row["state"] for row in world.rows(tables.job)}
    assert states == {first: "WAITING", second: "STARTING"}
    with pytest.raises(FrazilError):
        world.store.transact(lambda tx: control.set_priority(tx, control.require(tx, later), 101))


def test_kill_ends_a_worker_at_once_and_cancels_its_job(world: World) -> None:
    session_id = up(world)
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    assert change(world, control.kill)["state"] == "STOPPING"
    world.deliver("node")
    assert world.workers == {}
    world.settle("node")
    assert (job(world)["state"], job(world)["reason"]) == ("CANCELLED", "Killed by a person.")
    (exposure,) = world.rows(tables.exposure)
    assert (exposure["state"], exposure["attempts"]) == ("READY", 0)  # none of its fault
    assert change(world, control.kill)["state"] == "CANCELLED"


def test_kill_insists_where_a_cancel_only_asked(world: World) -> None:
    up(world)
    change(world, control.cancel)
    world.deliver("node")
    assert len(world.workers) == 1  # it drains
    change(world, control.kill)
    world.deliver("node")
    assert world.workers == {}


def test_a_waiting_job_is_killed_without_ado(world: World) -> None:
    world.change(world.create("s", until="preprocess"), "start")
    assert change(world, control.kill)["state"] == "CANCELLED"


def test_requeue_starts_a_running_job_anew_at_its_place(world: World) -> None:
    up(world)
    worker = world.worker_of("preprocess")
    sequence = job(world)["sequence"]
    assert change(world, control.requeue)["state"] == "STOPPING"
    world.deliver("node")
    assert worker.draining
    world.end(worker, 0)
    world.settle("node")
    assert (job(world)["state"], job(world)["sequence"]) == ("RUNNING", sequence)
    assert job(world)["epoch"] > worker.token.epoch


def test_requeue_revives_a_failed_or_cancelled_job(world: World) -> None:
    up(world)
    world.finish(world.worker_of("preprocess"), "It cannot go on.")
    assert job(world)["state"] == "FAILED"
    assert change(world, control.requeue)["state"] == "WAITING"
    world.settle("node")
    assert job(world)["state"] == "RUNNING"
    change(world, control.kill)
    world.settle("node")
    change(world, control.requeue)
    world.settle("node")
    assert job(world)["state"] == "RUNNING"


def test_requeue_of_a_failed_job_waits_for_the_end_of_its_worker(world: World) -> None:
    up(world)
    worker = world.worker_of("preprocess")
    request = worker_pb2.FinishJobRequest(request_id="r", lease=worker.token, failure="It cannot go on.")
    world.store.transact(lambda tx: workers.finish(tx, request))
    assert change(world, control.requeue)["state"] == "STOPPING"
    world.end(worker, 1)
    assert job(world)["state"] == "WAITING"


def test_requeue_of_a_backing_off_job_tries_at_once(world: World) -> None:
    up(world)
    world.end(world.worker_of("preprocess"), 1)
    world.settle("node")
    assert job(world)["state"] == "WAITING"
    change(world, control.requeue)
    world.settle("node")
    assert job(world)["state"] == "RUNNING"


def test_a_requeued_job_of_a_paused_session_waits_for_its_start(world: World) -> None:
    session_id = up(world)
    change(world, control.kill)
    world.settle("node")
    world.change(session_id, "pause")
    assert change(world, control.requeue)["state"] == "PAUSED"
    world.change(session_id, "start")
    world.settle("node")
    assert job(world)["state"] == "RUNNING"


@pytest.mark.parametrize(("state", "reason"), [("DONE", "JOB_DONE"), ("PAUSED", "JOB_PAUSED")])
def test_what_cannot_be_requeued_is_said(world: World, state: str, reason: str) -> None:
    session_id = up(world)
    if state == "DONE":
        world.change(session_id, "complete")
        world.finish(world.worker_of("preprocess"))
    else:
        world.change(session_id, "pause")
        world.end(world.worker_of("preprocess"), 0)
        world.settle("node")
    assert job(world)["state"] == state
    with pytest.raises(FrazilError) as caught:
        change(world, control.requeue)
    assert caught.value.reason == reason


def test_a_job_tells_all_that_was_asked_of_it(world: World, more_jobs: None) -> None:
    session_id = world.create("s")
    submit(world, session_id, priority=9, gpus=["GPU-1"], parameters={"symmetry": "O"})
    row = job(world, "count")
    told = world.store.read(lambda tx: records.job_record(tx, row))  # type: ignore[arg-type]
    assert (told.priority, list(told.gpus), told.indefinite, told.gpu_memory_min_mib) == (9, ["GPU-1"], False, 7629)
    assert told.parameters["symmetry"] == "O"
    assert told.state_time.ToNanoseconds() == world.clock.wall_ns()
    world.advance(5)
    world.store.transact(lambda tx: sessions.stop(tx, control.require(tx, row["job_id"]), "CANCELLED"))
    told = world.store.read(lambda tx: records.job_record(tx, control.require(tx, row["job_id"])))
    assert told.state_time.ToNanoseconds() == world.clock.wall_ns()
