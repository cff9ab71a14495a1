"""Stories of cluster jobs and their agents, by the ledger."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from frazil.api.agent.v1 import agent_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.cluster import pilots
from frazil_scheduler.domain import nodes, queue
from frazil_scheduler.lanes import ClusterState
from frazil_scheduler.ledger import tables
from unit.scheduler.cluster.conftest import Cluster


def job(cluster: Cluster, session_id: str = "", job_type: str = "preprocess") -> Any:
    of_session = [tables.job.c.session_id == session_id] if session_id else []
    (row,) = cluster.world.rows(tables.job, tables.job.c.job_type == job_type, *of_session)
    return row


def leases(cluster: Cluster) -> list[str]:
    rows = sorted(cluster.world.rows(tables.lease), key=lambda row: row["epoch"])
    return [row["state"] for row in rows]


def explain(cluster: Cluster) -> tuple[str, str]:
    row = job(cluster)
    reply = cluster.world.store.read(lambda tx: queue.explain_wait(tx, cluster.world.lanes, row))
    return reply.reason, reply.sentence


def end(cluster: Cluster, name: str, code: int = 0) -> None:
    """Let a cluster job's worker end, and its agent prove the slot free."""
    (worker,) = cluster.world.on(name)
    cluster.world.end(worker, code)
    cluster.world.settle(name)


def test_a_waiting_job_is_told_the_clusters_own_words(cluster: Cluster) -> None:
    cluster.session()
    assert explain(cluster) == ("CLUSTER_PENDING", "Slurm is asked for a slot.")
    (name,) = cluster.submit()
    cluster.says(cluster.entry(name, ClusterState.PENDING, reason="QOSMaxGRESPerUser"))
    assert explain(cluster) == ("CLUSTER_PENDING", f"Slurm: pending, QOSMaxGRESPerUser ({name} as 1).")
    cluster.says(cluster.entry(name))
    assert explain(cluster) == ("CLUSTER_PENDING", f"Slurm has started {name} as 1; its agent is awaited.")
    assert job(cluster)["state"] == "WAITING"


def test_a_cluster_job_serves_one_lease_and_is_hidden_when_it_is_over(cluster: Cluster) -> None:
    cluster.session()
    name = cluster.serving()
    assert job(cluster)["state"] == "RUNNING"
    assert cluster.ask() == ([], [])
    end(cluster, name)
    assert leases(cluster) == ["CLOSED"]
    cluster.world.advance(60.0)  # it could serve again, and must not: its agent is leaving
    assert job(cluster)["state"] == "WAITING"
    assert len(cluster.submit()) == 1
    cluster.says(cluster.entry(name, ClusterState.COMPLETED))
    (node,) = cluster.world.rows(tables.node)
    assert node["state"] == "ENDED"
    assert cluster.world.rows(tables.slot) == []


def test_its_slot_is_no_other_lanes(cluster: Cluster) -> None:
    cluster.session("s", movies=0)
    (name,) = cluster.submit() or cluster.submit()
    other = cluster.world.create("other", until="preprocess")
    cluster.world.change(other, "start")
    cluster.world.register(other, "movie")
    cluster.come(name)
    assert job(cluster, other)["state"] == "WAITING"
    assert all(lease["job_id"] != job(cluster, other)["job_id"] for lease in cluster.world.rows(tables.lease))


def test_a_change_of_compute_resources_leaves_a_job_where_it_runs(cluster: Cluster) -> None:
    session_id = cluster.session()
    name = cluster.serving()
    cluster.world.update(session_id, preprocessing_workers=2)
    (worker,) = cluster.world.on(name)
    assert not worker.draining
    assert len(cluster.submit()) == 1  # for the second worker


def test_the_clusters_word_proves_that_a_lost_node_holds_nothing(cluster: Cluster) -> None:
    session_id = cluster.session()
    name = cluster.serving()
    (worker,) = cluster.world.on(name)
    assert cluster.world.claim(worker) is not None
    cluster.world.unlink(name)
    cluster.world.advance(100.0)
    assert leases(cluster) == ["LOST"]
    cluster.says(cluster.entry(name, ClusterState.LOST, reason="NODE_FAIL"))
    assert leases(cluster) == ["CLOSED"]
    assert len(cluster.submit()) == 1
    (session,) = cluster.world.rows(tables.session, tables.session.c.session_id == session_id)
    assert (session["ready"], session["running"]) == (1, 0)
    assert cluster.world.commit(worker) is None  # whatever it is, it may not act any more
    assert job(cluster)["failures"] == 0


def test_a_submission_without_an_answer_is_found_by_its_name(cluster: Cluster) -> None:
    cluster.session()
    (name,), _ = cluster.ask()
    assert cluster.says(cluster.entry(name, ClusterState.PENDING, "77")) == ([], [])
    assert (cluster.row(name)["state"], cluster.row(name)["cluster_job_id"]) == ("PENDING", "77")


