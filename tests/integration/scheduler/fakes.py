"""A scripted agent and helpers that speak to a real scheduler over gRPC."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from frazil.api.agent.v1 import agent_pb2, agent_pb2_grpc
from frazil.api.event.v1 import event_pb2, event_pb2_grpc
from frazil.api.exposure.v1 import exposure_pb2, exposure_pb2_grpc
from frazil.api.reconstruction.v1 import reconstruction_pb2_grpc
from frazil.api.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from frazil.api.session.v1 import session_pb2, session_pb2_grpc
from frazil.api.worker.v1 import worker_pb2, worker_pb2_grpc
from frazil.rpc.client import new_request_id, open_aio_channel

PROGRAMS = ("frazil-preprocess", "frazil-reconstruct")
WAIT_SECONDS = 20.0


class Client:
    """Every stub on one channel."""

    def __init__(self, address: str) -> None:
        self.channel = open_aio_channel(address)
        self.sessions: Any = session_pb2_grpc.SessionServiceStub(self.channel)
        self.exposures: Any = exposure_pb2_grpc.ExposureServiceStub(self.channel)
        self.scheduler: Any = scheduler_pb2_grpc.SchedulerServiceStub(self.channel)
        self.agents: Any = agent_pb2_grpc.AgentServiceStub(self.channel)
        self.workers: Any = worker_pb2_grpc.WorkerServiceStub(self.channel)
        self.reconstruction: Any = reconstruction_pb2_grpc.ReconstructionServiceStub(self.channel)
        self.events: Any = event_pb2_grpc.EventServiceStub(self.channel)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def create(
        self, movies: Path, name: str = "grid1", *, until: str = "preprocess", workers: int = 1
    ) -> session_pb2.Session:
        """Create a session."""
        wanted = session_pb2.Session(name=name)
        wanted.parameters.movie_folder = str(movies)
        wanted.parameters.particle_diameter_angstrom = 140
        wanted.parameters.until = until
        wanted.compute.preprocessing_workers = workers
        return await self.sessions.CreateSession(session_pb2.CreateSessionRequest(request_id=new_request_id(), session=wanted))

    async def start(self, session: str) -> session_pb2.Session:
        """Start a session."""
        return await self.sessions.StartSession(session_pb2.StartSessionRequest(request_id=new_request_id(), session=session))

    async def pause(self, session: str) -> session_pb2.Session:
        """Pause a session."""
        return await self.sessions.PauseSession(session_pb2.PauseSessionRequest(request_id=new_request_id(), session=session))

    async def complete(self, session: str) -> session_pb2.Session:
        """Complete a session."""
        return await self.sessions.CompleteSession(
            session_pb2.CompleteSessionRequest(request_id=new_request_id(), session=session)
        )

    async def get(self, session: str) -> session_pb2.Session:
        """Return a session."""
        return await self.sessions.GetSession(session_pb2.GetSessionRequest(session=session))

    async def register(self, session_id: str, *paths: str) -> list[exposure_pb2.RegisterExposuresResponse]:
        """Register movies."""

        async def requests() -> AsyncIterator[exposure_pb2.RegisterExposuresRequest]:
            for path in paths:
                file = exposure_pb2.MovieFile(
                    relative_path=path, size_bytes=1000, modified_ns=1, frame_count=4, width_px=64, height_px=64
                )
                yield exposure_pb2.RegisterExposuresRequest(session_id=session_id, file=file)

        return [reply async for reply in self.exposures.RegisterExposures(requests())]

    async def jobs(self, session: str = "") -> list[scheduler_pb2.Job]:
        """List jobs."""
        reply = await self.scheduler.ListJobs(scheduler_pb2.ListJobsRequest(session=session))
        return list(reply.jobs)

    async def claim(self, token: worker_pb2.LeaseToken, count: int = 1, wait: float = 5.0) -> worker_pb2.ClaimExposuresResponse:
        """Claim exposures."""
        return await self.workers.ClaimExposures(
            worker_pb2.ClaimExposuresRequest(lease=token, max_count=count, wait_seconds=wait, request_id=new_request_id())
        )

    async def commit(self, token: worker_pb2.LeaseToken, claim: worker_pb2.Claim, particles: int = 5) -> int:
        """Commit a claim; return the block's sequence."""
        reply = await self.workers.CommitExposure(commit_request(token, claim, particles))
        return int(reply.particle_block_sequence)

    async def history(self, after: int = 0, session: str = "") -> list[event_pb2.Event]:
        """Return all events so far."""
        request = event_pb2.WatchEventsRequest(after_sequence=after, session=session, until_now=True)
        return [event async for reply in self.events.WatchEvents(request) for event in reply.events]

    async def until(self, session: str, state: str, *, seconds: float = WAIT_SECONDS) -> session_pb2.Session:
        """Follow the events until a session is in a state."""
        number = session_pb2.Session.State.Value(f"STATE_{state}")
        head = (await self.history())[-1].sequence
        now = await self.get(session)
        if now.state == number:
            return now
        async with asyncio.timeout(seconds):
            call = self.events.WatchEvents(event_pb2.WatchEventsRequest(session=session, after_sequence=head))
            async for reply in call:
                for event in reply.events:
                    if event.WhichOneof("body") == "session" and event.session.state == number:
                        call.cancel()
                        return event.session
        raise AssertionError("the stream ended")


