"""Where and when a session's jobs run: changes at once or from the next start on, streaming jobs one by one, auto-pause."""

from __future__ import annotations

from typing import Any

import pytest

from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import limits, workers
from frazil_scheduler.ledger import records, tables
from model.world import World
from unit.scheduler.stories import job, notices, session

ON_REQUEST = session_pb2.ComputeResources.STREAMING_START_ON_REQUEST
GRACEFUL = session_pb2.ComputeResources.AUTO_PAUSE_GRACEFUL
IMMEDIATE = session_pb2.ComputeResources.AUTO_PAUSE_IMMEDIATE


def begin(world: World, slots: int, **compute: Any) -> str:
    """Start a session on one node with so many slots."""
    session_id = world.create("s", **compute)
    world.change(session_id, "start")
    world.hello("one", {f"GPU-{number}#0": 24_000 for number in range(slots)})
    world.settle("one")
    return session_id


def states(world: World, job_type: str = "preprocess") -> list[str]:
    rows = world.rows(tables.job, tables.job.c.job_type == job_type)
    return [row["state"] for row in sorted(rows, key=lambda row: row["sequence"])]


def epochs(world: World) -> dict[str, int]:
    return {row["job_id"]: row["epoch"] for row in world.rows(tables.job) if row["state"] == "RUNNING"}


def end_draining(world: World, node: str = "one") -> None:
    """Let workers that were told to stop end as they should."""
    world.settle(node)
    for worker in [worker for worker in world.workers.values() if worker.draining]:
        world.end(worker, 0)
    world.settle(node)


# --------------------------------------------------------------------------------------------------------- hot scaling
def test_more_workers_at_once_leave_the_others_untouched(world: World) -> None:
    session_id = begin(world, 4, until="preprocess", workers_wanted=1)
    before = epochs(world)
    world.update(session_id, preprocessing_workers=3)
    world.settle("one")
    assert states(world) == ["RUNNING"] * 3
    assert before.items() <= epochs(world).items()


def test_fewer_workers_finish_their_exposure_and_are_closed(world: World) -> None:
    session_id = begin(world, 3, until="preprocess", workers_wanted=3)
    for number in range(3):
        world.register(session_id, f"m{number}")
    workers = list(world.workers.values())
    for worker in workers:
        world.claim(worker, 1)
    world.update(session_id, preprocessing_workers=1)
    assert states(world) == ["RUNNING", "STOPPING", "STOPPING"]
    world.settle("one")
    for worker in workers:
        world.commit(worker)  # what they were at counts
    end_draining(world)
    assert states(world) == ["RUNNING", "CANCELLED", "CANCELLED"]
    assert session(world)["done"] == 3
    assert "fewer preprocessing workers" in world.rows(tables.job)[-1]["reason"]
    world.change(session_id, "pause")
    end_draining(world)
    world.change(session_id, "start")
    assert sorted(states(world)) == ["CANCELLED", "CANCELLED", "STARTING"]


def test_a_change_waits_for_the_next_start_unless_it_is_wanted_at_once(world: World) -> None:
    session_id = begin(world, 3, until="preprocess", workers_wanted=1)
    world.update(session_id, now=False, preprocessing_workers=2)
    record = records.session_record(session(world))  # type: ignore[arg-type]
    assert (record.compute.preprocessing_workers, record.compute_next.preprocessing_workers) == (1, 2)
    assert states(world) == ["RUNNING"]
    world.change(session_id, "pause")
    end_draining(world)
    world.change(session_id, "start")
    world.settle("one")
    assert states(world) == ["RUNNING", "RUNNING"]
    record = records.session_record(session(world))  # type: ignore[arg-type]
    assert record.compute.preprocessing_workers == 2
    assert not record.HasField("compute_next")


def test_a_change_taken_back_leaves_nothing_to_change(world: World) -> None:
    session_id = begin(world, 1, until="preprocess")
    world.update(session_id, now=False, preprocessing_workers=2)
    world.update(session_id, now=False, preprocessing_workers=1)
    assert session(world)["compute_next"] == b""