def test_a_submission_that_two_lists_lack_is_made_again_and_one_list_proves_nothing(cluster: Cluster) -> None:
    cluster.session()
    (name,), _ = cluster.ask()
    assert cluster.says() == ([], [])
    cluster.world.advance(29.0)
    assert cluster.says() == ([], [])
    cluster.world.advance(1.0)
    assert cluster.says() == ([], [name])
    assert cluster.ask() == ([], [])  # it is the same one, not another


def test_a_restart_counts_the_lists_anew(cluster: Cluster) -> None:
    cluster.session()
    cluster.ask()
    cluster.says()
    cluster.world.advance(30.0)
    cluster.world.restart()
    assert cluster.says() == ([], [])


def test_a_job_that_the_cluster_has_forgotten_is_over(cluster: Cluster) -> None:
    cluster.session()
    name = cluster.serving()
    cluster.says()
    cluster.world.advance(30.0)
    cluster.says()
    assert (cluster.row(name)["state"], leases(cluster)) == ("ENDED", ["CLOSED"])


def test_a_twin_is_sent_away_and_the_agent_that_came_first_stays(cluster: Cluster) -> None:
    cluster.session()
    name = cluster.serving()
    twin = agent_pb2.Hello(node_id=name, boot_id="elsewhere", incarnation="twin", cluster_job_name=name)
    with pytest.raises(FrazilError) as caught:
        cluster.world.store.transact(partial(nodes.hello, message=twin))
    assert caught.value.reason == "AGENT_NOT_WANTED"
    cluster.come(name)  # dials in again after a broken stream
    assert job(cluster)["state"] == "RUNNING"


def test_while_a_twin_lives_the_name_is_not_over(cluster: Cluster) -> None:
    cluster.session()
    name = cluster.serving()
    cluster.says(cluster.entry(name, ClusterState.FAILED, "1"), cluster.entry(name, ClusterState.RUNNING, "2"))
    assert leases(cluster) == ["HELD"]


def test_a_pending_twin_and_one_that_comes_too_late_are_cancelled(cluster: Cluster) -> None:
    cluster.session()
    name = cluster.serving()
    running, pending = cluster.entry(name), cluster.entry(name, ClusterState.PENDING, "99")
    assert cluster.says(running, pending) == (["99"], [])
    cluster.says(cluster.entry(name, ClusterState.COMPLETED))
    assert cluster.says(pending) == (["99"], [])
    hello = agent_pb2.Hello(node_id=name, boot_id="b", incarnation="late", cluster_job_name=name)
    with pytest.raises(FrazilError, match="must leave"):
        cluster.world.store.transact(partial(nodes.hello, message=hello))


def test_jobs_of_strangers_are_left_alone(cluster: Cluster) -> None:
    cluster.session()
    assert cluster.says(cluster.entry("frazil-deadbeef", number="5"), cluster.entry("", number="6")) == ([], [])


def test_a_paused_session_has_its_pending_cluster_jobs_cancelled_until_they_are_over(cluster: Cluster) -> None:
    session_id = cluster.session()
    (name,) = cluster.submit()
    cluster.world.change(session_id, "pause")
    assert cluster.ask() == ([], ["1"])
    assert cluster.says(cluster.entry(name, ClusterState.PENDING)) == (["1"], [])
    cluster.says(cluster.entry(name, ClusterState.CANCELLED))
    assert cluster.row(name)["state"] == "ENDED"


def test_the_successor_takes_over_the_streaming_job_though_others_wait(cluster: Cluster) -> None:
    older = cluster.session("older", movies=0)
    cluster.world.change(older, "pause")
    session_id = cluster.session(until="class2d")
    for name in cluster.submit():
        cluster.come(name)
    cluster.world.change(older, "start")  # its job is before those of the other session in the queue
    cluster.world.register(older, "movie")
    streaming = job(cluster, session_id, "class2d_streaming")
    (name,) = [row["node_id"] for row in cluster.world.rows(tables.lease) if row["job_id"] == streaming["job_id"]]
    cluster.says(cluster.entry(name, seconds_left=600.0), *(cluster.entry(row["name"]) for row in others(cluster, name)))
    asked = cluster.submit()
    (successor,) = [one for one in asked if cluster.row(one)["follows"] == name]
    cluster.come(successor)
    assert cluster.world.on(successor) == []  # reserved, while the other still runs
    cluster.ask()
    cluster.world.settle(name)
    (worker,) = cluster.world.on(name)
    assert worker.draining
    end(cluster, name)
    cluster.world.settle(successor)
    (worker,) = cluster.world.on(successor)
    streaming = job(cluster, session_id, "class2d_streaming")
    assert (streaming["state"], streaming["lease_id"], streaming["failures"]) == ("RUNNING", worker.token.lease_id, 0)


