"""Nodes and slots: silence, blips, restarts, quarantine, and why a job waits."""

from __future__ import annotations

import pytest

from frazil.api.agent.v1 import agent_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import limits, nodes, queue
from frazil_scheduler.ledger import tables
from model.world import World
from unit.scheduler.stories import job, notices, up


def test_a_silent_nodes_job_goes_on_elsewhere_and_its_old_worker_can_do_no_harm(world: World) -> None:
    session_id = up(world)
    world.register(session_id, "m1")
    old = world.worker_of("preprocess")
    world.claim(old)
    world.unlink("node")
    world.hello("spare", {"GPU-9#0": 24_000})
    world.advance(limits.SUSPECT_SECONDS)
    assert {row["node_id"]: row["state"] for row in world.rows(tables.node)} == {"node": "SUSPECT", "spare": "UP"}
    assert job(world)["state"] == "RUNNING"
    world.advance(limits.LOST_SECONDS)
    assert job(world)["state"] == "STARTING"
    world.settle("spare")
    assert world.commit(old) is None  # refused as stale: it exits
    assert old.token.lease_id not in world.workers
    (exposure,) = world.rows(tables.exposure)
    assert (exposure["state"], exposure["attempts"]) == ("READY", 0)
    lost = world.rows(tables.lease, tables.lease.c.state == "LOST")
    assert [row["slot_key"] for row in lost] == ["GPU-0#0"]  # time frees no slot


def test_a_short_blip_restarts_nothing(world: World) -> None:
    up(world)
    worker = world.worker_of("preprocess")
    world.unlink("node")
    world.advance(limits.LOST_SECONDS)
    assert job(world)["state"] == "WAITING"
    welcome = world.hello("node")
    assert list(welcome.adopt) == [worker.token.lease_id]
    assert (job(world)["state"], job(world)["epoch"]) == ("RUNNING", worker.token.epoch)


def test_a_scheduler_restart_keeps_leases_and_grants_nothing_before_hello(world: World) -> None:
    session_id = up(world)
    worker = world.worker_of("preprocess")
    world.restart()
    other = world.create("other", until="preprocess")
    world.change(other, "start")
    (waiting,) = world.rows(tables.job, tables.job.c.session_id == other)
    assert waiting["state"] == "WAITING"
    world.register(session_id, "m1")
    world.claim(worker)
    assert world.commit(worker) is not None  # work goes on before the agent is back
    assert list(world.hello("node").adopt) == [worker.token.lease_id]
    (running,) = world.rows(tables.job, tables.job.c.session_id == session_id)
    assert (running["state"], running["epoch"]) == ("RUNNING", worker.token.epoch)


def test_fencing_frees_a_lost_nodes_slots_on_a_persons_word(world: World) -> None:
    up(world)
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: nodes.fence(tx, "node", "me"))
    assert caught.value.reason == "NODE_NOT_LOST"
    world.unlink("node")
    world.advance(limits.LOST_SECONDS)
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: nodes.fence(tx, "node", " "))
    assert caught.value.reason == "ATTESTATION_MISSING"
    world.store.transact(lambda tx: nodes.fence(tx, "node", "me: the power is off"))
    assert world.rows(tables.lease, tables.lease.c.state != "CLOSED") == []
    assert any("me: the power is off" in sentence for sentence in notices(world))


def test_quarantining_a_gpu_takes_all_its_slots_and_moves_its_jobs(world: World) -> None:
    session_id = world.create("s", until="preprocess", workers_wanted=2)
    world.change(session_id, "start")
    world.hello("node", {"GPU-1#0": 9_000, "GPU-1#1": 9_000, "GPU-2#0": 80_000})
    world.settle("node")
    world.store.transact(lambda tx: nodes.quarantine_gpu(tx, "GPU-1#1", "fan broken"))
    slots = {row["slot_key"]: row["quarantined"] for row in world.rows(tables.slot)}
    assert slots == {"GPU-1#0": "fan broken", "GPU-1#1": "fan broken", "GPU-2#0": ""}
    assert {row["state"] for row in world.rows(tables.job)} == {"STOPPING"}
    world.deliver("node")
    for worker in list(world.workers.values()):
        world.end(worker, 0)
    world.settle("node")
    assert sorted(row["state"] for row in world.rows(tables.job)) == ["RUNNING", "WAITING"]
    world.store.transact(lambda tx: nodes.clear_gpu(tx, "GPU-1#0"))
    world.settle("node")
    assert {row["quarantined"] for row in world.rows(tables.slot)} == {""}
    assert {row["state"] for row in world.rows(tables.job)} == {"RUNNING"}


def test_a_gpu_used_by_another_program_comes_back_by_itself(world: World) -> None:
    up(world)
    world.end(world.worker_of("preprocess"), 1)
    world.settle("node")
    world.advance(1)
    (lease,) = world.rows(tables.lease, tables.lease.c.state == "RESERVED")
    said = agent_pb2.Exited(
        lease_id=lease["lease_id"], epoch=lease["epoch"], refused="GPU_BUSY_EXTERNAL", log_tail="3,000 MiB are free."
    )
    world.store.transact(lambda tx: nodes.exited(tx, "node", said))
    (slot,) = world.rows(tables.slot)
    assert (slot["quarantined"], slot["quarantine_kind"]) == ("3,000 MiB are free.", "EXTERNAL")
    assert (job(world)["state"], job(world)["failures"]) == ("WAITING", 1)
    still = agent_pb2.ProvedFree(slot_key="GPU-0#0", lease_id=lease["lease_id"], epoch=lease["epoch"], problem="memory")
    world.store.transact(lambda tx: nodes.proved_free(tx, "node", still))
    (slot,) = world.rows(tables.slot)
    assert slot["quarantine_kind"] == "EXTERNAL"
    world.settle("node")
    (slot,) = world.rows(tables.slot)
    assert slot["quarantined"] == ""


def test_two_containers_that_offer_one_gpu_get_it_once(world: World) -> None:
    session_id = world.create("s", until="preprocess", workers_wanted=2)
    world.change(session_id, "start")
    world.hello("one", {"GPU-1#0": 24_000})
    world.hello("two", {"GPU-1#0": 24_000})
    assert sorted(row["state"] for row in world.rows(tables.job)) == ["STARTING", "WAITING"]


def test_a_waiting_jobs_reason_changes_only_with_its_cause(world: World) -> None:
    world.change(world.create("s", until="preprocess"), "start")
    assert "No node of lane 'default' has dialled in" in str(job(world)["reason"])
    events = len(world.rows(tables.event))
    for _ in range(5):
        world.advance(1)
    assert len(world.rows(tables.event)) == events
    world.hello("small", {"GPU-1#0": 1_000})
    assert "No slot of lane 'default' is large enough" in str(job(world)["reason"])
    (row,) = world.rows(tables.job)
    reply = world.store.read(lambda tx: queue.explain_wait(tx, world.lanes, row))
    assert (reply.reason, reply.sentence) == ("LANE_TOO_SMALL", row["reason"])
    assert reply.remedy