def test_another_lane_at_once_drains_and_goes_on_there(world: World) -> None:
    session_id = begin(world, 1, until="preprocess")
    world.hello("two", {"GPU-9#0": 24_000})
    world.register(session_id, "m1")
    worker = world.worker_of("preprocess")
    world.claim(worker)
    world.update(session_id, preprocessing_lane="two")
    world.settle("one")
    assert worker.draining
    world.commit(worker)
    end_draining(world)
    world.settle("two")
    assert world.worker_of("preprocess").slot_key == "GPU-9#0"
    assert session(world)["done"] == 1


def test_a_worker_that_is_where_it_may_be_stays_there(world: World) -> None:
    session_id = begin(world, 2, until="preprocess", workers_wanted=2)
    before = epochs(world)
    world.update(session_id, preprocessing_gpus=["GPU-0", "GPU-1#0"], priority=9)
    assert states(world) == ["RUNNING", "RUNNING"]
    assert epochs(world) == before
    assert {(row["priority"], row["gpus"]) for row in world.rows(tables.job)} == {(9, "GPU-0\nGPU-1#0")}
    world.update(session_id, preprocessing_gpus=["GPU-0"])
    assert sorted(states(world)) == ["RUNNING", "STOPPING"]


# ------------------------------------------------------------------------------------------------- streaming, one by one
def test_streaming_on_request_leaves_its_slot_to_others_until_it_is_started(world: World) -> None:
    session_id = begin(world, 2, workers_wanted=1, streaming_start=ON_REQUEST)
    assert states(world, "class2d_streaming") == []
    other = world.create("other", until="preprocess")
    world.change(other, "start")
    world.settle("one")
    world.stream(session_id, "class2d_streaming", start=True)
    assert states(world, "class2d_streaming") == ["WAITING"]
    world.change(other, "pause")
    end_draining(world)
    assert states(world, "class2d_streaming") == ["RUNNING"]  # by itself


def test_a_stopped_streaming_job_goes_on_where_it_ended(world: World) -> None:
    session_id = begin(world, 2)
    worker = world.worker_of("class2d_streaming")
    world.checkpoint(worker)
    world.stream(session_id, "class2d_streaming", start=False)
    end_draining(world)
    assert states(world, "class2d_streaming") == ["PAUSED"]
    assert "by a person" in str(job(world, "class2d_streaming")["reason"])
    world.change(session_id, "pause")
    end_draining(world)
    world.change(session_id, "start")
    world.settle("one")
    assert states(world, "class2d_streaming") == ["PAUSED"]  # it stays stopped
    world.stream(session_id, "class2d_streaming", start=True)
    world.settle("one")
    assert states(world, "class2d_streaming") == ["RUNNING"]
    assert [row["job_id"] for row in world.rows(tables.checkpoint)] == [job(world, "class2d_streaming")["job_id"]]


def test_a_session_is_completed_without_a_streaming_job_that_was_stopped(world: World) -> None:
    session_id = begin(world, 2)
    world.stream(session_id, "class2d_streaming", start=False)
    end_draining(world)
    world.change(session_id, "complete")
    world.finish(world.worker_of("preprocess"))
    world.settle("one")
    assert session(world)["state"] == "COMPLETED"


def test_only_what_streams_in_the_session_can_be_started(world: World) -> None:
    session_id = begin(world, 1, until="preprocess")
    for job_type, part in (("class2d_streaming", "it ends with preprocessing"), ("preprocess", "no streaming job")):
        with pytest.raises(FrazilError) as caught:
            world.stream(session_id, job_type, start=True)
        assert part in caught.value.sentence


