"""The typed, blocking client that a LIMS or a script imports: gRPC and the stubs, nothing else.

Every method returns the messages of `frazil.api` (documented in `protos/frazil/api/*/v1/*.proto`) and raises
`FrazilError`: `reason` is stable for programs, `sentence` is for people. Calls are repeated while the scheduler does not
answer, with one request id, so that a restart of the scheduler goes unnoticed and nothing happens twice.

    with Client("127.0.0.1:50051") as frazil:
        session = frazil.create_session("grid-7", SessionParameters(movie_folder="/data/grid7", particle_diameter_angstrom=140))
        frazil.start(session.name)
        for event in frazil.events(session.name, after=last_token):
            ...
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from frazil.api.event.v1.event_pb2 import Event, WatchEventsRequest
from frazil.api.event.v1.event_pb2_grpc import EventServiceStub
from frazil.api.exposure.v1.exposure_pb2 import Exposure, GetExposureRequest, ListExposuresRequest, RetryQuarantinedRequest
from frazil.api.exposure.v1.exposure_pb2_grpc import ExposureServiceStub
from frazil.api.reconstruction.v1.reconstruction_pb2 import (
    ClassAverages,
    GetClassAveragesRequest,
    ListParticleBlocksRequest,
    ParticleBlock,
)
from frazil.api.reconstruction.v1.reconstruction_pb2_grpc import ReconstructionServiceStub
from frazil.api.scheduler.v1.scheduler_pb2 import (
    CancelJobRequest,
    ClearGpuRequest,
    ExplainWaitRequest,
    ExplainWaitResponse,
    FenceNodeRequest,
    GetJobRequest,
    GpuSlot,
    Job,
    Lane,
    ListJobsRequest,
    ListLanesRequest,
    ListNodesRequest,
    Node,
    QuarantineGpuRequest,
)
from frazil.api.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from frazil.api.session.v1.session_pb2 import (
    CompleteSessionRequest,
    ComputeResources,
    CreateSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
    PauseSessionRequest,
    Session,
    SessionParameters,
    StartSessionRequest,
)
from frazil.api.session.v1.session_pb2_grpc import SessionServiceStub
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.client import call_until_answered, new_request_id, open_channel
from frazil.rpc.errors import from_rpc_error

DEFAULT_ADDRESS = "127.0.0.1:50051"
_EVENT_BACKOFF_SECONDS = (0.2, 5.0)
# A stream that ends so was cut by the network, a restart or an overflow of its queue: it goes on at the resume token.
_RESUMABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)

Reply = TypeVar("Reply")


class Client:
    """A connection to one scheduler; safe to use from several threads."""

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, deadline_seconds: float = 30.0, patience_seconds: float = 30.0
    ) -> None:
        """Connect lazily to `address` ("host:port").

        `deadline_seconds` bounds one call; `patience_seconds` is how long an unreachable scheduler is asked again
        before SCHEDULER_UNREACHABLE is raised.
        """
        self.address = address
        self._deadline_seconds = deadline_seconds
        self._patience_seconds = patience_seconds
        self._closed = False
        self._channel = open_channel(address)
        self._sessions = SessionServiceStub(self._channel)
        self._exposures = ExposureServiceStub(self._channel)
        self._reconstruction = ReconstructionServiceStub(self._channel)
        self._scheduler = SchedulerServiceStub(self._channel)
        self._events = EventServiceStub(self._channel)

    def __enter__(self) -> Client:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; running event streams end."""
        self._closed = True
        self._channel.close()

    # ------------------------------------------------------------------------------------------------------- sessions
    def create_session(
        self,
        name: str,
        parameters: SessionParameters,
        *,
        compute: ComputeResources | None = None,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Session:
        """Create a session in state PAUSED; raises ALREADY_EXISTS if another session has the name.

        Keep `request_id` over retries of your own (a crash of the LIMS): a repeat returns the first reply.
        """
        session = Session(name=name, parameters=parameters, compute=compute, labels=labels)
        return self._call(
            self._sessions.CreateSession, CreateSessionRequest(request_id=request_id or new_request_id(), session=session)
        )

    def get_session(self, session: str) -> Session:
        """Return one session by identity or name."""
        return self._call(self._sessions.GetSession, GetSessionRequest(session=session))

    def sessions(self) -> Iterator[Session]:
        """Yield every session, newest first."""
        token = ""
        while True:
            reply = self._call(self._sessions.ListSessions, ListSessionsRequest(page_token=token))
            yield from reply.sessions
            token = reply.next_page_token
            if not token:
                return

    def start(self, session: str) -> Session:
        """Start or resume a session."""
        return self._call(self._sessions.StartSession, StartSessionRequest(request_id=new_request_id(), session=session))

    def pause(self, session: str) -> Session:
        """Stop a session's jobs and release its slots; nothing is lost."""
        return self._call(self._sessions.PauseSession, PauseSessionRequest(request_id=new_request_id(), session=session))

    def complete(self, session: str) -> Session:
        """Say that no more movies will come: what is queued is worked off, results become final."""
        request = CompleteSessionRequest(request_id=new_request_id(), session=session)
        return self._call(self._sessions.CompleteSession, request)

    # ------------------------------------------------------------------------------------------------------ exposures
    def exposures(
        self, session: str, *, states: Sequence[Exposure.State.ValueType] = (), newest_first: bool = False
    ) -> Iterator[Exposure]:
        """Yield a session's exposures in order of their number, page by page; `states` empty means all."""
        token = ""
        while True:
            request = ListExposuresRequest(
                session=session, page_size=500, page_token=token, states=states, newest_first=newest_first
            )
            reply = self._call(self._exposures.ListExposures, request)
            yield from reply.exposures
            token = reply.next_page_token
            if not token:
                return

    def get_exposure(self, exposure_id: str) -> Exposure:
        """Return one exposure by identity."""
        return self._call(self._exposures.GetExposure, GetExposureRequest(exposure_id=exposure_id))

    def retry_quarantined(self, session: str) -> int:
        """Put a session's quarantined exposures back into the queue; returns how many."""
        request = RetryQuarantinedRequest(request_id=new_request_id(), session=session)
        return self._call(self._exposures.RetryQuarantined, request).count

    # -------------------------------------------------------------------------------------------------------- results
    def class_averages(self, session: str) -> ClassAverages | None:
        """Return the newest classification of a session; None before the first."""
        try:
            return self._call(self._reconstruction.GetClassAverages, GetClassAveragesRequest(session=session))
        except FrazilError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
        self.get_session(session)  # raises when it is the session that is not there
        return None

    def particle_blocks(self, session: str, *, after: int = 0) -> Iterator[ParticleBlock]:
        """Yield a session's particle blocks after a sequence number, page by page."""
        while True:
            request = ListParticleBlocksRequest(session=session, after_sequence=after)
            blocks = self._call(self._reconstruction.ListParticleBlocks, request).blocks
            if not blocks:
                return
            yield from blocks
            after = blocks[-1].sequence

    # ---------------------------------------------------------------------------------------------- resources and jobs
    def nodes(self) -> Sequence[Node]:
        """Return the nodes with their slots and who holds them."""
        return self._call(self._scheduler.ListNodes, ListNodesRequest()).nodes

    def lanes(self) -> Sequence[Lane]:
        """Return the lanes."""
        return self._call(self._scheduler.ListLanes, ListLanesRequest()).lanes

    def jobs(self, session: str = "", *, active_only: bool = False) -> Sequence[Job]:
        """Return jobs in queue order, of one session or of all."""
        return self._call(self._scheduler.ListJobs, ListJobsRequest(session=session, active_only=active_only)).jobs

    def get_job(self, job_id: str) -> Job:
        """Return one job."""
        return self._call(self._scheduler.GetJob, GetJobRequest(job_id=job_id))

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; its slot is released once its worker is proven dead."""
        return self._call(self._scheduler.CancelJob, CancelJobRequest(request_id=new_request_id(), job_id=job_id))

    def explain_wait(self, job_id: str) -> ExplainWaitResponse:
        """Say why a job waits, who blocks it and what can be done."""
        return self._call(self._scheduler.ExplainWait, ExplainWaitRequest(job_id=job_id))

    def quarantine_gpu(self, slot_key: str, reason: str) -> GpuSlot:
        """Take a GPU slot out of service."""
        request = QuarantineGpuRequest(request_id=new_request_id(), slot_key=slot_key, reason=reason)
        return self._call(self._scheduler.QuarantineGpu, request)

    def clear_gpu(self, slot_key: str, reason: str) -> GpuSlot:
        """Put a quarantined GPU slot back into service."""
        request = ClearGpuRequest(request_id=new_request_id(), slot_key=slot_key, reason=reason)
        return self._call(self._scheduler.ClearGpu, request)

    def fence_node(self, node_id: str, attested_by: str) -> Node:
        """Attest that every process on a lost node is dead: its leases are freed without proof from the node."""
        request = FenceNodeRequest(request_id=new_request_id(), node_id=node_id, attested_by=attested_by)
        return self._call(self._scheduler.FenceNode, request)

    # --------------------------------------------------------------------------------------------------------- events
    def events(
        self,
        session: str = "",
        *,
        after: int = 0,
        until_now: bool = False,
        patience_seconds: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[Event]:
        """Yield events after a sequence number, then go on live; every event once, in order, over any disconnect.

        The `sequence` of the last event that you have dealt with is the resume token: store it, pass it as `after` next
        time. `until_now` ends at the newest event. An unreachable scheduler is asked again for `patience_seconds`
        without a sign of life (None: for ever). Close the generator to stop.
        """
        backoff, ceiling = _EVENT_BACKOFF_SECONDS
        wait, silent_since = backoff, time.monotonic()
        while True:
            request = WatchEventsRequest(after_sequence=after, session=session, until_now=until_now)
            stream = self._events.WatchEvents(request)
            try:
                for response in stream:
                    wait, silent_since = backoff, time.monotonic()
                    if response.event.sequence > after:  # heartbeats have no sequence
                        yield response.event
                        after = response.event.sequence
                if until_now:
                    return
            except grpc.RpcError as error:
                if self._closed:
                    return
                silent = time.monotonic() - silent_since
                if error.code() not in _RESUMABLE or (patience_seconds is not None and silent > patience_seconds):
                    raise from_rpc_error(error) from error
            finally:
                stream.cancel()
            sleep(random.uniform(wait / 2, wait))  # noqa: S311 jitter, not a secret
            wait = min(ceiling, wait * 2)

    def _call(self, method: Callable[..., Reply], request: Any) -> Reply:
        give_up_at = time.monotonic() + self._patience_seconds
        return call_until_answered(
            method, request, deadline_seconds=self._deadline_seconds, give_up=lambda: time.monotonic() >= give_up_at
        )