def commit_request(
    token: worker_pb2.LeaseToken, claim: worker_pb2.Claim, particles: int = 5
) -> worker_pb2.CommitExposureRequest:
    """Return a commit of a claim."""
    request = worker_pb2.CommitExposureRequest(
        request_id=new_request_id(), lease=token, attempt_id=claim.attempt_id, manifest_sha256="0" * 64
    )
    request.result.particle_count = particles
    request.result.particles = "particles.mrcs"
    request.result.particle_table = "particles.npy"
    return request


class Agent:
    """An agent whose every move is scripted."""

    def __init__(
        self, client: Client, node_id: str = "node", slots: int = 2, boot_id: str = "boot", *, memory_mib: int = 24_000
    ) -> None:
        self._client = client
        self.node_id = node_id
        self.boot_id = boot_id
        self.memory_mib = memory_mib
        self.slots = [f"GPU-{node_id}-{number}#0" for number in range(slots)]
        self.held: dict[str, agent_pb2.HeldSlot] = {}
        self.told: asyncio.Queue[agent_pb2.ConnectResponse] = asyncio.Queue()
        self._incarnations = itertools.count(1)

    async def dial(self) -> agent_pb2.Welcome:
        """Dial in, say Hello and return the Welcome."""
        self.call = self._client.agents.Connect()
        slots = [
            scheduler_pb2.GpuSlot(slot_key=key, kind=scheduler_pb2.GpuSlot.KIND_GPU, memory_mib=self.memory_mib)
            for key in self.slots
        ]
        hello = agent_pb2.Hello(
            node_id=self.node_id,
            boot_id=self.boot_id,
            incarnation=str(next(self._incarnations)),
            slots=slots,
            held=self.held.values(),
            programs=PROGRAMS,
        )
        await self.call.write(agent_pb2.ConnectRequest(hello=hello))
        self.told = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())
        return (await self.expect("welcome")).welcome

    async def _read(self) -> None:
        async for message in self.call:
            await self.told.put(message)

    async def hang_up(self) -> None:
        """End the stream."""
        self.call.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def expect(self, kind: str) -> agent_pb2.ConnectResponse:
        """Return the next message of a kind."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                message = await self.told.get()
                if message.WhichOneof("message") == kind:
                    return message

    async def start(self) -> worker_pb2.LeaseToken:
        """Await a Start, obey it, and return the worker's credential."""
        start = (await self.expect("start")).start
        self.held[start.lease_id] = agent_pb2.HeldSlot(slot_key=start.slot_key, lease_id=start.lease_id, epoch=start.epoch)
        await self.say(started=agent_pb2.Started(lease_id=start.lease_id, epoch=start.epoch, pid=1))
        return worker_pb2.LeaseToken(lease_id=start.lease_id, epoch=start.epoch)

    async def say(self, **message: Any) -> None:
        """Say something."""
        await self.call.write(agent_pb2.ConnectRequest(**message))

    async def end(self, token: worker_pb2.LeaseToken, code: int = 0, *, proof: bool = True) -> None:
        """Report a worker's end and, once asked, prove its slot free."""
        slot = self.held.pop(token.lease_id)
        await self.say(
            exited=agent_pb2.Exited(lease_id=token.lease_id, epoch=token.epoch, exit_code=code, log_tail="last words")
        )
        if proof:
            await self.expect("probe")
            await self.say(proved_free=agent_pb2.ProvedFree(slot_key=slot.slot_key, lease_id=token.lease_id, epoch=token.epoch))
