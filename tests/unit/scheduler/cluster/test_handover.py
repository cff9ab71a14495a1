"""Hand-over of slots inside a session on a cluster's lane: the next cluster job is the session's, and takes over in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frazil.api.session.v1.session_pb2 import ComputeResources, SlotSwitch
from frazil_scheduler.domain import limits
from frazil_scheduler.lanes import ClusterState
from frazil_scheduler.ledger import tables
from unit.scheduler.cluster.conftest import Cluster

LANES = dict.fromkeys(("preprocessing_lane", "reconstruction_lane", "auxiliary_lane"), "cluster")
MINUTE = 60.0


def full(cluster: Cluster, count: int) -> str:
    """Fill a lane of so many cluster jobs with a session's workers; another session's worker waits, in front of what is new."""
    cluster.lane.policy = replace(cluster.lane.policy, max_jobs=count)
    on_request = ComputeResources.STREAMING_START_ON_REQUEST
    session_id = cluster.world.create("s", until="class2d", workers_wanted=count, streaming_start=on_request, **LANES)
    cluster.world.change(session_id, "start")
    for name in cluster.submit():
        cluster.come(name)
    cluster.world.register(session_id, "m1")
    cluster.session("other")
    assert cluster.submit() == []
    return session_id


def jobs(cluster: Cluster, session_id: str) -> dict[str, list[str]]:
    """Return the states of a session's jobs by type."""
    found: dict[str, list[str]] = {}
    for row in cluster.world.rows(tables.job, tables.job.c.session_id == session_id):
        found.setdefault(row["job_type"], []).append(row["state"])
    return {kind: sorted(states) for kind, states in found.items()}


def draining(cluster: Cluster) -> Any:
    """Return the worker that is told to stop, once its agent has heard of it."""
    for name in sorted({worker.node_id for worker in cluster.world.workers.values()}):
        cluster.world.settle(name)
    (worker,) = [worker for worker in cluster.world.workers.values() if worker.draining]
    return worker


def give_up(cluster: Cluster, worker: Any) -> None:
    """Let a worker stop, and its cluster job with it."""
    cluster.world.end(worker, 0)
    cluster.world.settle(worker.node_id)
    others = [row["name"] for row in cluster.world.rows(tables.cluster_job) if row["state"] == "RUNNING"]
    entries = [cluster.entry(name) for name in others if name != worker.node_id]
    cluster.says(*entries, cluster.entry(worker.node_id, ClusterState.COMPLETED))


def test_the_slot_goes_to_the_session_s_own_job_though_another_waits_longer(cluster: Cluster) -> None:
    session_id = full(cluster, 2)
    cluster.world.switch(session_id, preprocess=1, class2d_streaming=1)
    worker = draining(cluster)
    assert cluster.submit() == []  # the lane is full until the worker's cluster job is over
    give_up(cluster, worker)
    (name,) = cluster.submit()
    assert cluster.row(name)["follows"] == worker.node_id
    cluster.come(name)
    assert jobs(cluster, session_id) == {"preprocess": ["PAUSED", "RUNNING"], "class2d_streaming": ["RUNNING"]}
    (row,) = cluster.world.rows(tables.session, tables.session.c.session_id == session_id)
    assert SlotSwitch.FromString(row["slot_switch"]).state == SlotSwitch.STATE_DONE


def test_with_room_the_next_cluster_job_comes_early_and_waits_for_the_worker_to_let_go(cluster: Cluster) -> None:
    session_id = full(cluster, 2)
    cluster.lane.policy = replace(cluster.lane.policy, max_jobs=3)
    cluster.world.switch(session_id, preprocess=1, class2d_streaming=1)
    worker = draining(cluster)
    (name,) = cluster.submit()
    cluster.come(name)
    assert cluster.world.on(name) == []  # what it is to take over has not let go
    cluster.world.restart()
    for node_id in sorted(cluster.world.nodes):
        cluster.world.hello(node_id)
        cluster.world.settle(node_id)
    assert cluster.submit() == []
    give_up(cluster, worker)
    cluster.world.settle(name)
    assert [one.node_id for one in cluster.world.on(name)] == [name]
    assert jobs(cluster, session_id)["class2d_streaming"] == ["RUNNING"]


def test_a_hand_over_that_is_taken_back_gives_its_cluster_job_back_too(cluster: Cluster) -> None:
    session_id = full(cluster, 2)
    cluster.world.switch(session_id, preprocess=1, class2d_streaming=1)
    give_up(cluster, draining(cluster))
    (name,) = cluster.submit()
    cluster.world.switch(session_id)
    cluster.world.stream(session_id, "class2d_streaming", start=False)
    _, cancelled = cluster.ask()
    assert cancelled == [cluster.row(name)["cluster_job_id"]]
    cluster.says(cluster.entry(name, ClusterState.CANCELLED))
    (name,) = cluster.submit()
    cluster.come(name)
    assert jobs(cluster, session_id)["preprocess"] == ["RUNNING", "RUNNING"]  # the one that was parked is before the other's


def test_a_cluster_job_that_fails_on_its_way_is_asked_for_again(cluster: Cluster) -> None:
    session_id = full(cluster, 2)
    cluster.world.switch(session_id, preprocess=1, class2d_streaming=1)
    worker = draining(cluster)
    give_up(cluster, worker)
    (name,) = cluster.submit()
    cluster.says(cluster.entry(name, ClusterState.CANCELLED, reason="preempted"))
    (again,) = cluster.submit()
    assert (again != name, cluster.row(again)["follows"]) == (True, worker.node_id)
    cluster.come(again)
    assert jobs(cluster, session_id)["class2d_streaming"] == ["RUNNING"]


def test_on_a_lane_of_one_cluster_job_the_jobs_take_turns(cluster: Cluster) -> None:
    session_id = full(cluster, 1)
    cluster.world.update(session_id, alternation=session_alternation())
    cluster.world.stream(session_id, "class2d_streaming", start=True)
    (worker,) = cluster.world.workers.values()
    cluster.world.claim(worker)
    cluster.world.commit(worker)
    cluster.world.advance(limits.TURN_MINUTES_MIN * MINUTE)
    give_up(cluster, draining(cluster))
    (name,) = cluster.submit()
    cluster.come(name)
    assert jobs(cluster, session_id) == {"preprocess": ["PAUSED"], "class2d_streaming": ["RUNNING"]}
    cluster.world.checkpoint(cluster.world.worker_of("class2d_streaming"))
    cluster.world.register(session_id, "m2")
    cluster.world.advance(1.0)  # it is up to date, and a movie waits
    give_up(cluster, draining(cluster))
    (name,) = cluster.submit()
    cluster.come(name)
    assert jobs(cluster, session_id) == {"preprocess": ["RUNNING"], "class2d_streaming": ["PAUSED"]}


def session_alternation() -> Any:
    compute = ComputeResources()
    compute.alternation.enabled = True
    return compute.alternation
