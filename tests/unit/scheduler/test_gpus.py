"""GPUs that fail: which errors take one out of service, where its jobs go, and what brings it back."""

from __future__ import annotations

import pytest

from frazil.model.errors import FrazilError
from frazil_scheduler.domain import gpus, limits, nodes
from frazil_scheduler.ledger import records, tables
from model.world import Worker, World
from unit.scheduler.stories import job, notices, up

OFF_THE_BUS = 79
PAGE_FAULT = 31


def busy(world: World, slots: dict[str, int], workers_wanted: int = 1) -> str:
    session_id = world.create("s", until="preprocess", workers_wanted=workers_wanted)
    world.change(session_id, "start")
    for number in range(4):
        world.register(session_id, f"m{number}")
    world.hello("node", slots)
    world.settle("node")
    return session_id


def on(world: World, slot_key: str) -> Worker:
    (worker,) = [worker for worker in world.workers.values() if worker.slot_key == slot_key]
    return worker


def out_of_service(world: World) -> dict[str, str]:
    return {row["slot_key"]: row["quarantined"] for row in world.rows(tables.slot) if row["quarantined"]}


def test_a_gpu_that_fails_loses_all_its_slots_and_its_jobs_go_elsewhere(world: World) -> None:
    busy(world, {"GPU-1#0": 9_000, "GPU-1#1": 9_000, "GPU-2#0": 9_000, "GPU-2#1": 9_000}, workers_wanted=2)
    for key in ("GPU-1#0", "GPU-1#1"):
        world.claim(on(world, key), 1)
    world.fault("node", "GPU-1", OFF_THE_BUS)
    assert out_of_service(world) == dict.fromkeys(["GPU-1#0", "GPU-1#1"], "Xid 79: fallen off the bus")
    world.settle("node")  # the workers are killed, not asked
    assert sorted(worker.slot_key for worker in world.workers.values()) == ["GPU-2#0", "GPU-2#1"]
    assert {row["state"] for row in world.rows(tables.job)} == {"RUNNING"}
    assert {(row["state"], row["attempts"]) for row in world.rows(tables.exposure)} == {("READY", 0)}
    assert [row["failures"] for row in world.rows(tables.job)] == [0, 0]


def test_a_worker_that_dies_of_its_gpu_before_the_agent_has_said_so_is_not_blamed(world: World) -> None:
    busy(world, {"GPU-1#0": 9_000, "GPU-2#0": 9_000})
    worker = on(world, "GPU-1#0")
    world.claim(worker, 1)
    world.end(worker, -6, xids=[PAGE_FAULT, OFF_THE_BUS])
    assert "GPU-1#0" in out_of_service(world)
    assert (job(world)["state"], job(world)["failures"]) == ("STARTING", 0)
    (tried,) = world.rows(tables.attempt)
    assert tried["outcome"] == "INFRA"
    assert {row["attempts"] for row in world.rows(tables.exposure)} == {0}


def test_a_failed_gpu_comes_back_when_a_person_asks_and_the_probe_is_good(world: World) -> None:
    busy(world, {"GPU-1#0": 9_000})
    world.fault("node", "GPU-1", OFF_THE_BUS)
    world.settle("node")
    world.advance(600)
    world.settle("node")
    assert job(world)["state"] == "WAITING"  # time does not cure it
    world.hello("node")
    world.settle("node")
    assert "GPU-1#0" in out_of_service(world)
    assert len([sentence for sentence in notices(world) if "fallen off the bus" in sentence]) == 1  # told once
    world.store.transact(lambda tx: gpus.clear(tx, "GPU-1#0"))
    world.settle("node")
    assert out_of_service(world) == {}
    assert job(world)["state"] == "RUNNING"


def test_a_fault_while_nothing_runs_takes_the_gpu_out_all_the_same(world: World) -> None:
    world.hello("node", {"GPU-1#0": 9_000, "GPU-2#0": 9_000})
    world.fault("node", "GPU-1", 0)
    assert out_of_service(world) == {"GPU-1#0": "it no longer answers"}
    world.store.transact(lambda tx: gpus.clear(tx, "GPU-1#0"))
    world.settle("node")
    assert out_of_service(world) == {}


def test_a_fault_that_nobody_could_report_is_told_with_the_next_hello(world: World) -> None:
    busy(world, {"GPU-1#0": 9_000})
    world.unlink("node")
    world.fault("node", "GPU-1", 48)
    assert out_of_service(world) == {}
    world.hello("node")
    assert "double-bit" in out_of_service(world)["GPU-1#0"]


