"""A streaming session whose science is counting: what the newest checkpoint holds shows what was counted, and how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from frazil.api.session.v1 import session_pb2
from frazil.rpc.client import new_request_id
from integration.scheduler.fakes import Client
from integration.scheduler.test_process import RETRIED, insist

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
# The GPUs here are none, and the programs are those beside this file.
arguments=$(echo "$@" | sed -e 's/ --require-gpu//' -e 's# --programs # --programs {folder}/#')
exec {python} -m frazil.agent $arguments --lock-dir {folder}/locks
"""


def write_programs(folder: Path, python: str) -> str:
    """Write the worker programs and an agent that starts them; return the agent's path."""
    folder.mkdir()
    for name in ("frazil-preprocess", "frazil-reconstruct"):
        (folder / name).write_text(WORKER.format(python=python))
    (folder / "frazil-agent").write_text(AGENT.format(python=python, folder=folder))
    for program in folder.iterdir():
        program.chmod(0o755)
    return str(folder / "frazil-agent")


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


def counted(session_folder: Path) -> list[list[int]]:
    """Return what the newest checkpoint says: sequence and particles of each block, as often as it was counted."""
    newest = max(session_folder.glob("checkpoint-*.json"), key=lambda path: [int(n) for n in path.stem.split("-")[1:]])
    blocks: list[list[int]] = json.loads(newest.read_text())["blocks"]
    return blocks


async def feed(client: Client, session_id: str, count: int, seconds: float, *, first: int = 0) -> None:
    """Register movies one by one, whatever the scheduler does meanwhile."""
    for number in range(first, first + count):
        while True:
            try:
                await client.register(session_id, f"movie{number:04d}")
                break
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
            await asyncio.sleep(0.05)
        await asyncio.sleep(seconds)


async def finish(client: Client, session_id: str, movies: int, why: Callable[[], str]) -> None:
    """Complete the session and see that every particle was counted, once."""
    await insist(
        client.sessions.CompleteSession,
        session_pb2.CompleteSessionRequest(request_id=new_request_id(), session=session_id),
    )

    async def completed() -> session_pb2.Session | None:
        session = await insist(client.sessions.GetSession, session_pb2.GetSessionRequest(session=session_id))
        return session if session.state == session_pb2.Session.STATE_COMPLETED else None

    session = await until(completed, why)
    particles = movies * (movies + 1) // 2
    assert (session.counts.done, session.counts.particles, session.counts.particles_classified) == (
        movies,
        particles,
        particles,
    )
    blocks = counted(Path(session.folder))
    assert [sequence for sequence, _ in blocks] == list(range(1, movies + 1))
    assert sum(count for _, count in blocks) == particles
