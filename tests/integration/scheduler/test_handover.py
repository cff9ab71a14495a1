"""Hand-over of slots on cluster lanes, with the real scheduler, agent and worker shell on stand-ins of Slurm and Kubernetes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusters.batch_system import BatchSystem
from clusters.counting import feed, finish, until, write_programs
from clusters.kubernetes_api import KubernetesApi
from frazil.api.scheduler.v1.scheduler_pb2 import Job
from frazil.api.session.v1 import session_pb2
from frazil.rpc.client import new_request_id
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.service import running
from integration.scheduler.fakes import Client
from integration.scheduler.test_process import free_port

SECONDS = 120.0
SHARED = {"max_jobs": 2, "list_seconds": 0.5, "idle_seconds": 20.0, "drain_seconds": 5.0}


@dataclass(frozen=True, slots=True)
class Site:
    backend: str
    options: dict[str, Any]


@pytest.fixture(params=["slurm", "kubernetes"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A cluster on which the lane may have two jobs at a time."""
    agent = write_programs(tmp_path / "programs", sys.executable)
    if request.param == "slurm":
        batch = BatchSystem(tmp_path / "batch")
        monkeypatch.setenv("PATH", f"{batch.bin}:{os.environ['PATH']}")
        yield Site("slurm", {**SHARED, "agent": agent, "num_gpu": 0})
        batch.close()
    else:
        api = KubernetesApi(tmp_path / "api", os.environ | {"PATH": f"{tmp_path / 'programs'}:{os.environ['PATH']}"})
        yield Site("kubernetes", {**SHARED, **api.options})
        api.close()


async def create(client: Client, movies: Path, name: str, workers: int) -> session_pb2.Session:
    wanted = session_pb2.Session(name=name)
    wanted.parameters.movie_folder = str(movies)
    wanted.parameters.particle_diameter_angstrom = 140
    wanted.parameters.until = "class2d"
    for role in ("preprocessing", "reconstruction", "auxiliary"):
        setattr(wanted.compute, f"{role}_lane", "cluster")
    wanted.compute.preprocessing_workers = workers
    wanted.compute.streaming_start = session_pb2.ComputeResources.STREAMING_START_ON_REQUEST
    request = session_pb2.CreateSessionRequest(request_id=new_request_id(), session=wanted)
    session: session_pb2.Session = await client.sessions.CreateSession(request)
    await client.start(name)
    return session


async def switch(client: Client, **jobs: int) -> None:
    """Hand slots over and wait until that is done."""
    request = session_pb2.SwitchPlanRequest(request_id=new_request_id(), session="grid1", jobs=jobs)
    await client.sessions.SwitchPlan(request)

    async def done() -> bool:
        state = (await client.get("grid1")).slot_switch.state
        assert state in (session_pb2.SlotSwitch.STATE_SWITCHING, session_pb2.SlotSwitch.STATE_DONE)
        return state == session_pb2.SlotSwitch.STATE_DONE

    await until(done, lambda: f"{jobs} never came about", SECONDS)


async def states(client: Client, session: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for job in await client.jobs(session):
        found.setdefault(job.job_type, []).append(Job.State.Name(job.state).removeprefix("STATE_"))
    return {kind: sorted(words) for kind, words in found.items()}


@pytest.mark.timeout(300)
async def test_slots_change_hands_inside_a_session_while_another_waits_for_the_same_cluster(
    site: Site, tmp_path: Path, movies: Path
) -> None:
    lanes = [LaneSettings(name="default"), LaneSettings(name="cluster", backend=site.backend, options=site.options)]
    settings = Settings(address=f"127.0.0.1:{free_port()}", data_dir=tmp_path / "data")
    async with running(settings, lanes, grace_seconds=0.2) as (_, address), Client(address) as client:
        session = await create(client, movies, "grid1", 2)

        async def both() -> bool:
            return await states(client, "grid1") == {"preprocess": ["RUNNING", "RUNNING"]}

        await until(both, lambda: "the workers never ran", SECONDS)
        await create(client, movies, "other", 1)
        await feed(client, session.session_id, 6, 0.05)
        await switch(client, preprocess=1, class2d_streaming=1)
        assert await states(client, "grid1") == {"preprocess": ["PAUSED", "RUNNING"], "class2d_streaming": ["RUNNING"]}
        await feed(client, session.session_id, 4, 0.05, first=6)
        await switch(client, preprocess=2)
        assert await states(client, "grid1") == {"preprocess": ["RUNNING", "RUNNING"], "class2d_streaming": ["PAUSED"]}
        assert [job.lease.lease_id for job in await client.jobs("other")] == [""]  # it had none all the while
        await switch(client, preprocess=1, class2d_streaming=1)
        await finish(client, session.session_id, 10, lambda: "never completed")
