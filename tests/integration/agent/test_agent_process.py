"""The agent as a process, killed and stopped in every way, before a scheduler that only listens and orders."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from frazil.api.agent.v1.agent_pb2 import ConnectRequest, ConnectResponse, Probe, Start, Stop, Welcome
from frazil.api.agent.v1.agent_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.failpoints import EXIT_CODE
from frazil.rpc.server import RunningServer, start_server

TOY = """\
#!{python} -IS
import os, signal, sys, time
print("toy up", file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("TOY") == "stubborn" else lambda *_: sys.exit(0))
open(os.environ["TOY_READY"] + "." + os.environ["FRAZIL_LEASE_ID"], "x").close()
time.sleep(100)
"""


class Scheduler(AgentServiceServicer):
    """Notes what agents say; `tell` sends to the newest stream."""

    def __init__(self) -> None:
        self.got: list[ConnectRequest] = []
        self.kill: list[str] = []
        self.refusal: FrazilError | None = None
        self.changed = asyncio.Event()
        self.outbox: asyncio.Queue[ConnectResponse] = asyncio.Queue()

    def tell(self, term: int = 1, **message: Any) -> None:
        self.outbox.put_nowait(ConnectResponse(term=term, **message))

    async def until(self, matches: Callable[[ConnectRequest], bool]) -> ConnectRequest:
        """Return the first message that matches, taking out all up to it."""
        async with asyncio.timeout(20):
            while True:
                for index, message in enumerate(self.got):
                    if matches(message):
                        del self.got[: index + 1]
                        return message
                self.changed.clear()
                await self.changed.wait()

    async def hello(self) -> Any:
        return (await self.until(lambda m: m.HasField("hello"))).hello

    async def exited(self) -> Any:
        return (await self.until(lambda m: m.HasField("exited"))).exited

    async def proved(self) -> Any:
        return (await self.until(lambda m: m.HasField("proved_free"))).proved_free

    async def Connect(self, requests: Any, context: Any) -> AsyncIterator[ConnectResponse]:
        if self.refusal is not None:
            raise self.refusal
        self.outbox = outbox = asyncio.Queue()

        async def read() -> None:
            async for request in requests:
                self.got.append(request)
                if request.HasField("hello"):
                    outbox.put_nowait(ConnectResponse(term=1, welcome=Welcome(kill=self.kill)))
                self.changed.set()

        reader = asyncio.create_task(read())
        try:
            while True:
                yield await outbox.get()
        finally:
            reader.cancel()


@contextlib.asynccontextmanager
async def serving(scheduler: Scheduler, port: int = 0) -> AsyncIterator[RunningServer]:
    server = await start_server([lambda s: add_AgentServiceServicer_to_server(scheduler, s)], [], f"127.0.0.1:{port}")
    try:
        yield server
    finally:
        await server.stop(0.0)


class Site:
    """A host with one lock folder and any number of agents."""

    def __init__(self, folder: Path, server: RunningServer) -> None:
        self.folder, self.server, self.port = folder, server, server.port
        self.agents: list[asyncio.subprocess.Process] = []
        self.workers: set[int] = set()
        (folder / "bin").mkdir()
        toy = folder / "bin" / "frazil-toy"
        toy.write_text(TOY.format(python=sys.executable))
        toy.chmod(0o755)

    async def agent(self, *arguments: str, node: str = "node", **environ: str) -> asyncio.subprocess.Process:
        command = [
            *(sys.executable, "-m", "frazil.agent", "--scheduler", f"127.0.0.1:{self.port}", "--node-id", node),
            *("--programs", "frazil-toy", "--cpu-slots", "1", "--lock-dir", str(self.folder / "locks"), *arguments),
        ]
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        log = (self.folder / "agent.log").open("ab")
        with log:
            agent = await asyncio.create_subprocess_exec(
                *command,
                stderr=log,
                env=os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "TOY_READY": str(self.folder / "ready"), **environ},
            )
        self.agents.append(agent)
        return agent

    def order(self, lease: str, epoch: int, slot: str = "cpu:node#0") -> Start:
        return Start(lease_id=lease, epoch=epoch, slot_key=slot, job_id="job", job_type="toy", program="frazil-toy")

    async def start(self, scheduler: Scheduler, lease: str, epoch: int, slot: str = "cpu:node#0") -> int:
        """Have a worker started and return its pid once it is up."""
        scheduler.tell(start=self.order(lease, epoch, slot))
        started = (await scheduler.until(lambda m: m.HasField("started"))).started
        assert (started.lease_id, started.epoch) == (lease, epoch)
        self.workers.add(started.pid)
        async with asyncio.timeout(20):
            while not (self.folder / f"ready.{lease}").exists():  # noqa: ASYNC110 another process makes it
                await asyncio.sleep(0.02)
        return int(started.pid)

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def record(self, slot: str = "cpu:node#0") -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "locks" / f"{slot.replace('/', '%2F')}.lock").read_text())
        return content

    async def clean(self) -> None:
        for agent in self.agents:
            if agent.returncode is None:
                agent.kill()
            await agent.wait()
        for pid in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


@contextlib.asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[tuple[Scheduler, Site]]:
    scheduler = Scheduler()
    async with serving(scheduler) as server:
        site = Site(folder, server)
        try:
            yield scheduler, site
        finally:
            await site.clean()


async def test_killed_agent_leaves_its_worker_to_the_next(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        agent = await site.agent()
        hello = await scheduler.hello()
        assert [s.slot_key for s in hello.slots] == ["cpu:node#0"]
        assert list(hello.programs) == ["frazil-toy"]
        pid = await site.start(scheduler, "lease", 7)
        agent.kill()
        await agent.wait()
        assert alive(pid)
        await site.agent()
        successor = await scheduler.hello()
        assert successor.boot_id == hello.boot_id
        assert successor.incarnation != hello.incarnation
        assert [(h.slot_key, h.lease_id, h.epoch, h.pid) for h in successor.held] == [("cpu:node#0", "lease", 7, pid)]
        scheduler.tell(start=site.order("usurper", 8))
        assert (await scheduler.exited()).refused == "SLOT_HELD"
        assert alive(pid)
        scheduler.tell(stop=Stop(lease_id="lease", epoch=7, mode=Stop.MODE_DRAIN, deadline_seconds=20))
        exited = await scheduler.exited()
        assert (exited.lease_id, exited.epoch, exited.HasField("exit_code")) == ("lease", 7, False)
        assert "toy up" in exited.log_tail
        proved = await scheduler.proved()
        assert (proved.slot_key, proved.lease_id, proved.epoch, proved.problem) == ("cpu:node#0", "lease", 7, "")
        assert not alive(pid)


async def test_worker_that_dies_while_no_agent_runs_is_not_reported_as_held(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        agent = await site.agent()
        await scheduler.hello()
        pid = await site.start(scheduler, "lease", 7)
        agent.kill()
        await agent.wait()
        os.kill(pid, signal.SIGKILL)
        await site.agent()
        assert list((await scheduler.hello()).held) == []
        scheduler.tell(start=site.order("lease", 7))  # a start that was under way all the time
        assert (await scheduler.exited()).refused == "STALE_EPOCH"
        scheduler.tell(probe=Probe(slot_key="cpu:node#0", lease_id="lease", epoch=7))
        assert (await scheduler.proved()).problem == ""


async def test_terminated_agent_drains_its_workers_and_reports_their_ends(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        agent = await site.agent()
        await scheduler.hello()
        pid = await site.start(scheduler, "lease", 7)
        agent.terminate()
        assert (await scheduler.exited()).exit_code == 0
        assert (await scheduler.proved()).problem == ""
        assert await asyncio.wait_for(agent.wait(), 10) == 0
        assert not alive(pid)


async def test_agent_of_a_cluster_job_serves_one_lease_and_leaves(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        agent = await site.agent("--once", "--cpu-slots", "3")
        hello = await scheduler.hello()
        assert hello.cluster_job_name == "node"
        assert [s.slot_key for s in hello.slots] == ["cpu:node#0"]
        await site.start(scheduler, "lease", 7)
        scheduler.tell(stop=Stop(lease_id="lease", epoch=7, mode=Stop.MODE_DRAIN, deadline_seconds=20))
        assert (await scheduler.proved()).problem == ""
        assert await asyncio.wait_for(agent.wait(), 10) == 0


async def test_agent_of_a_cluster_job_that_is_not_wanted_kills_its_worker_and_leaves(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        agent = await site.agent("--once", TOY="stubborn")
        await scheduler.hello()
        pid = await site.start(scheduler, "lease", 7)
        await site.server.stop(0.0)
        successor = Scheduler()
        successor.refusal = FrazilError("AGENT_NOT_WANTED", "Another has your name; leave.", kind=ErrorKind.CONFLICT)
        async with serving(successor, site.port):
            assert await asyncio.wait_for(agent.wait(), 30) == 0
        assert not alive(pid)
        assert "Another has your name" in site.log()


async def test_second_signal_kills_what_will_not_drain(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        agent = await site.agent(TOY="stubborn")
        await scheduler.hello()
        pid = await site.start(scheduler, "lease", 7)
        agent.terminate()
        await asyncio.sleep(0.5)
        assert alive(pid)
        agent.terminate()
        assert (await scheduler.exited()).exit_code == -signal.SIGKILL
        assert await asyncio.wait_for(agent.wait(), 10) == 0


async def test_workers_survive_a_restart_of_the_scheduler(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        await site.agent()
        await scheduler.hello()
        pid = await site.start(scheduler, "lease", 7)
        await site.server.stop(0.0)
        successor = Scheduler()
        async with serving(successor, site.port):
            (held,) = (await successor.hello()).held
            assert (held.lease_id, held.pid) == ("lease", pid)
            assert alive(pid)


async def test_disowned_worker_is_killed(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        agent = await site.agent()
        await scheduler.hello()
        pid = await site.start(scheduler, "lease", 7)
        agent.kill()
        await agent.wait()
        scheduler.kill = ["lease"]
        await site.agent()
        assert (await scheduler.exited()).lease_id == "lease"
        assert not alive(pid)


async def test_second_agent_of_a_name_does_not_start(tmp_path: Path) -> None:
    async with stage(tmp_path) as (scheduler, site):
        await site.agent()
        await scheduler.hello()
        second = await site.agent()
        assert await asyncio.wait_for(second.wait(), 20) == 3
        assert "Another agent named" in site.log()
        assert "Traceback" not in site.log()


async def test_second_container_with_the_same_gpu_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "frazil.toml"
    config.write_text('[[agent.gpus]]\nname = "Toy 9000"\nmemory_mib = 16000\nuuid = "GPU-shared"\n')
    async with stage(tmp_path) as (scheduler, site):
        await site.agent("--config", str(config), node="one")
        hello = await scheduler.hello()
        assert next((s.slot_key, s.device_name) for s in hello.slots) == ("GPU-shared#0", "Toy 9000")
        pid = await site.start(scheduler, "lease", 7, "GPU-shared#0")
        await site.agent("--config", str(config), node="two")
        (held,) = (await scheduler.hello()).held
        assert (held.slot_key, held.lease_id, held.pid) == ("GPU-shared#0", "lease", pid)
        scheduler.tell(start=site.order("usurper", 8, "GPU-shared#0"))
        assert (await scheduler.exited()).refused == "SLOT_HELD"
        assert alive(pid)


@pytest.mark.parametrize(("point", "held"), [("agent.start.recorded", False), ("agent.start.spawned", True)])
def test_agent_that_dies_in_the_middle_of_a_start(tmp_path: Path, point: str, held: bool) -> None:
    asyncio.run(_dies_in_a_start(tmp_path, point, held))


async def _dies_in_a_start(tmp_path: Path, point: str, held: bool) -> None:
    async with stage(tmp_path) as (scheduler, site):
        agent = await site.agent(FRAZIL_FAILPOINT=point)
        await scheduler.hello()
        scheduler.tell(start=site.order("lease", 7))
        assert await asyncio.wait_for(agent.wait(), 20) == EXIT_CODE
        assert site.record()["amax"] == 7  # on the disk before anything ran
        await site.agent()
        hello = await scheduler.hello()
        assert [h.lease_id for h in hello.held] == (["lease"] if held else [])
        if held:
            scheduler.tell(stop=Stop(lease_id="lease", epoch=7, mode=Stop.MODE_KILL))
            assert (await scheduler.exited()).lease_id == "lease"
            assert (await scheduler.proved()).problem == ""
        else:
            scheduler.tell(start=site.order("lease", 7))
            assert (await scheduler.exited()).refused == "STALE_EPOCH"