def others(cluster: Cluster, name: str) -> list[Any]:
    return cluster.world.rows(tables.cluster_job, tables.cluster_job.c.name != name, pilots.OPEN)


@pytest.mark.parametrize("state", [ClusterState.FAILED, ClusterState.TIMEOUT, ClusterState.COMPLETED])
def test_two_cluster_jobs_whose_agents_never_come_fail_the_job(cluster: Cluster, state: ClusterState) -> None:
    cluster.session()
    for _ in range(2):
        (name,) = cluster.submit()
        cluster.says(cluster.entry(name, state, reason="exit code 127"))
    assert job(cluster)["state"] == "FAILED"
    assert "exit code 127" in job(cluster)["reason"]
    assert cluster.ask() == ([], [])


def test_gpus_that_are_too_small_fail_the_job_with_a_sentence(cluster: Cluster) -> None:
    cluster.session()
    for _ in range(2):
        (name,) = cluster.submit()
        cluster.come(name, memory_mib=1000)
        assert explain(cluster)[1].startswith("Slurm is asked for a slot.")
        cluster.world.advance(60.0)
        cluster.says(cluster.entry(name, ClusterState.COMPLETED))
    assert job(cluster)["state"] == "FAILED"
    assert "found their slot unfit" in job(cluster)["reason"]


@pytest.mark.parametrize("state", [ClusterState.CANCELLED, ClusterState.LOST])
def test_what_the_cluster_does_to_its_jobs_is_not_the_jobs_fault(cluster: Cluster, state: ClusterState) -> None:
    cluster.session()
    for _ in range(5):
        name = cluster.serving()
        cluster.says(cluster.entry(name, state))
    assert (job(cluster)["state"], job(cluster)["failures"]) == ("WAITING", 0)


def test_walltimes_without_any_progress_fail_the_job_and_progress_forgives(cluster: Cluster) -> None:
    cluster.session(movies=3)
    name = cluster.serving()
    cluster.says(cluster.entry(name, ClusterState.TIMEOUT))
    name = cluster.serving()
    (worker,) = cluster.world.on(name)
    cluster.world.claim(worker, 1)
    cluster.world.commit(worker)
    cluster.says(cluster.entry(name, ClusterState.TIMEOUT))
    assert job(cluster)["failures_in_row"] == 0
    for _ in range(2):
        assert job(cluster)["state"] == "WAITING"
        cluster.says(cluster.entry(cluster.serving(), ClusterState.TIMEOUT))
    assert job(cluster)["state"] == "FAILED"


def test_a_walltime_with_nothing_to_do_is_no_failure(cluster: Cluster) -> None:
    cluster.session(until="class2d", movies=1)
    for _ in range(4):
        for name in cluster.submit():
            cluster.come(name)
        for row in cluster.world.rows(tables.cluster_job, pilots.OPEN):
            if row["program"] == "frazil-reconstruct":
                cluster.says(cluster.entry(row["name"], ClusterState.TIMEOUT))
    assert job(cluster, job_type="class2d_streaming")["state"] in ("WAITING", "RUNNING")
    assert job(cluster, job_type="class2d_streaming")["failures_in_row"] == 0


def test_an_agent_that_leaves_gives_its_job_back_without_blame(cluster: Cluster) -> None:
    cluster.session()
    name = cluster.serving()
    cluster.world.store.transact(partial(nodes.leaving, node_id=name, message=agent_pb2.Leaving(reason="terminated")))
    assert job(cluster)["state"] == "STOPPING"
    end(cluster, name)
    assert (job(cluster)["state"], job(cluster)["failures"]) == ("WAITING", 0)
    assert len(cluster.submit()) == 1


def test_a_lost_agents_cluster_job_is_cancelled_once_its_job_goes_on_elsewhere(cluster: Cluster) -> None:
    cluster.session()
    name = cluster.serving()
    cluster.world.unlink(name)
    cluster.world.advance(100.0)
    (successor,) = cluster.submit()
    assert cluster.row(name)["state"] == "RUNNING"  # it may still come back
    cluster.come(successor)
    assert job(cluster)["state"] == "RUNNING"
    assert cluster.ask() == ([], [cluster.row(name)["cluster_job_id"]])


def test_a_restart_changes_nothing_for_a_streaming_agent(cluster: Cluster) -> None:
    cluster.session()
    name = cluster.serving()
    (worker,) = cluster.world.on(name)
    cluster.world.restart()
    assert cluster.ask() == ([], [])
    cluster.come(name)
    assert cluster.world.on(name) == [worker]
    assert job(cluster)["state"] == "RUNNING"
    assert leases(cluster) == ["HELD"]
