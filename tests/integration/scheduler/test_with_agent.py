"""The real agent and the real worker shell against the real scheduler; only the science is a toy."""

from __future__ import annotations

import asyncio
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from frazil.agent import inventory
from frazil.agent.children import Children, Launch
from frazil.agent.control import Control, Node
from frazil.agent.locks import LockFolder
from frazil.agent.stream import AgentStream
from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil_scheduler.service import Scheduler
from integration.scheduler.fakes import Client

TOY = """#!{python}
import os, sys
from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.worker import run_worker

def run(context):
    while not context.stop_requested:
        reply = context.claim(2, wait_seconds=5.0)
        for claim in reply.claims:
            if claim.exposure.file.relative_path == "deadly" and claim.exposure.attempts == 0:
                os.abort()
            result = ExposureResult(particle_count=3, particles="particles.mrcs", particle_table="particles.npy")
            context.commit(claim, result, "0" * 64)
        if reply.drained:
            return

sys.exit(run_worker("toy", {{"preprocess": run}}))
"""


class NoGpu:
    """There is no GPU memory to read."""

    def used_mib(self, uuid: str) -> int | None:
        return None

    def free_mib(self, uuid: str) -> int | None:
        return None

    def programs(self, uuid: str) -> tuple[()]:
        return ()

    def use(self, uuid: str) -> None:
        return None

    def errors(self) -> list[tuple[str, int]]:
        return []


def toy(folder: Path) -> Path:
    """Write the toy as a program."""
    program = folder / "frazil-preprocess"
    program.write_text(TOY.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@asynccontextmanager
async def agent(
    address: str, folder: Path, *, incarnation: str, programs: dict[str, Path] | None = None
) -> AsyncIterator[None]:
    """Run an agent with two CPU slots and these programs: the toy for preprocessing, unless said otherwise."""
    programs = programs or {"frazil-preprocess": toy(folder)}
    locks = LockFolder(folder / "locks")
    slots = inventory.cpu_slots("node", cores=2, memory_mib=8192, count=2)
    launch = Launch(scheduler_address=address, threads=1, boot_id="boot", programs=programs, log_folder=folder / "logs")
    node = Node(
        node_id="node", boot_id="boot", incarnation=incarnation, slots=slots, programs=tuple(programs), baselines_mib={}
    )
    control = Control(node, locks, Children(locks, launch, time.monotonic), NoGpu(), time.monotonic)
    stop = asyncio.Event()
    running = asyncio.create_task(AgentStream(control, address, beat_seconds=1.0).run(stop, drain_seconds=20.0))
    try:
        yield
    finally:
        stop.set()
        await running


@pytest.mark.timeout(110)
async def test_a_session_with_a_death_a_pause_and_a_completion(
    served: tuple[Scheduler, str], client: Client, movies: Path, tmp_path: Path
) -> None:
    session = await client.create(movies, workers=2)
    await client.start("grid1")
    async with agent(served[1], tmp_path, incarnation="first"):
        await client.register(session.session_id, "a", "deadly", "b")
        await done(client, 2)
        deadly = await died(client)  # it backs off for ten seconds, its worker for one
        assert deadly.state == exposure_pb2.Exposure.STATE_READY
        await client.pause("grid1")
        await client.until("grid1", "PAUSED")
        (node,) = (await client.scheduler.ListNodes(scheduler_pb2.ListNodesRequest())).nodes
        assert not any(slot.HasField("lease") for slot in node.slots)
        await client.start("grid1")
        await client.register(session.session_id, "c")
        await done(client, 4)
        await client.complete("grid1")
        ended = await client.until("grid1", "COMPLETED")
    assert (ended.counts.found, ended.counts.done, ended.counts.particles) == (4, 4, 12)
    assert {exposure.state for exposure in (await exposures(client)).values()} == {exposure_pb2.Exposure.STATE_DONE}
    assert sum(job.failures for job in await client.jobs("grid1")) == 1


async def exposures(client: Client) -> dict[str, exposure_pb2.Exposure]:
    reply = await client.exposures.ListExposures(exposure_pb2.ListExposuresRequest(session="grid1"))
    return {exposure.file.relative_path: exposure for exposure in reply.exposures}


async def died(client: Client) -> exposure_pb2.Exposure:
    """Wait until the death of its worker counts against the deadly one."""
    async with asyncio.timeout(80):
        while True:
            deadly = (await exposures(client))["deadly"]
            if deadly.attempts:
                return deadly
            await asyncio.sleep(0.1)


async def done(client: Client, count: int) -> session_pb2.Session:
    """Wait until so many exposures are done."""
    async with asyncio.timeout(80):
        while True:
            session = await client.get("grid1")
            if session.counts.done >= count:
                return session
            await asyncio.sleep(0.1)
