"""A lane on a batch system, with the real scheduler, agent and worker shell; the batch system and the science are stand-ins."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from clusters.batch_system import BatchSystem
from clusters.counting import SECONDS, create, feed, finish, until, write_programs
from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.rpc.failpoints import EXIT_CODE
from integration.scheduler.fakes import Client
from integration.scheduler.test_process import free_port


class Facility:
    """A scheduler process with one lane on a batch system."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.batch = BatchSystem(folder / "batch")
        agent = write_programs(folder / "programs", sys.executable)
        lane = {"agent": agent, "num_gpu": 0, "list_seconds": 0.5, "idle_seconds": 10.0, "drain_seconds": 2.0}
        lines = [f"{name} = {json.dumps(value)}" for name, value in {"backend": "slurm", **lane, **options}.items()]
        (folder / "frazil.toml").write_text("[lanes.cluster]\n" + "\n".join(lines) + "\n")
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **environ: str) -> None:
        """Start the scheduler, with its log in a file."""
        arguments = ["--data-dir", str(self.folder / "data"), "--address", f"127.0.0.1:{self.port}"]
        with (self.folder / "scheduler.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "frazil_scheduler", *arguments, "--config", str(self.folder / "frazil.toml")),
                env=os.environ | {"PATH": f"{self.batch.bin}:{os.environ['PATH']}", **environ},
                stderr=log,
            )

    async def restart(self, **environ: str) -> None:
        """Kill the scheduler and start it again."""
        await self.kill()
        await self.start(**environ)

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def dies(self, provoke: Callable[[], None]) -> int:
        """Wait for the scheduler's death, provoking it from time to time, and return its exit code."""
        assert self.process is not None
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    return await asyncio.wait_for(self.process.wait(), 2.0)
                except TimeoutError:
                    provoke()

    def log(self) -> str:
        return (self.folder / "scheduler.log").read_text()[-6000:]

    async def some_running(self) -> list[str]:
        return self.running()

    def running(self) -> list[str]:
        """Return the numbers of the jobs that run."""
        return [number for number, job in self.batch.jobs().items() if job["state"] == "RUNNING"]


@asynccontextmanager
async def facility(folder: Path, **options: Any) -> AsyncIterator[tuple[Facility, Client]]:
    facility = Facility(folder, **options)
    try:
        await facility.start()
        async with Client(f"127.0.0.1:{facility.port}") as client:
            yield facility, client
    finally:
        await facility.kill()
        facility.batch.close()


@pytest.mark.timeout(300)
async def test_a_session_is_worked_off_by_cluster_jobs_that_end_with_it(tmp_path: Path, movies: Path) -> None:
    async with facility(tmp_path) as (site, client):
        session = await create(client, movies)
        await client.register(session.session_id, *(f"movie{number}" for number in range(6)))

        async def done() -> bool:
            return (await client.get("grid1")).counts.particles_classified == 21

        await until(done, site.log)
        lanes = (await client.scheduler.ListLanes(scheduler_pb2.ListLanesRequest())).lanes
        (lane,) = (lane for lane in lanes if lane.name == "cluster")
        assert [job.state for job in lane.cluster_jobs] == ["RUNNING", "RUNNING"]
        await client.complete("grid1")
        ended = await client.until("grid1", "COMPLETED")
        assert (ended.counts.done, ended.counts.particles, ended.counts.particles_classified) == (6, 21, 21)

        async def gone() -> bool:
            return not site.running() and not (await client.scheduler.ListNodes(scheduler_pb2.ListNodesRequest())).nodes

        await until(gone, lambda: str(site.batch.jobs()))
        assert [job["state"] for job in site.batch.jobs().values()] == ["COMPLETED", "COMPLETED"]
        states = {
            e.state
            for e in (await client.exposures.ListExposures(exposure_pb2.ListExposuresRequest(session="grid1"))).exposures
        }
        assert states == {exposure_pb2.Exposure.STATE_DONE}


@pytest.mark.timeout(300)
async def test_streaming_outlives_the_walltime_without_losing_a_particle(tmp_path: Path, movies: Path) -> None:
    walltime = {"walltime_seconds": 12.0, "handover_seconds": 6.0, "drain_seconds": 2.0}
    async with facility(tmp_path, **walltime) as (site, client):
        session = await create(client, movies)
        await feed(client, session.session_id, 50, 0.3)
        await finish(client, session.session_id, 50, site.log)
        (streaming,) = [job for job in await client.jobs("grid1") if job.job_type == "class2d_streaming"]
        assert streaming.failures == 0
        carriers = [job for job in site.batch.jobs().values() if "--programs frazil-reconstruct" in job["script"]]
        assert len(carriers) >= 2
        assert carriers[0]["state"] == "COMPLETED"  # it had left before its time was up


@pytest.mark.timeout(300)
async def test_ten_kills_of_cluster_jobs_and_scheduler_leave_every_particle_counted_once(tmp_path: Path, movies: Path) -> None:
    chance = random.Random(20261125)
    async with facility(tmp_path) as (site, client):
        session = await create(client, movies)
        feeding = asyncio.create_task(feed(client, session.session_id, 50, 0.2))
        kills = ["node", "node", "node", "cancel", "cancel", "scheduler", "scheduler"]
        kills += ["cluster.submit.before", "cluster.submit.after", "scheduler.Cluster.submit.after"]
        chance.shuffle(kills)
        for kill in kills:
            await asyncio.sleep(chance.uniform(0.5, 1.5))
            if kill in ("node", "cancel"):
                number = chance.choice(await until(site.some_running, lambda: str(site.batch.jobs())))
                site.batch.strike(number) if kill == "node" else site.batch.cancel(number)
                continue
            if kill != "scheduler":  # it dies in the middle of the next submission, which a lost node makes it do
                await site.restart(FRAZIL_FAILPOINT=kill)
                assert await site.dies(lambda: site.batch.strike(chance.choice(site.running() or ["0"]))) == EXIT_CODE
            await site.restart()
        await feeding
        await finish(client, session.session_id, 50, site.log)
        names = [job["name"] for job in site.batch.jobs().values()]
        assert len(names) == len(set(names))  # nothing was submitted twice
