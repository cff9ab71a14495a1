"""The control plane under load: decisions, claims and commits, a million exposures, a restart, two hundred watchers.

Every part but `grant` talks to a real `frazil-scheduler` process over gRPC on loopback, on the disk of --folder; workers and
agents are played by this process. Latencies count from the moment a call was due, not from when it could be sent, so that a
stall is not hidden. Run all parts, or name some: `python benchmarks/scheduler.py grant load --minutes 10`. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import create_engine, insert

from frazil.api.agent.v1 import agent_pb2, agent_pb2_grpc
from frazil.api.event.v1 import event_pb2, event_pb2_grpc
from frazil.api.exposure.v1 import exposure_pb2, exposure_pb2_grpc
from frazil.api.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from frazil.api.session.v1 import session_pb2, session_pb2_grpc
from frazil.api.worker.v1 import worker_pb2, worker_pb2_grpc
from frazil.rpc.client import new_request_id, open_aio_channel
from frazil_scheduler.ledger import tables
from frazil_scheduler.placement import Kind, Slot, WaitingJob, schedule

PROGRAMS = ("frazil-preprocess", "frazil-reconstruct")
PARTS = ("grant", "load", "million", "restart", "frozen")


# ------------------------------------------------------------------------------------------------------ the scheduler
class Running:
    """A scheduler process and stubs to it."""

    def __init__(self, data_dir: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.data_dir = data_dir
        self.process: Process | None = None

    async def start(self) -> float:
        """Start the process; return the seconds until it answered its first call."""
        began = time.perf_counter()
        arguments = ["-m", "frazil_scheduler", "--data-dir", str(self.data_dir), "--address", self.address]
        with (self.data_dir / "scheduler.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=log)
        self.channel = open_aio_channel(self.address)
        self.sessions: Any = session_pb2_grpc.SessionServiceStub(self.channel)
        self.exposures: Any = exposure_pb2_grpc.ExposureServiceStub(self.channel)
        self.resources: Any = scheduler_pb2_grpc.SchedulerServiceStub(self.channel)
        self.agents: Any = agent_pb2_grpc.AgentServiceStub(self.channel)
        self.workers: Any = worker_pb2_grpc.WorkerServiceStub(self.channel)
        self.events: Any = event_pb2_grpc.EventServiceStub(self.channel)
        await self.sessions.ListSessions(session_pb2.ListSessionsRequest(page_size=1), wait_for_ready=True, timeout=120)
        return time.perf_counter() - began

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process."""
        await self.channel.close()
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()

    def resident_mib(self) -> float:
        """Return the process's resident memory."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has used."""
        assert self.process is not None
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    async def create(self, name: str, movies: Path) -> str:
        """Create and start a session of one preprocessing worker; return its identity."""
        wanted = session_pb2.Session(name=name)
        wanted.parameters.movie_folder = str(movies)
        wanted.parameters.particle_diameter_angstrom = 140
        wanted.parameters.until = "preprocess"
        made = await self.sessions.CreateSession(
            session_pb2.CreateSessionRequest(request_id=new_request_id(), session=wanted), timeout=60
        )
        request = session_pb2.StartSessionRequest(request_id=new_request_id(), session=made.session_id)
        await self.sessions.StartSession(request, timeout=60)
        return str(made.session_id)


