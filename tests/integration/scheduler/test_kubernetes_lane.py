"""A lane on Kubernetes, with the real scheduler, agent and worker shell; the API server and the science are stand-ins."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from clusters.counting import create, feed, finish, until, write_programs
from clusters.kubernetes_api import KubernetesApi
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.service import running
from integration.scheduler.fakes import Client
from integration.scheduler.test_process import free_port


@pytest.mark.timeout(300)
async def test_streaming_pods_outlive_the_scheduler(tmp_path: Path, movies: Path) -> None:
    programs = tmp_path / "programs"
    write_programs(programs, sys.executable)
    api = KubernetesApi(tmp_path / "api", os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"})
    options = {"kubeconfig": str(api.kubeconfig), "list_seconds": 0.5, "idle_seconds": 20.0, "drain_seconds": 2.0}
    lanes = [LaneSettings(name="default"), LaneSettings(name="cluster", backend="kubernetes", options=options)]
    settings = Settings(address=f"127.0.0.1:{free_port()}", data_dir=tmp_path / "data")
    try:
        async with running(settings, lanes, grace_seconds=0.2) as (_, address), Client(address) as client:
            session = await create(client, movies)
            await feed(client, session.session_id, 5, 0.1)

            async def counting() -> bool:
                return (await client.get("grid1")).counts.particles_classified > 0

            await until(counting, lambda: str(api.jobs))
            pods = set(api.jobs)
            assert len(pods) == 2
        async with running(settings, lanes, grace_seconds=0.2) as (_, address), Client(address) as client:
            await feed(client, session.session_id, 10, 0.1, first=5)
            assert {name for name, job in api.jobs.items() if job["phase"] == "Running"} == pods
            await finish(client, session.session_id, 15, lambda: str(api.jobs))
            assert set(api.jobs) == pods
    finally:
        api.close()