def test_a_streaming_job_too_large_for_its_lane_is_refused_at_once(world: World) -> None:
    session_id = world.create("s", streaming_start=ON_REQUEST)
    world.change(session_id, "start")
    world.hello("one", {"GPU-0#0": 3_000})
    with pytest.raises(FrazilError) as caught:
        world.stream(session_id, "class2d_streaming", start=True)
    assert caught.value.reason == "NO_SLOT_FITS"
    assert states(world, "class2d_streaming") == []


def test_a_failed_streaming_job_is_started_again_once_its_worker_has_ended(world: World) -> None:
    session_id = begin(world, 2)
    worker = world.worker_of("class2d_streaming")
    request = worker_pb2.FinishJobRequest(request_id="f", lease=worker.token, failure="It cannot go on.")
    world.store.transact(lambda tx: workers.finish(tx, request))
    assert states(world, "class2d_streaming") == ["FAILED"]
    world.stream(session_id, "class2d_streaming", start=True)
    assert states(world, "class2d_streaming") == ["STOPPING"]  # its worker still holds the slot
    end_draining(world)
    assert states(world, "class2d_streaming") == ["RUNNING"]


# ----------------------------------------------------------------------------------------------------- the first movie
def test_no_slot_is_taken_before_the_first_movie(world: World) -> None:
    session_id = begin(world, 2, wait_for_exposures=True)
    world.advance(1)
    assert {row["reason"] for row in world.rows(tables.job)} == {"It takes no slot until the first movie is there."}
    assert world.rows(tables.lease) == []
    world.register(session_id, "bad", defect="It is truncated.")
    world.advance(1)
    assert world.rows(tables.lease) == []
    world.register(session_id, "m1")
    world.advance(1)
    world.settle("one")
    assert {row["state"] for row in world.rows(tables.job)} == {"RUNNING"}


def test_a_session_that_waits_for_its_first_movie_can_be_paused_and_completed(world: World) -> None:
    session_id = begin(world, 2, until="preprocess", wait_for_exposures=True)
    assert world.change(session_id, "pause") == "PAUSED"
    world.change(session_id, "start")
    assert world.change(session_id, "complete") == "COMPLETED"


# ---------------------------------------------------------------------------------------------------------- auto-pause
def test_an_idle_session_pauses_by_itself_once_every_exposure_is_processed(world: World) -> None:
    session_id = begin(world, 2, auto_pause=IMMEDIATE, auto_pause_idle_minutes=5)
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    world.advance(6 * 60)
    assert session(world)["state"] == "RUNNING"  # an exposure is still being processed
    world.commit(world.worker_of("preprocess"))
    world.advance(1)
    assert session(world)["state"] == "PAUSING"
    end_draining(world)
    assert session(world)["state"] == "PAUSED"
    assert any("pauses by itself: no movie has come for 5 min" in sentence for sentence in notices(world))


def test_a_graceful_pause_also_waits_for_the_streaming_jobs(world: World) -> None:
    session_id = begin(world, 2, auto_pause=GRACEFUL, auto_pause_idle_minutes=5)
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    world.commit(world.worker_of("preprocess"))
    world.advance(4 * 60)
    world.checkpoint(world.worker_of("class2d_streaming"), cursor=0)  # it is at work
    world.advance(2 * 60)
    assert session(world)["state"] == "RUNNING"
    world.checkpoint(world.worker_of("class2d_streaming"))
    world.advance(1)
    assert session(world)["state"] == "PAUSING"


def test_idle_time_counts_from_the_newest_movie_and_from_every_start(world: World) -> None:
    session_id = begin(world, 1, until="preprocess", auto_pause=IMMEDIATE)
    world.advance(limits.AUTO_PAUSE_IDLE_MINUTES * 60 - 1)
    world.restart()
    world.hello("one")
    world.advance(2)
    assert session(world)["state"] == "RUNNING"
    world.register(session_id, "m1", defect="It is truncated.")
    world.advance(limits.AUTO_PAUSE_IDLE_MINUTES * 60 - 1)
    assert session(world)["state"] == "RUNNING"
    world.advance(1)
    assert session(world)["state"] == "PAUSING"
