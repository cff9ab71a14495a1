"""Workers that run out of memory: the next slot is a larger one, and where there is none the job says so."""

from __future__ import annotations

from functools import partial
from typing import Any

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.rpc.config import EXIT_OUT_OF_MEMORY
from frazil_scheduler.domain import control, limits, queue
from frazil_scheduler.ledger import tables
from model.world import World
from unit.scheduler.stories import job, notices

AUXILIARY = "count"


def submit(world: World, slots: dict[str, int], **values: Any) -> str:
    """Submit an auxiliary job to a machine with slots of so many MiB."""
    session_id = world.create("s")
    world.hello("node", slots)
    request = scheduler_pb2.SubmitJobRequest(session=session_id, job_type=AUXILIARY, **values)
    world.store.transact(partial(control.submit, lanes=world.lanes, request=request))
    world.settle("node")
    return session_id


def run_out(world: World, job_type: str = AUXILIARY, code: int = EXIT_OUT_OF_MEMORY) -> None:
    """Let a job's worker run out of memory and its back-off pass."""
    world.end(world.worker_of(job_type), code, out_of_memory=True)
    world.settle("node")


def again(world: World) -> None:
    world.advance(30.0)
    world.settle("node")


def test_the_next_slot_is_a_larger_one_of_the_lane(world: World, more_jobs: None) -> None:
    submit(world, {"GPU-1#0": 9_000, "GPU-2#0": 9_000, "GPU-3#0": 12_000, "GPU-4#0": 48_000})
    assert world.worker_of(AUXILIARY).slot_key == "GPU-1#0"
    run_out(world)
    assert job(world, AUXILIARY)["reason"] == "Its worker ran out of memory on GPU-1#0 (9,000 MiB); it asks for a larger slot."
    assert any("asks for a larger slot" in sentence for sentence in notices(world))
    again(world)
    assert world.worker_of(AUXILIARY).slot_key == "GPU-3#0"
    run_out(world)
    again(world)
    assert world.worker_of(AUXILIARY).slot_key == "GPU-4#0"


def test_a_bigger_share_of_the_same_gpu_will_do_and_is_waited_for(world: World, more_jobs: None) -> None:
    submit(world, {"GPU-1#0": 16_000, "GPU-1#1": 8_000})
    other = world.create("other", until="preprocess")
    world.change(other, "start")
    world.settle("node")
    assert world.worker_of("preprocess").slot_key == "GPU-1#0"
    run_out(world)
    again(world)
    row = job(world, AUXILIARY)
    assert row["reason"] == (
        "Its worker ran out of memory on a slot of 8,000 MiB, so it needs a larger one. "
        "Every slot of lane 'default' that it could use is held until a session is paused."
    )
    explained = world.store.read(lambda tx: queue.explain_wait(tx, world.lanes, control.require(tx, str(row["job_id"]))))
    assert explained.sentence == row["reason"]
    world.change(other, "pause")
    world.end(world.worker_of("preprocess"), 0)
    world.settle("node")
    assert world.worker_of(AUXILIARY).slot_key == "GPU-1#0"


def test_a_job_that_no_slot_of_its_lane_is_large_enough_for_fails_and_may_be_tried_again(world: World, more_jobs: None) -> None:
    submit(world, {"GPU-1#0": 9_000, "GPU-2#0": 48_000}, gpus=["GPU-1"])
    run_out(world)
    again(world)
    row = job(world, AUXILIARY)
    assert row["state"] == "FAILED"
    assert "ran out of memory on a slot of 9,000 MiB" in str(row["reason"])
    assert "Declare a larger share" in str(row["reason"])
    world.store.transact(lambda tx: control.requeue(tx, control.require(tx, str(row["job_id"]))))
    world.settle("node")
    assert world.worker_of(AUXILIARY).slot_key == "GPU-1#0"


def test_a_lane_whose_larger_slot_is_away_for_a_while_is_waited_for(world: World, more_jobs: None) -> None:
    world.hello("big", {"GPU-9#0": 48_000})
    world.unlink("big")
    submit(world, {"GPU-1#0": 9_000})
    run_out(world)
    again(world)
    assert job(world, AUXILIARY)["state"] == "WAITING"
    world.hello("big", {"GPU-9#0": 48_000})
    world.settle("big")
    assert world.worker_of(AUXILIARY).slot_key == "GPU-9#0"


def test_what_the_kernel_kills_on_a_gpu_slot_asks_for_no_larger_gpu(world: World, more_jobs: None) -> None:
    submit(world, {"GPU-1#0": 9_000, "GPU-2#0": 48_000})
    run_out(world, code=-9)
    again(world)
    assert world.worker_of(AUXILIARY).slot_key == "GPU-1#0"


def test_a_preprocessing_worker_moves_only_when_blaming_the_exposure_was_of_no_use(world: World) -> None:
    session_id = world.create("s", until="preprocess")
    world.change(session_id, "start")
    world.hello("node", {"GPU-1#0": 12_000, "GPU-2#0": 48_000})
    world.settle("node")
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    run_out(world, "preprocess")
    again(world)
    assert world.worker_of("preprocess").slot_key == "GPU-1#0"
    world.claim(world.worker_of("preprocess"))
    run_out(world, "preprocess")
    again(world)
    assert world.worker_of("preprocess").slot_key == "GPU-2#0"


def test_a_preprocessing_worker_without_a_larger_slot_goes_on_with_other_exposures(world: World) -> None:
    session_id = world.create("s", until="preprocess")
    world.change(session_id, "start")
    world.hello("node", {"GPU-1#0": 12_000})
    world.settle("node")
    world.register(session_id, "m1")
    for _ in range(3):
        world.claim(world.worker_of("preprocess"))
        run_out(world, "preprocess")
        again(world)
    (exposure,) = world.rows(tables.exposure)
    assert exposure["state"] == "QUARANTINED"
    assert job(world)["state"] == "RUNNING"
    world.register(session_id, "m2")
    assert world.claim(world.worker_of("preprocess"), 1) is not None


def test_exposures_that_fail_for_memory_one_after_the_other_bring_their_worker_to_a_larger_slot(world: World) -> None:
    session_id = world.create("s", until="preprocess")
    world.change(session_id, "start")
    world.hello("node", {"GPU-1#0": 12_000, "GPU-2#0": 48_000})
    world.settle("node")
    worker = world.worker_of("preprocess")
    for number in range(limits.WORKER_FAILURES_MAX + 1):  # one of them is the oldest, for the second time
        world.register(session_id, f"m{number}")
        world.claim(worker, 1)
        world.fail(worker, worker_pb2.FailExposureRequest.FAILURE_CLASS_RESOURCE)
    world.deliver("node")
    world.end(worker, 0)
    world.settle("node")
    again(world)
    assert world.worker_of("preprocess").slot_key == "GPU-2#0"
