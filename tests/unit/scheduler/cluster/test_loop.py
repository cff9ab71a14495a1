"""What is carried to a cluster and back, and what is concluded when it does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from frazil.model.errors import FrazilError
from frazil_scheduler.cluster.commands import refused, unavailable
from frazil_scheduler.cluster.loop import Clusters
from frazil_scheduler.domain import limits
from frazil_scheduler.domain.lanes import LaneBook
from frazil_scheduler.hub import Hub
from frazil_scheduler.lanes import ClusterEntry, ClusterRequest, ClusterState
from frazil_scheduler.ledger import tables
from unit.scheduler.cluster.conftest import Cluster, Lane


class Scripted(Lane):
    """A cluster that does as it is told: `fault` is raised by the next call of a kind."""

    def __init__(self) -> None:
        super().__init__("cluster", {})
        self.jobs: dict[str, ClusterState] = {}
        self.requests: list[ClusterRequest] = []
        self.cancelled: list[str] = []
        self.lists = 0
        self.fault: dict[str, FrazilError] = {}

    async def submit(self, request: ClusterRequest) -> str:
        if "submit" in self.fault:
            raise self.fault["submit"]
        self.requests.append(request)
        self.jobs[request.name] = ClusterState.PENDING
        return request.name

    async def list(self, names: Sequence[str]) -> Sequence[ClusterEntry]:
        self.lists += 1
        if "list" in self.fault:
            raise self.fault["list"]
        return [ClusterEntry(cluster_job_id=name, name=name, state=state) for name, state in self.jobs.items()]

    async def cancel(self, cluster_job_ids: Sequence[str]) -> None:
        self.cancelled += cluster_job_ids


class Desk:
    """The loop over the cluster's lane, one step at a time."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.backend = Scripted()
        world = cluster.world
        world.lanes["cluster"] = self.backend  # type: ignore[assignment]
        self.hub = Hub(world.store, world.clock, cast(LaneBook, world.lanes), folder)
        self.hub.address = "head:50051"
        self.clusters = Clusters(self.hub)

    async def step(self, seconds: float = 0.0) -> None:
        """Let time pass and look after the lane; a fault becomes the lane's problem."""
        self.cluster.world.mono += seconds
        await self.clusters._step_safely("cluster")

    def states(self) -> list[str]:
        rows = sorted(self.cluster.world.rows(tables.cluster_job), key=lambda row: row["number"])
        return [row["state"] for row in rows]

    def reason(self) -> str:
        (row,) = self.cluster.world.rows(tables.job)
        return str(row["reason"])

    @property
    def problem(self) -> str:
        return self.hub.lane_problems.get("cluster", "")


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Desk:
    return Desk(cluster, tmp_path)


async def test_a_request_says_what_is_needed_and_where_to_dial(desk: Desk) -> None:
    session_id = desk.cluster.session()
    await desk.step()
    (request,) = desk.backend.requests
    assert (request.program, request.scheduler_address, request.session_id) == ("frazil-preprocess", "head:50051", session_id)
    assert request.gpu_memory_min_mib > 0
    assert desk.states() == ["PENDING"]


async def test_the_cluster_is_asked_for_its_list_once_in_ten_seconds(desk: Desk) -> None:
    for _ in range(10):
        await desk.step(2.0)
    assert desk.backend.lists == 2


async def test_a_refusal_is_shown_and_the_lane_asks_again_after_a_while(desk: Desk) -> None:
    desk.cluster.session()
    desk.backend.fault["submit"] = refused("Slurm did not take the job: QOSMaxSubmitJobPerUserLimit")
    await desk.step()
    await desk.step(2.0)
    assert "QOSMaxSubmitJobPerUserLimit" in desk.problem
    assert desk.states() == ["ENDED"]
    desk.cluster.world.advance(1.0)
    assert "QOSMaxSubmitJobPerUserLimit" in desk.reason()
    desk.backend.fault.clear()
    await desk.step(desk.backend.policy.list_seconds * limits.CLUSTER_REFUSED_LISTS)
    assert (desk.states(), desk.problem) == (["ENDED", "PENDING"], "")


async def test_without_an_answer_nothing_is_concluded(desk: Desk) -> None:
    desk.cluster.session()
    await desk.step()
    desk.backend.fault["list"] = unavailable("squeue did not answer within 30 s; is the batch system up?")
    for _ in range(10):
        await desk.step(30.0)
    assert desk.states() == ["PENDING"]
    assert "squeue did not answer" in desk.problem


async def test_an_unanswered_submission_is_made_again_only_when_two_lists_lack_it(desk: Desk) -> None:
    desk.cluster.session()
    desk.backend.fault["submit"] = unavailable("sbatch did not answer")
    await desk.step()
    desk.backend.fault.clear()
    desk.cluster.world.advance(1.0)
    assert "sbatch did not answer" in desk.reason()
    for _ in range(3):
        await desk.step(10.0)
        assert desk.backend.requests == []
    for _ in range(2):
        await desk.step(10.0)
    (request,) = desk.backend.requests
    assert desk.states() == ["PENDING"]
    assert request.name in desk.backend.jobs


async def test_after_one_that_failed_the_others_are_not_tried(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        desk.cluster.session(name)
    desk.backend.fault["submit"] = unavailable("sbatch did not answer")
    await desk.step()
    assert desk.states() == ["SUBMITTING", "ENDED", "ENDED"]


async def test_what_is_not_wanted_is_cancelled_until_it_is_over_and_then_forgotten(desk: Desk) -> None:
    session_id = desk.cluster.session()
    await desk.step()
    (name,) = desk.backend.jobs
    desk.cluster.world.change(session_id, "pause")
    await desk.step(2.0)
    await desk.step(10.0)
    assert desk.backend.cancelled == [name, name]
    desk.hub.beat(name)
    desk.backend.jobs[name] = ClusterState.CANCELLED
    await desk.step(10.0)
    assert desk.states() == ["ENDED"]
    assert name not in desk.hub.silence()


async def test_a_backend_that_breaks_is_a_problem_of_its_lane_only(desk: Desk) -> None:
    async def broken(names: Sequence[str]) -> Any:
        raise ZeroDivisionError

    desk.backend.list = broken  # type: ignore[method-assign]
    await desk.step()
    assert "The lane's backend failed" in desk.problem
