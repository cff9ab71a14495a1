"""Nodes and slots: silence, blips, restarts, quarantine, and why a job waits."""

from __future__ import annotations

import pytest

from frazil.api.agent.v1 import agent_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import control, gpus, limits, nodes, queue
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
    world.store.transact(lambda tx: gpus.quarantine(tx, "GPU-1#1", "fan broken"))
    slots = {row["slot_key"]: row["quarantined"] for row in world.rows(tables.slot)}
    assert slots == {"GPU-1#0": "fan broken", "GPU-1#1": "fan broken", "GPU-2#0": ""}
    assert {row["state"] for row in world.rows(tables.job)} == {"STOPPING"}
    world.deliver("node")
    for worker in list(world.workers.values()):
        world.end(worker, 0)
    world.settle("node")
    assert sorted(row["state"] for row in world.rows(tables.job)) == ["RUNNING", "WAITING"]
    world.store.transact(lambda tx: gpus.clear(tx, "GPU-1#0"))
    world.settle("node")
    assert {row["quarantined"] for row in world.rows(tables.slot)} == {""}
    assert {row["state"] for row in world.rows(tables.job)} == {"RUNNING"}


def test_a_drained_gpu_keeps_its_job_and_gets_no_other_until_it_is_cleared(world: World) -> None:
    up(world)
    other = world.create("other", until="preprocess")
    world.change(other, "start")
    world.store.transact(lambda tx: gpus.drain(tx, "GPU-0#0", "fan"))
    world.settle("node")
    worker = world.worker_of("preprocess")
    assert not worker.draining
    world.hello("node")  # a new Hello forgets nothing
    world.change(world.rows(tables.session)[0]["session_id"], "pause")
    world.end(worker, 0)
    world.settle("node")
    (waiting,) = world.rows(tables.job, tables.job.c.session_id == other)
    assert waiting["state"] == "WAITING"
    assert "out of service or drained" in waiting["reason"]
    (slot,) = world.rows(tables.slot)
    assert (slot["drained"], slot["quarantined"]) == ("fan", "")
    world.store.transact(lambda tx: gpus.clear(tx, "GPU-0#0"))
    (waiting,) = world.rows(tables.job, tables.job.c.session_id == other)
    assert waiting["state"] == "STARTING"


def explain(world: World, session_id: str) -> scheduler_pb2.ExplainWaitResponse:
    (row,) = world.rows(tables.job, tables.job.c.session_id == session_id)
    return world.store.read(lambda tx: queue.explain_wait(tx, world.lanes, row))


def test_a_waiting_job_learns_its_position_its_holders_and_what_helps(world: World) -> None:
    holder = up(world)
    granted_ns = world.clock.wall_ns()
    names = ["second", "first", "elsewhere"]
    sessions = {name: world.create(name, until="preprocess") for name in names[:2]}
    sessions["elsewhere"] = world.create("elsewhere", until="preprocess", preprocessing_gpus=["GPU-7"], priority=90)
    for name in names:
        world.change(sessions[name], "start")
    (row,) = world.rows(tables.job, tables.job.c.session_id == sessions["first"])
    world.store.transact(lambda tx: control.set_priority(tx, row, 5))
    world.advance(100)
    reply = explain(world, sessions["second"])
    assert (reply.reason, reply.position) == ("LANE_HELD", 1)  # who is bound elsewhere is not before it
    (blocker,) = reply.blockers
    assert (blocker.slot_key, blocker.session_id, blocker.indefinite) == ("GPU-0#0", holder, True)
    assert blocker.since.ToNanoseconds() == granted_ns
    assert "Pause one of the sessions" in reply.remedy
    assert explain(world, sessions["first"]).position == 0
    bound = explain(world, sessions["elsewhere"])
    assert (bound.reason, bound.sentence) == ("LANE_TOO_SMALL", "None of the GPUs it is bound to (GPU-7) is in lane 'default'.")


def test_a_holder_that_is_told_to_stop_is_not_indefinite(world: World) -> None:
    holder = up(world)
    other = world.create("other", until="preprocess")
    world.change(other, "start")
    world.change(holder, "pause")
    reply = explain(world, other)
    assert (reply.reason, [blocker.indefinite for blocker in reply.blockers]) == ("LANE_BUSY", [False])


def test_a_job_bound_to_a_held_gpu_is_told_so(world: World) -> None:
    up(world)
    world.hello("spare", {"GPU-9#0": 24_000})
    other = world.create("other", until="preprocess", preprocessing_gpus=["GPU-0"])
    world.change(other, "start")
    reply = explain(world, other)
    assert (reply.reason, [blocker.slot_key for blocker in reply.blockers]) == ("GPUS_BUSY", ["GPU-0#0"])


def test_a_job_that_backs_off_says_when_it_is_tried_again(world: World) -> None:
    session_id = up(world)
    world.end(world.worker_of("preprocess"), 1)
    world.settle("node")
    reply = explain(world, session_id)
    assert reply.reason == "BACKING_OFF"
    assert "exit code 1" in reply.sentence
    assert "in 1 s" in reply.remedy
    world.settle("node")


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