class Node:
    """An agent that starts whatever it is told to, at once, and holds it."""

    def __init__(self, scheduler: Running, name: str, slots: int, starts: asyncio.Queue[agent_pb2.Start]) -> None:
        self.scheduler, self.name, self.starts = scheduler, name, starts
        self.slots = [f"GPU-{name}-{number}#0" for number in range(slots)]
        self.held: dict[str, agent_pb2.HeldSlot] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def dial(self) -> None:
        """Say Hello, then beat and obey until hung up."""
        self.call = self.scheduler.agents.Connect(wait_for_ready=True)
        slots = [
            scheduler_pb2.GpuSlot(slot_key=key, kind=scheduler_pb2.GpuSlot.KIND_GPU, memory_mib=24_000) for key in self.slots
        ]
        hello = agent_pb2.Hello(
            node_id=self.name,
            boot_id="boot",
            incarnation=new_request_id(),
            slots=slots,
            held=self.held.values(),
            programs=PROGRAMS,
        )
        await self.call.write(agent_pb2.ConnectRequest(hello=hello))
        self.tasks = [asyncio.create_task(self._obey()), asyncio.create_task(self._beat())]

    async def hang_up(self) -> None:
        """End the stream, as a death of the scheduler does."""
        self.call.cancel()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _obey(self) -> None:
        async for message in self.call:
            if message.WhichOneof("message") != "start":
                continue
            start = message.start
            self.held[start.lease_id] = agent_pb2.HeldSlot(slot_key=start.slot_key, lease_id=start.lease_id, epoch=start.epoch)
            started = agent_pb2.Started(lease_id=start.lease_id, epoch=start.epoch, pid=1)
            await self.call.write(agent_pb2.ConnectRequest(started=started))
            await self.starts.put(start)

    async def _beat(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(5)
            number += 1
            await self.call.write(agent_pb2.ConnectRequest(beat=agent_pb2.Beat(number=number, held=self.held.values())))


async def held_tokens(starts: asyncio.Queue[agent_pb2.Start], count: int) -> list[tuple[str, worker_pb2.LeaseToken]]:
    """Return job and credential of so many started workers."""
    told = [await starts.get() for _ in range(count)]
    return [(start.job_id, worker_pb2.LeaseToken(lease_id=start.lease_id, epoch=start.epoch)) for start in told]


# ---------------------------------------------------------------------------------------------------------- the parts
def grant(repeats: int = 300) -> dict[str, float]:
    """Time the pure decision: 64 free slots of mixed memory, 500 waiting jobs in four overlapping lanes."""
    seconds = []
    for seed in range(repeats):
        dice = random.Random(seed)  # noqa: S311 a scene, not a secret
        slots = [
            Slot(
                slot_key=f"GPU-{number}#0",
                node_id=f"node{number // 4}",
                kind=Kind.GPU,
                memory_mib=dice.choice((8_000, 11_000, 24_000, 80_000)),
                programs=frozenset(PROGRAMS),
            )
            for number in range(64)
        ]
        lanes = {f"lane{number}": dice.sample(slots, 40) for number in range(4)}
        waiting = [
            WaitingJob(
                job_id=f"job{number}",
                sequence=number,
                session_id=f"session{number // 5}",
                lane=f"lane{dice.randrange(4)}",
                program=dice.choice(PROGRAMS),
                gpu_memory_min_mib=dice.choice((3_814, 7_629, 10_490, 40_000)),
                cpu_memory_min_mib=1_536,
                indefinite=dice.random() < 0.7,
                priority=dice.choice((0, 0, 0, 50, 100)),
            )
            for number in range(500)
        ]
        began = time.perf_counter()
        schedule(waiting, lanes)
        seconds.append(time.perf_counter() - began)
    return {"grant_p50_ms": 1e3 * float(np.median(seconds)), "grant_max_ms": 1e3 * max(seconds)}


async def load(folder: Path, sessions: int, per_second: float, minutes: float, watchers: int) -> dict[str, float]:
    """Register, claim and commit at a steady rate over many sessions, with many watchers following the events."""
    scheduler = Running(folder)
    await scheduler.start()
    movies = _movies(folder)
    starts: asyncio.Queue[agent_pb2.Start] = asyncio.Queue()
    nodes = [Node(scheduler, f"node{number}", 16, starts) for number in range(-(-sessions // 16))]
    for node in nodes:
        await node.dial()
    names = [await scheduler.create(f"grid{number}", movies) for number in range(sessions)]
    tokens = await held_tokens(starts, sessions)
    by_session = {job_id.split("-preprocess-")[0]: token for job_id, token in tokens}
    following = await _start_watchers(scheduler, watchers)
    await asyncio.sleep(2)  # until all of them follow
    claims: list[float] = []
    commits: list[float] = []
    total = int(per_second * 60 * minutes)
    cpu = scheduler.cpu_seconds()
    began = time.perf_counter()
    calls = []
    for number in range(total):
        due = began + number / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        session = names[number % sessions]
        calls.append(asyncio.create_task(_one_exposure(scheduler, session, by_session[session], number, due, claims, commits)))
        if number % 250 == 0:
            _progress(f"load: {number} of {total} exposures")
    await asyncio.gather(*calls)
    wall = time.perf_counter() - began
    cpu = scheduler.cpu_seconds() - cpu
    done = sum([(await scheduler.sessions.GetSession(session_pb2.GetSessionRequest(session=one))).counts.done for one in names])
    assert done == total, f"{done} of {total} exposures are done"
    memory = scheduler.resident_mib()
    following.terminate()
    watched, _ = await following.communicate()
    for node in nodes:
        await node.hang_up()
    await scheduler.stop()
    return {
        "load_sessions": sessions,
        "load_exposures": total,
        "load_per_second": total / wall,
        **_quantiles("claim", claims),
        **_quantiles("commit", commits),
        **json.loads(watched),
        "load_cpu_ms_per_exposure": 1e3 * cpu / total,
        "load_rss_mib": memory,
    }


async def _one_exposure(
    scheduler: Running,
    session: str,
    token: worker_pb2.LeaseToken,
    number: int,
    due: float,
    claims: list[float],
    commits: list[float],
) -> None:
    file = exposure_pb2.MovieFile(
        relative_path=f"square{number // 100}/movie{number}.tiff", size_bytes=600_000_000, modified_ns=1, frame_count=50
    )

    async def register() -> AsyncIterator[exposure_pb2.RegisterExposuresRequest]:
        yield exposure_pb2.RegisterExposuresRequest(session_id=session, file=file)

    async for _ in scheduler.exposures.RegisterExposures(register(), timeout=60):
        pass
    due = max(due, time.perf_counter())
    claim = await scheduler.workers.ClaimExposures(
        worker_pb2.ClaimExposuresRequest(lease=token, max_count=1, wait_seconds=30, request_id=new_request_id()), timeout=60
    )
    claims.append(time.perf_counter() - due)
    await asyncio.sleep(random.random() * 2)  # noqa: S311 the work, of no length in particular
    due = time.perf_counter()
    request = worker_pb2.CommitExposureRequest(
        request_id=new_request_id(), lease=token, attempt_id=claim.claims[0].attempt_id, manifest_sha256="0" * 64
    )
    request.result.particle_count = 150
    request.result.particles, request.result.particle_table = "particles.mrcs", "particles.npy"
    await scheduler.workers.CommitExposure(request, timeout=60)
    commits.append(time.perf_counter() - due)


async def _start_watchers(scheduler: Running, count: int) -> Process:
    """Start a process of so many watchers, as in life: their work must not hold up the clock of claims and commits."""
    arguments = [__file__, "watch", "--watchers", str(count), "--address", scheduler.address]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def watch(address: str, watchers: int) -> dict[str, float]:
    """Follow every event on so many streams until SIGTERM."""
    channel = open_aio_channel(address)
    events: Any = event_pb2_grpc.EventServiceStub(channel)
    head = 0
    async for reply in events.WatchEvents(event_pb2.WatchEventsRequest(until_now=True)):
        head = max(head, *(event.sequence for event in reply.events))
    lags: list[float] = []
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    following = [asyncio.create_task(_watch(events, head, lags)) for _ in range(watchers)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await over.wait()
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    await channel.close()
    p95 = 1e3 * float(np.percentile(lags, 95)) if lags else 0.0
    return {"watchers": watchers, "watch_lag_p95_ms": p95, "watch_events": len(lags)}


async def _watch(events: Any, head: int, lags: list[float]) -> None:
    async for reply in events.WatchEvents(event_pb2.WatchEventsRequest(after_sequence=head)):
        now = time.time()
        lags += [now - event.time.ToNanoseconds() / 1e9 for event in reply.events]


async def million(folder: Path, exposures: int) -> dict[str, float]:
    """Start on a ledger of many exposures; ask for what a page asks; look at the memory."""
    scheduler = Running(folder)
    await scheduler.start()
    movies = _movies(folder)
    names = [await scheduler.create(f"grid{number}", movies) for number in range(100)]
    await scheduler.stop()
    _progress(f"million: writing {exposures} exposures")
    _fill(folder / "ledger.sqlite", names, exposures)
    started = await scheduler.start()
    began = time.perf_counter()
    await scheduler.exposures.ListExposures(exposure_pb2.ListExposuresRequest(session=names[50], page_size=500), timeout=60)
    page = time.perf_counter() - began
    began = time.perf_counter()
    await scheduler.sessions.ListSessions(session_pb2.ListSessionsRequest(page_size=100), timeout=60)
    listed = time.perf_counter() - began
    memory = scheduler.resident_mib()
    await scheduler.stop()
    return {
        "million_exposures": exposures,
        "million_start_seconds": started,
        "million_page_ms": 1e3 * page,
        "million_sessions_ms": 1e3 * listed,
        "million_rss_mib": memory,
        "million_ledger_mib": (folder / "ledger.sqlite").stat().st_size / 2**20,
    }


def _fill(ledger: Path, names: Sequence[str], exposures: int) -> None:
    engine = create_engine(f"sqlite:///{ledger}")
    result = exposure_pb2.ExposureResult(particle_count=150, folder="exposures/x").SerializeToString()
    per_session = exposures // len(names)
    with engine.begin() as connection:
        for session in names:
            rows = [
                {
                    "exposure_id": f"{session}-{number}",
                    "session_id": session,
                    "number": number,
                    "relative_path": f"square{number // 100}/movie{number}.tiff",
                    "generation": 1,
                    "state": "DONE",
                    "result": result,
                    "block_sequence": number,
                    "block_particles": 150,
                }
                for number in range(1, per_session + 1)
            ]
            connection.execute(insert(tables.exposure), rows)
            where = tables.session.c.session_id == session
            counts = {"found": per_session, "done": per_session, "particles": 150 * per_session}
            connection.execute(tables.session.update().where(where).values(block_sequence=per_session, **counts))
    engine.dispose()


async def restart(folder: Path, leases: int = 64) -> dict[str, float]:
    """Kill -9 the scheduler while it has given out 64 leases; time until every one is known again, unchanged."""
    scheduler = Running(folder)
    await scheduler.start()
    movies = _movies(folder)
    starts: asyncio.Queue[agent_pb2.Start] = asyncio.Queue()
    nodes = [Node(scheduler, f"node{number}", 4, starts) for number in range(leases // 4)]
    for node in nodes:
        await node.dial()
    for number in range(leases):
        await scheduler.create(f"grid{number}", movies)
    await held_tokens(starts, leases)
    before = await _held(scheduler)
    for node in nodes:
        await node.hang_up()
    began = time.perf_counter()
    await scheduler.stop(signal.SIGKILL)
    await scheduler.start()
    await asyncio.gather(*(node.dial() for node in nodes))
    while True:
        reply = await scheduler.resources.ListNodes(scheduler_pb2.ListNodesRequest())
        up = [node for node in reply.nodes if node.state == scheduler_pb2.Node.STATE_UP]
        after = await _held(scheduler)
        if len(up) == len(nodes) and len(after) == leases and starts.empty():
            break
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - began
    for node in nodes:
        await node.hang_up()
    await scheduler.stop()
    return {"restart_leases": leases, "restart_seconds": seconds, "restart_jobs_restarted": len(set(after) - set(before))}


async def _held(scheduler: Running) -> list[tuple[str, int]]:
    reply = await scheduler.resources.ListNodes(scheduler_pb2.ListNodesRequest())
    slots = [slot for node in reply.nodes for slot in node.slots if slot.HasField("lease")]
    return [(slot.slot_key, slot.lease.epoch) for slot in slots if slot.lease.state == scheduler_pb2.Lease.STATE_HELD]


async def frozen(folder: Path) -> dict[str, float]:
    """Freeze a real agent (SIGSTOP: its connection stays open); time until the scheduler says that it is silent."""
    scheduler = Running(folder)
    await scheduler.start()
    program = [sys.executable, "-m", "frazil.agent", "--scheduler", scheduler.address, "--node-id", "frozen"]
    program += ["--cpu-slots", "1", "--lock-dir", str(folder / "locks")]
    with (folder / "agent.log").open("ab") as log:
        agent = await asyncio.create_subprocess_exec(*program, stderr=log)
    await _state(scheduler, scheduler_pb2.Node.STATE_UP)
    agent.send_signal(signal.SIGSTOP)
    began = time.perf_counter()
    await _state(scheduler, scheduler_pb2.Node.STATE_SUSPECT)
    seconds = time.perf_counter() - began
    agent.kill()
    await agent.wait()
    await scheduler.stop()
    return {"frozen_noticed_seconds": seconds}


async def _state(scheduler: Running, state: int) -> None:
    while True:
        nodes = (await scheduler.resources.ListNodes(scheduler_pb2.ListNodesRequest())).nodes
        if any(node.node_id == "frozen" and node.state == state for node in nodes):
            return
        await asyncio.sleep(0.1)


# ------------------------------------------------------------------------------------------------------------- words
def _movies(folder: Path) -> Path:
    movies = folder.parent / "movies"
    movies.mkdir(exist_ok=True)
    return movies


def _quantiles(name: str, seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, (50, 99))
    return {f"{name}_p50_ms": 1e3 * float(p50), f"{name}_p99_ms": 1e3 * float(p99), f"{name}_max_ms": 1e3 * max(seconds)}


def _progress(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


async def measure(parts: Sequence[str], given: argparse.Namespace) -> dict[str, float]:
    """Run the parts, each on a ledger of its own."""
    figures: dict[str, float] = {}
    for part in parts:
        scratch = Path(tempfile.mkdtemp(prefix=f"frazil-{part}-", dir=given.folder))
        data = scratch / "data"
        data.mkdir()
        try:
            match part:
                case "grant":
                    figures |= grant()
                case "load":
                    figures |= await load(data, given.sessions, given.per_second, given.minutes, given.watchers)
                case "million":
                    figures |= await million(data, given.exposures)
                case "restart":
                    figures |= await restart(data)
                case "frozen":
                    figures |= await frozen(data)
        finally:
            shutil.rmtree(scratch)
    return figures


LIMITS = {
    "grant_max_ms": 10,
    "claim_p99_ms": 50,
    "commit_p99_ms": 100,
    "watch_lag_p95_ms": 1000,
    "million_start_seconds": 10,
    "million_page_ms": 200,
    "million_rss_mib": 1024,
    "restart_seconds": 15,
    "restart_jobs_restarted": 0,
    "frozen_noticed_seconds": 30,
}


def main() -> None:
    """Print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, "watch", []], metavar="PART", help=f"of {', '.join(PARTS)}; default all"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="of load (default 1)")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--per-second", type=float, default=28.0, help="exposures (default 28)")
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--exposures", type=int, default=1_000_000, help="of `million`")
    parser.add_argument("--address", help="of `watch`, which `load` starts")
    parser.add_argument("--folder", help="where to put the ledgers (default: the system's temporary folder)")
    given = parser.parse_args()
    if given.parts == ["watch"]:
        print(json.dumps(asyncio.run(watch(given.address, given.watchers))))
        return
    figures = asyncio.run(measure(given.parts or PARTS, given))
    for name, value in figures.items():
        limit = LIMITS.get(name)
        word = "" if limit is None else f"   limit {limit}" + ("" if value <= limit else "   MISSED")
        print(f"{name:<26}{value:>14,.2f}{word}")
    busy = {"cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)}
    print(json.dumps({**busy, **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    main()