def test_a_programs_own_error_costs_a_try_and_the_gpu_is_used_again(world: World) -> None:
    busy(world, {"GPU-1#0": 9_000})
    worker = on(world, "GPU-1#0")
    world.claim(worker, 1)
    world.fault("node", "GPU-1", PAGE_FAULT)
    assert on(world, "GPU-1#0") is worker
    world.end(worker, -6, xids=[PAGE_FAULT])
    (tried,) = world.rows(tables.attempt)
    assert tried["outcome"] == "CRASH"
    assert "signal 6, Xid 31: memory page fault" in tried["detail"]
    world.settle("node")
    world.advance(60)
    world.settle("node")
    assert out_of_service(world) == {}
    assert job(world)["state"] == "RUNNING"


def page_fault(world: World) -> str:
    """Let the worker on the one slot die of a page fault; return its job."""
    worker = on(world, "GPU-1#0")
    (lease,) = world.rows(tables.lease, tables.lease.c.lease_id == worker.token.lease_id)
    world.end(worker, -6, xids=[PAGE_FAULT])
    world.settle("node")
    return str(lease["job_id"])


@pytest.mark.parametrize(("hours", "quarantined"), [(0.9, True), (1.1, False)])
def test_programs_own_errors_of_two_jobs_within_an_hour_are_the_gpus(world: World, hours: float, quarantined: bool) -> None:
    busy(world, {"GPU-1#0": 9_000}, workers_wanted=2)
    first = page_fault(world)  # the other job is next, while the first backs off
    world.advance(hours * limits.PROGRAM_FAULTS_SECONDS)
    assert page_fault(world) != first
    assert bool(out_of_service(world)) is quarantined


def test_programs_own_errors_of_one_job_are_its_own_however_many(world: World) -> None:
    busy(world, {"GPU-1#0": 9_000})
    for _ in range(3):
        page_fault(world)
        world.advance(60)
        world.settle("node")
    assert out_of_service(world) == {}


def test_foreign_use_takes_the_gpu_out_until_it_ends_and_the_job_keeps_its_place(world: World) -> None:
    first = up(world)
    world.end(world.worker_of("preprocess"), 1)
    world.settle("node")
    world.nodes["node"].foreign.add("GPU-0")
    world.advance(1)
    second = world.create("second", until="preprocess")
    world.change(second, "start")
    world.settle("node")
    (slot,) = world.rows(tables.slot)
    assert slot["quarantine_kind"] == "EXTERNAL"
    world.advance(30)
    world.settle("node")
    assert "GPU-0#0" in out_of_service(world)  # probed in vain
    world.nodes["node"].foreign.clear()
    world.settle("node")
    states = {row["session_id"]: row["state"] for row in world.rows(tables.job)}
    assert states == {first: "RUNNING", second: "WAITING"}
    assert out_of_service(world) == {}


def test_memory_that_is_not_released_takes_the_slot_out_and_the_job_elsewhere(world: World) -> None:
    up(world, slots=2)
    worker = world.worker_of("preprocess")
    gpu = worker.slot_key.partition("#")[0]
    world.nodes["node"].foreign.add(gpu)  # as a driver that has not cleaned up
    world.end(worker, -9)
    world.settle("node")
    world.advance(1)
    world.settle("node")
    assert out_of_service(world) == {worker.slot_key: "memory not released"}
    assert world.worker_of("preprocess").slot_key != worker.slot_key


def test_shares_beyond_a_gpus_memory_are_refused_at_hello(world: World) -> None:
    message = agent_hello(40_000, 24_000, total=60_000)
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: nodes.hello(tx, message))
    assert caught.value.reason == "SHARES_TOO_LARGE"
    assert "share 64,000 MiB, but it has 60,000 MiB" in caught.value.sentence
    assert world.rows(tables.slot) == []
    world.store.transact(lambda tx: nodes.hello(tx, agent_hello(40_000, 20_000, total=60_000)))
    assert [records.slot_record(row, None).memory_mib for row in world.rows(tables.slot)] == [40_000, 20_000]


def agent_hello(*shares: int, total: int):
    from frazil.api.agent.v1 import agent_pb2
    from frazil.api.scheduler.v1 import scheduler_pb2

    return agent_pb2.Hello(
        node_id="node",
        boot_id="boot",
        slots=[
            scheduler_pb2.GpuSlot(
                slot_key=f"GPU-1#{number}",
                kind=scheduler_pb2.GpuSlot.KIND_GPU,
                memory_mib=share,
                gpu_memory_total_mib=total,
            )
            for number, share in enumerate(shares)
        ],
    )
