"""The scheduler as a process: killed at any moment it loses nothing it has acknowledged; faults are one sentence."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import grpc
import pytest

from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.clock import Clock
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.ledger.store import Store
from frazil_scheduler.service import Scheduler, running
from integration.scheduler.fakes import Agent, Client, commit_request
from postgresql import Server
from relay import Relay

KILLS = 15
MOVIES = 200
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def launch(data_dir: Path, port: int = 0, *more: str) -> tuple[Process, str]:
    """Start a scheduler process and return it with its address, once it answers."""
    address_file = data_dir / "scheduler.address"
    address_file.unlink(missing_ok=True)
    arguments = ["-m", "frazil_scheduler", "--data-dir", str(data_dir), "--address", f"127.0.0.1:{port}", *more]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=PIPE)
    end = time.monotonic() + 60
    while not address_file.exists():
        if process.returncode is not None or time.monotonic() > end:
            _, log = await process.communicate()
            raise AssertionError(log.decode())
        await asyncio.sleep(0.02)
    return process, address_file.read_text().strip()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ended(process: Process) -> tuple[int, str]:
    """Wait for a process's end; return its exit code and what it said."""
    _, log = await process.communicate()
    return process.returncode or 0, log.decode()


async def insist(call: Any, request: Any) -> Any:
    """Repeat a call while nobody answers."""
    while True:
        try:
            return await call(request, wait_for_ready=True, timeout=60)
        except grpc.aio.AioRpcError as error:
            if error.code() not in RETRIED:
                raise
        await asyncio.sleep(0.02)


FORKER = """
import os, sys
import frazil_scheduler.__main__ as program
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = ["frazil-scheduler", *line.split()]
        program.main()
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


class Killer:
    """Runs the scheduler in children of one process that has imported it already, and kills them one after the other."""

    def __init__(self, data_dir: Path, port: int, ledger: str) -> None:
        self._line = f"--data-dir {data_dir} --address 127.0.0.1:{port} --ledger {ledger}\n".encode()
        self.kills = 0
        self._dice = random.Random(7)

    async def __aenter__(self) -> Killer:
        self._forker = await asyncio.create_subprocess_exec(sys.executable, "-c", FORKER, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        self._reader = asyncio.create_task(self._forker.stderr.read())  # type: ignore[union-attr]
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        os.kill(self._child, signal.SIGTERM)
        await self._heard()
        self._forker.stdin.close()  # type: ignore[union-attr]
        await self._forker.wait()
        await self._reader

    async def kill_in_a_moment(self) -> None:
        """Kill after up to 15 ms, most likely in the middle of something, and start the next."""
        await asyncio.sleep(self._dice.uniform(0, 0.015))
        os.kill(self._child, signal.SIGKILL)
        assert await self._heard() == "dead"
        self.kills += 1
        await self._start()

    async def _start(self) -> None:
        self._forker.stdin.write(self._line)  # type: ignore[union-attr]
        self._child = int(await self._heard())

    async def _heard(self) -> str:
        return (await self._forker.stdout.readline()).decode().strip()  # type: ignore[union-attr]


@pytest.mark.timeout(110)
async def test_killed_while_committing_no_acknowledged_commit_is_lost(tmp_path: Path, movies: Path, ledger: str) -> None:
    kills = KILLS if "://" not in ledger else KILLS // 2  # each start costs more there
    data_dir = tmp_path / "data"
    port = free_port()
    async with Killer(data_dir, port, ledger) as killer, Client(f"127.0.0.1:{port}") as client:
        await insist(client.sessions.ListSessions, session_pb2.ListSessionsRequest())
        session = await client.create(movies)
        agent = Agent(client)
        await agent.dial()
        await client.start("grid1")
        token = await agent.start()
        await client.register(session.session_id, *(f"m{number}.tiff" for number in range(MOVIES)))
        acknowledged: dict[str, int] = {}
        number = 0
        killing: asyncio.Task[None] | None = None
        while killer.kills < kills:
            if number % 3 == 0 and (killing is None or killing.done()):
                killing = asyncio.create_task(killer.kill_in_a_moment())
            number += 1
            request = worker_pb2.ClaimExposuresRequest(lease=token, max_count=1, request_id=f"claim-{number}")
            for claim in (await insist(client.workers.ClaimExposures, request)).claims:
                reply = await insist(client.workers.CommitExposure, commit_request(token, claim, 3))
                acknowledged[claim.exposure.exposure_id] = reply.particle_block_sequence
        assert killing is not None
        await killing
        now = await insist(client.sessions.GetSession, session_pb2.GetSessionRequest(session="grid1"))
        listed = await insist(
            client.reconstruction.ListParticleBlocks, reconstruction_pb2.ListParticleBlocksRequest(session="grid1")
        )
        events = await client.history()
        await agent.hang_up()
    blocks = {block.exposure_id: block.sequence for block in listed.blocks}
    assert len(acknowledged) > kills
    assert acknowledged == blocks  # every acknowledged commit is there, under the number that was told, and no other
    assert sorted(blocks.values()) == list(range(1, len(blocks) + 1))
    assert (now.counts.done, now.counts.particles) == (len(blocks), 3 * len(blocks))
    assert now.counts.found == now.counts.ready + now.counts.running + now.counts.done == MOVIES
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_a_second_scheduler_on_the_ledger_refuses_in_one_sentence(tmp_path: Path, ledger: str) -> None:
    first, _ = await launch(tmp_path, 0, "--ledger", ledger)
    arguments = ["-m", "frazil_scheduler", "--data-dir", str(tmp_path), "--address", "127.0.0.1:0", "--ledger", ledger]
    second = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=PIPE)
    code, said = await ended(second)
    first.terminate()
    first_code, log = await ended(first)
    assert code == 2
    assert said.startswith("frazil-scheduler: Another scheduler (process ")
    assert "://" in ledger or f"(process {first.pid}) holds " in said
    assert said.count("\n") == 1
    assert first_code == 0
    assert "Traceback" not in log
    assert not (tmp_path / "scheduler.address").exists()


async def test_a_scheduler_that_was_replaced_while_cut_off_stops_in_one_sentence(
    tmp_path: Path, postgresql_server: Server
) -> None:
    url = postgresql_server.new_ledger()
    with Relay(postgresql_server.port) as relay:
        link = url.replace("frazil@", "frazil:s3cr3t@") + f"&hostaddr=127.0.0.1&port={relay.port}"
        process, _ = await launch(tmp_path, 0, "--ledger", link)
        relay.open = False
        relay.cut()
        newer = Store(url, Clock())
        relay.open = True
        code, log = await ended(process)
        newer.close()
    assert code == 2
    assert log.splitlines()[-1].startswith(
        "frazil-scheduler: While the ledger was out of reach, it was taken: Another scheduler"
    )
    assert "Traceback" not in log
    assert "s3cr3t" not in log
    assert newer.term == 2


async def test_a_port_in_use_is_one_sentence(served: tuple[Scheduler, str], tmp_path: Path) -> None:
    settings = Settings(address=served[1], data_dir=tmp_path / "other")
    with pytest.raises(FrazilError, match="another program uses the port"):
        async with running(settings, [LaneSettings(name="default")]):
            pass
    async with running(Settings(address="127.0.0.1:0", data_dir=tmp_path / "other"), [LaneSettings(name="default")]):
        pass  # the failed one has let go of its ledger
