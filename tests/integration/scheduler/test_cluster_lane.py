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

import grpc
import pytest

from clusters.batch_system import BatchSystem
from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.rpc.client import new_request_id
from frazil.rpc.failpoints import EXIT_CODE
from integration.scheduler.fakes import Client
from integration.scheduler.test_process import RETRIED, free_port, insist

SECONDS = 60.0
WORKER = '''#!{python}
"""Counts particles: a block is counted when the checkpoint that holds it is committed, and never again."""
import hashlib, json, os, sys, time
from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages
from frazil.worker import run_worker

def preprocess(context):
    while not context.stop_requested:
        reply = context.claim(1, wait_seconds=5.0)
        for claim in reply.claims:
            time.sleep(0.02)
            result = ExposureResult(particle_count=claim.exposure.number, particles="p.mrcs", particle_table="p.npy")
            context.commit(claim, result, "0" * 64)
        if reply.drained:
            return

def class2d(context):
    known = context.checkpoints[0] if context.checkpoints else None
    state = json.loads((context.session_folder / known.path).read_text()) if known else {{"blocks": []}}
    cursor, number = (known.cursor_sequence, known.number) if known else (0, 0)
    while True:
        reply = context.read_blocks(cursor, max_count=3, wait_seconds=2.0)
        if reply.blocks:
            time.sleep(0.1)
            state["blocks"] += [[block.sequence, block.particle_count] for block in reply.blocks]
            cursor, number = reply.blocks[-1].sequence, number + 1
            path = context.session_folder / f"checkpoint-{{number}}-{{context.environment.epoch}}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(state))
            context.commit_checkpoint(number, cursor, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
            count = sum(count for _, count in state["blocks"])
            context.publish_class_averages(ClassAverages(particle_count=count))
        if reply.end_of_input or context.stop_requested:
            return

sys.exit(run_worker("stand-in", {{"preprocess": preprocess, "class2d_streaming": class2d}}))
'''
AGENT = """#!/bin/sh
exec {python} -m frazil.agent "$@" --programs {folder}/frazil-preprocess,{folder}/frazil-reconstruct --lock-dir {folder}/locks
"""


class Facility:
    """A scheduler process with one lane on a batch system."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.batch = BatchSystem(folder / "batch")
        programs = folder / "programs"
        programs.mkdir()
        for name in ("frazil-preprocess", "frazil-reconstruct"):
            (programs / name).write_text(WORKER.format(python=sys.executable))
        (programs / "agent").write_text(AGENT.format(python=sys.executable, folder=programs))
        for program in programs.iterdir():
            program.chmod(0o755)
        lane = {"agent": str(programs / "agent"), "num_gpu": 0, "list_seconds": 0.5, "idle_seconds": 10.0, "drain_seconds": 2.0}
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


async def create(client: Client, movies: Path, *, until: str = "class2d") -> session_pb2.Session:
    wanted = session_pb2.Session(name="grid1")
    wanted.parameters.movie_folder = str(movies)
    wanted.parameters.particle_diameter_angstrom = 140
    wanted.parameters.until = until
    for role in ("preprocessing", "reconstruction", "auxiliary"):
        setattr(wanted.compute, f"{role}_lane", "cluster")
    wanted.compute.preprocessing_workers = 1
    request = session_pb2.CreateSessionRequest(request_id=new_request_id(), session=wanted)
    session: session_pb2.Session = await client.sessions.CreateSession(request, wait_for_ready=True, timeout=SECONDS)
    await client.start("grid1")
    return session


async def until(what: Callable[[], Any], why: Callable[[], str], seconds: float = SECONDS) -> Any:
    """Wait until an awaitable's value is true and return it."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await what()
                if found:
                    return found
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(why()) from None


@pytest.mark.timeout(300)
async def test_a_session_is_worked_off_by_cluster_jobs_that_end_with_it(tmp_path: Path, movies: Path) -> None:
    async with facility(tmp_path) as (site, client):
        session = await create(client, movies)
        await client.register(session.session_id, *(f"movie{number}" for number in range(6)))

        async def done() -> bool:
            return (await client.get("grid1")).counts.particles_classified == 21

        await until(done, lambda: (tmp_path / "scheduler.log").read_text()[-4000:])
        lane = next(
            lane
            for lane in (await client.scheduler.ListLanes(scheduler_pb2.ListLanesRequest())).lanes
            if lane.name == "cluster"
        )
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


def counted(session_folder: Path) -> list[list[int]]:
    """Return what the newest checkpoint says: sequence and particles of each block, as often as it was counted."""
    newest = max(session_folder.glob("checkpoint-*.json"), key=lambda path: [int(n) for n in path.stem.split("-")[1:]])
    blocks: list[list[int]] = json.loads(newest.read_text())["blocks"]
    return blocks


async def feed(client: Client, session_id: str, count: int, seconds: float) -> None:
    """Register movies one by one, whatever the scheduler does meanwhile."""
    for number in range(count):
        while True:
            try:
                await client.register(session_id, f"movie{number:04d}")
                break
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
            await asyncio.sleep(0.05)
        await asyncio.sleep(seconds)


async def finish(client: Client, site: Facility, session_id: str, movies: int) -> None:
    """Complete the session and see that every particle was counted, once."""
    await insist(
        client.sessions.CompleteSession,
        session_pb2.CompleteSessionRequest(request_id=new_request_id(), session=session_id),
    )

    async def completed() -> session_pb2.Session | None:
        session = await insist(client.sessions.GetSession, session_pb2.GetSessionRequest(session=session_id))
        return session if session.state == session_pb2.Session.STATE_COMPLETED else None

    session = await until(completed, lambda: (site.folder / "scheduler.log").read_text()[-6000:])
    particles = movies * (movies + 1) // 2
    assert (session.counts.done, session.counts.particles, session.counts.particles_classified) == (
        movies,
        particles,
        particles,
    )
    blocks = counted(Path(session.folder))
    assert [sequence for sequence, _ in blocks] == list(range(1, movies + 1))
    assert sum(count for _, count in blocks) == particles


@pytest.mark.timeout(300)
async def test_streaming_outlives_the_walltime_without_losing_a_particle(tmp_path: Path, movies: Path) -> None:
    walltime = {"walltime_seconds": 12.0, "handover_seconds": 6.0, "drain_seconds": 2.0}
    async with facility(tmp_path, **walltime) as (site, client):
        session = await create(client, movies)
        await feed(client, session.session_id, 50, 0.3)
        await finish(client, site, session.session_id, 50)
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
        kills = [*["node", "scheduler"] * 3, *["cancel"] * 2, "cluster.submit.before", "cluster.submit.after"]
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
        await finish(client, site, session.session_id, 50)
        names = [job["name"] for job in site.batch.jobs().values()]
        assert len(names) == len(set(names))  # nothing was submitted twice
