"""A scheduler with its ledger in memory, over the real wire: sessions that grow, files on disk, an event log."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from frazil.api.event.v1 import event_pb2, event_pb2_grpc
from frazil.api.exposure.v1 import exposure_pb2, exposure_pb2_grpc
from frazil.api.reconstruction.v1 import reconstruction_pb2, reconstruction_pb2_grpc
from frazil.api.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from frazil.api.session.v1 import session_pb2, session_pb2_grpc
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.server import RunningServer, start_server

Session = session_pb2.Session
Exposure = exposure_pb2.Exposure


class FakeScheduler:
    """The ledger and its servicers. Tests change the records and call `publish`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.sessions: dict[str, Any] = {}
        self.exposures: dict[str, list[Any]] = {}
        self.classes: dict[str, Any] = {}
        self.volumes: dict[str, Any] = {}
        self.nodes: list[Any] = []
        self.lanes = [scheduler_pb2.Lane(name="default", backend="node")]
        self.jobs: list[Any] = []
        self.waits: dict[str, Any] = {}
        self.events: list[Any] = []
        self.replies: dict[str, Any] = {}  # by request id
        self.calls: list[str] = []
        self.asked: list[Any] = []  # requests that are only kept
        self.heartbeat_seconds = 10.0
        self.cut_after: int | None = None  # break every event stream after so many events
        self.forgotten = 0  # the newest event that is no longer kept
        self.refuse_create: FrazilError | None = None
        self._grown = asyncio.Condition()
        self._ids = itertools.count(1)
        self._server: RunningServer | None = None

    async def start(self, address: str = "127.0.0.1:0") -> str:
        """Serve; returns the address."""
        self._server = await start_server(
            [
                partial(session_pb2_grpc.add_SessionServiceServicer_to_server, _Sessions(self)),
                partial(exposure_pb2_grpc.add_ExposureServiceServicer_to_server, _Exposures(self)),
                partial(reconstruction_pb2_grpc.add_ReconstructionServiceServicer_to_server, _Reconstruction(self)),
                partial(scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server, _Resources(self)),
                partial(event_pb2_grpc.add_EventServiceServicer_to_server, _Events(self)),
            ],
            [],
            address,
        )
        return f"127.0.0.1:{self._server.port}"

    async def stop(self) -> None:
        """Stop serving at once, as a killed process would; the ledger stays."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def publish(self, kind: str, *, session_id: str = "", time: float = 0.0, **body: Any) -> int:
        """Append an event whose body is the record as it is now; returns its sequence."""
        event = event_pb2.Event(sequence=len(self.events) + 1, session_id=session_id, kind=kind, **body)
        event.time.FromNanoseconds(int(time * 1e9))
        self.events.append(event)
        async with self._grown:
            self._grown.notify_all()
        return event.sequence

    async def wait_grown(self, seconds: float) -> bool:
        """Wait for an event; False when none came in time."""
        async with self._grown:
            try:
                await asyncio.wait_for(self._grown.wait(), seconds)
            except TimeoutError:
                return False
            return True

    # --------------------------------------------------------------------------------------------------------- records
    async def add_session(
        self, name: str, *, folder: str = "/movies/grid", state: str = "STATE_PAUSED", **parameters: Any
    ) -> Any:
        session_id = f"s{next(self._ids)}"
        session = Session(
            session_id=session_id,
            name=name,
            state=Session.State.Value(state),
            folder=str(self.data_dir / name),
            parameters=session_pb2.SessionParameters(
                movie_folder=folder, **{"particle_diameter_angstrom": 140.0, **parameters}
            ),
        )
        (self.data_dir / name).mkdir(parents=True, exist_ok=True)
        self.sessions[session_id] = session
        self.exposures[session_id] = []
        await self.publish("session_created", session_id=session_id, session=session)
        return session

    def find(self, session: str) -> Any:
        for record in self.sessions.values():
            if session in {record.session_id, record.name}:
                return self._counted(record)
        raise FrazilError("SESSION_NOT_FOUND", f"There is no session {session!r}.", kind=ErrorKind.NOT_FOUND)

    def find_exposure(self, exposure_id: str) -> Any:
        for exposures in self.exposures.values():
            for exposure in exposures:
                if exposure.exposure_id == exposure_id:
                    return exposure
        raise FrazilError("EXPOSURE_NOT_FOUND", "There is no such exposure.", kind=ErrorKind.NOT_FOUND)

    async def add_exposure(self, session_id: str, path: str, *, time: float = 0.0) -> Any:
        number = len(self.exposures[session_id]) + 1
        exposure = Exposure(
            exposure_id=f"{session_id}e{number}",
            session_id=session_id,
            number=number,
            file=exposure_pb2.MovieFile(relative_path=path, frame_count=50, width_px=5760, height_px=4092),
            state=Exposure.STATE_READY,
        )
        exposure.register_time.FromNanoseconds(int(time * 1e9))
        self.exposures[session_id].append(exposure)
        await self.publish("exposure_found", session_id=session_id, time=time, exposure=exposure)
        return exposure

    def _counted(self, session: Any) -> Any:
        states = [exposure.state for exposure in self.exposures[session.session_id]]
        counts = session.counts
        counts.found = len(states)
        counts.ready = states.count(Exposure.STATE_READY)
        counts.running = states.count(Exposure.STATE_RUNNING)
        counts.done = states.count(Exposure.STATE_DONE)
        counts.quarantined = states.count(Exposure.STATE_QUARANTINED)
        counts.particles = sum(exposure.result.particle_count for exposure in self.exposures[session.session_id])
        classes = self.classes.get(session.session_id)
        counts.particles_classified = classes.particle_count if classes else 0
        return session


class _Servicer:
    def __init__(self, ledger: FakeScheduler) -> None:
        self.ledger = ledger


def _keep(reply: Any) -> Any:
    """Return a method that keeps its request and answers `reply`."""

    async def method(self: _Servicer, request: Any, context: Any) -> Any:
        self.ledger.asked.append(request)
        return reply

    return method


class _Sessions(_Servicer, session_pb2_grpc.SessionServiceServicer):
    UpdateCompute = _keep(Session(name="grid7"))
    UpdateParameters = _keep(session_pb2.UpdateParametersResponse(sentence="2 exposures will be redone."))
    UpdateThresholds = _keep(Session(name="grid7"))
    SwitchPlan = _keep(Session(name="grid7"))
    StartStreamingJob = _keep(Session(name="grid7"))
    StopStreamingJob = _keep(Session(name="grid7"))
    CloneSession = _keep(Session(name="grid8"))
    DeleteSession = _keep(session_pb2.DeleteSessionResponse(folder="/data/grid7"))
    AdviseCompute = _keep(session_pb2.ComputeAdvice(slots=2, sentences=["Everything runs together."]))
    SaveProfile = _keep(session_pb2.Profile(name="krios"))
    ListProfiles = _keep(session_pb2.ListProfilesResponse(profiles=[session_pb2.Profile(name="krios")]))

    async def CreateSession(self, request: Any, context: Any) -> Any:
        ledger = self.ledger
        ledger.calls.append("CreateSession")
        if request.request_id in ledger.replies:
            return ledger.replies[request.request_id]
        if ledger.refuse_create is not None:
            raise ledger.refuse_create
        if any(session.name == request.session.name for session in ledger.sessions.values()):
            raise FrazilError(
                "SESSION_EXISTS",
                f"There is already a session {request.session.name!r}: choose another name.",
                kind=ErrorKind.ALREADY_EXISTS,
                metadata={"field": "name"},
            )
        session = await ledger.add_session(request.session.name)
        session.parameters.CopyFrom(request.session.parameters)
        session.compute.CopyFrom(request.session.compute)
        ledger.replies[request.request_id] = session
        return session

    async def GetSession(self, request: Any, context: Any) -> Any:
        return self.ledger.find(request.session)

    async def ListSessions(self, request: Any, context: Any) -> Any:
        sessions = [self.ledger.find(session_id) for session_id in reversed(self.ledger.sessions)]
        return session_pb2.ListSessionsResponse(sessions=sessions)

    async def StartSession(self, request: Any, context: Any) -> Any:
        return await self._change(request, Session.STATE_RUNNING, "session_started")

    async def PauseSession(self, request: Any, context: Any) -> Any:
        return await self._change(request, Session.STATE_PAUSED, "session_paused")

    async def CompleteSession(self, request: Any, context: Any) -> Any:
        return await self._change(request, Session.STATE_COMPLETING, "session_completing")

    async def _change(self, request: Any, state: Any, kind: str) -> Any:
        session = self.ledger.find(request.session)
        self.ledger.calls.append(kind)
        session.state = state
        await self.ledger.publish(kind, session_id=session.session_id, session=session)
        return session


class _Exposures(_Servicer, exposure_pb2_grpc.ExposureServiceServicer):
    CurateExposures = _keep(exposure_pb2.CurateExposuresResponse())

    async def ListExposures(self, request: Any, context: Any) -> Any:
        session = self.ledger.find(request.session)
        exposures = self.ledger.exposures[session.session_id]
        ordered = exposures[::-1] if request.newest_first else exposures
        start = int(request.page_token or 0)
        page = ordered[start : start + (request.page_size or 200)]
        following = start + len(page)
        token = str(following) if following < len(ordered) else ""
        return exposure_pb2.ListExposuresResponse(exposures=page, next_page_token=token)

    async def GetExposure(self, request: Any, context: Any) -> Any:
        return self.ledger.find_exposure(request.exposure_id)

    async def RetryQuarantined(self, request: Any, context: Any) -> Any:
        session = self.ledger.find(request.session)
        count = 0
        for exposure in self.ledger.exposures[session.session_id]:
            if exposure.state == Exposure.STATE_QUARANTINED:
                exposure.state, exposure.failure, count = Exposure.STATE_READY, "", count + 1
                await self.ledger.publish("exposure_ready", session_id=session.session_id, exposure=exposure)
        return exposure_pb2.RetryQuarantinedResponse(count=count)


class _Reconstruction(_Servicer, reconstruction_pb2_grpc.ReconstructionServiceServicer):
    SelectClasses = _keep(reconstruction_pb2.SelectClassesResponse())
    ResetClasses = _keep(reconstruction_pb2.ResetClassesResponse())

    async def GetClassAverages(self, request: Any, context: Any) -> Any:
        session = self.ledger.find(request.session)
        if session.session_id not in self.ledger.classes:
            raise FrazilError("CLASSES_NOT_FOUND", "There are no classes yet.", kind=ErrorKind.NOT_FOUND)
        return self.ledger.classes[session.session_id]

    async def GetVolume(self, request: Any, context: Any) -> Any:
        session = self.ledger.find(request.session)
        if session.session_id not in self.ledger.volumes:
            raise FrazilError("VOLUME_MISSING", "There is no volume yet.", kind=ErrorKind.NOT_FOUND)
        return self.ledger.volumes[session.session_id]


class _Resources(_Servicer, scheduler_pb2_grpc.SchedulerServiceServicer):
    DrainGpu = _keep(scheduler_pb2.GpuSlot(drained="hot"))
    QuarantineGpu = _keep(scheduler_pb2.GpuSlot(quarantined="broken"))
    ClearGpu = _keep(scheduler_pb2.GpuSlot())
    CancelJob = _keep(scheduler_pb2.Job(job_id="j1"))
    KillJob = _keep(scheduler_pb2.Job(job_id="j1"))
    RequeueJob = _keep(scheduler_pb2.Job(job_id="j1"))

    async def ListNodes(self, request: Any, context: Any) -> Any:
        return scheduler_pb2.ListNodesResponse(nodes=self.ledger.nodes)

    async def ListLanes(self, request: Any, context: Any) -> Any:
        return scheduler_pb2.ListLanesResponse(lanes=self.ledger.lanes)

    async def ListJobs(self, request: Any, context: Any) -> Any:
        jobs = [job for job in self.ledger.jobs if request.session in {"", job.session_id}]
        return scheduler_pb2.ListJobsResponse(jobs=jobs)

    async def ExplainWait(self, request: Any, context: Any) -> Any:
        if request.job_id not in self.ledger.waits:
            raise FrazilError("JOB_NOT_FOUND", "There is no such job.", kind=ErrorKind.NOT_FOUND)
        return self.ledger.waits[request.job_id]


class _Events(_Servicer, event_pb2_grpc.EventServiceServicer):
    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        ledger = self.ledger
        wanted = ledger.find(request.session).session_id if request.session else ""
        place, sent = max(request.after_sequence, ledger.forgotten), 0
        if 0 < request.after_sequence < ledger.forgotten:
            raise FrazilError("EVENTS_FORGOTTEN", "They are no longer kept.", kind=ErrorKind.EXPIRED)
        while True:
            for event in ledger.events[place:]:
                place = event.sequence
                if not wanted or event.session_id in {"", wanted}:
                    yield event_pb2.WatchEventsResponse(events=[event])
                    sent += 1
                    if ledger.cut_after is not None and sent >= ledger.cut_after and not request.until_now:
                        raise FrazilError("QUEUE_FULL", "Read faster, then resume.", kind=ErrorKind.EXHAUSTED)
            if request.until_now:
                return
            if place >= len(ledger.events) and not await ledger.wait_grown(ledger.heartbeat_seconds):
                yield event_pb2.WatchEventsResponse()
