"""A lane on Kubernetes with the real scheduler, agent and worker shell: on a stand-in of the API server, and on a real one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.counting import create, feed, finish, until, write_programs
from clusters.kubernetes_api import KubernetesApi
from clusters.real_kubernetes import Namespace
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.service import running
from integration.scheduler.fakes import Client
from integration.scheduler.test_process import free_port


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.long)])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KubernetesApi | Namespace]:
    programs = tmp_path / "programs"
    write_programs(programs, sys.executable)
    environ = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    if request.param == "real":
        cluster: KubernetesApi | Namespace = Namespace(request.getfixturevalue("real_kubernetes"), tmp_path / "api", environ)
    else:
        cluster = KubernetesApi(tmp_path / "api", environ)
    yield cluster
    cluster.close()


@pytest.mark.timeout(300)
async def test_streaming_pods_outlive_the_scheduler(cluster: KubernetesApi | Namespace, tmp_path: Path, movies: Path) -> None:
    options = {**cluster.options, "list_seconds": 0.5, "idle_seconds": 20.0, "drain_seconds": 2.0}
    lanes = [LaneSettings(name="default"), LaneSettings(name="cluster", backend="kubernetes", options=options)]
    settings = Settings(address=f"127.0.0.1:{free_port()}", data_dir=tmp_path / "data")

    def words() -> str:
        return f"running: {cluster.running()}"

    async with running(settings, lanes, grace_seconds=0.2) as (_, address), Client(address) as client:
        session = await create(client, movies)
        await feed(client, session.session_id, 5, 0.1)

        async def counting() -> bool:
            return (await client.get("grid1")).counts.particles_classified > 0

        await until(counting, words)
        pods = cluster.running()
        assert len(pods) == 2
    async with running(settings, lanes, grace_seconds=0.2) as (_, address), Client(address) as client:
        await feed(client, session.session_id, 10, 0.1, first=5)
        assert cluster.running() == pods
        await finish(client, session.session_id, 15, words)
        assert set(cluster.jobs) == pods
