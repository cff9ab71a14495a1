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

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from frazil.api.event.v1.event_pb2 import Event, WatchEventsRequest
from frazil.api.event.v1.event_pb2_grpc import EventServiceStub
from frazil.api.exposure.v1.exposure_pb2 import (
    CurateExposuresRequest,
    Exposure,
    GetExposureRequest,
    ListExposuresRequest,
    Override,
    RetryQuarantinedRequest,
    TestExposureRequest,
    TestExposureResponse,
)
from frazil.api.exposure.v1.exposure_pb2_grpc import ExposureServiceStub
from frazil.api.reconstruction.v1.reconstruction_pb2 import (
    ClassAverages,
    ClassThresholds,
    GetClassAveragesRequest,
    GetVolumeRequest,
    ListParticleBlocksRequest,
    ListTemplatesRequest,
    ParticleBlock,
    ResetClassesRequest,
    SelectClassesRequest,
    SelectClassesResponse,
    Templates,
    Volume,
)
from frazil.api.reconstruction.v1.reconstruction_pb2_grpc import ReconstructionServiceStub
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.scheduler.v1.scheduler_pb2 import ExplainWaitResponse, GpuSlot, Job, Lane, Node
from frazil.api.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from frazil.api.session.v1 import session_pb2
from frazil.api.session.v1.session_pb2 import (
    AttributeThreshold,
    ComputeAdvice,
    ComputeResources,
    Profile,
    Session,
    SessionParameters,
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
        request = session_pb2.CreateSessionRequest(request_id=request_id or "", session=session)
        return self._change(self._sessions.CreateSession, request)

    def get_session(self, session: str) -> Session:
        """Return one session by identity or name."""
        return self._call(self._sessions.GetSession, session_pb2.GetSessionRequest(session=session))

    def sessions(self) -> Iterator[Session]:
        """Yield every session, newest first."""
        token = ""
        while True:
            reply = self._call(self._sessions.ListSessions, session_pb2.ListSessionsRequest(page_token=token))
            yield from reply.sessions
            token = reply.next_page_token
            if not token:
                return

    def start(self, session: str) -> Session:
        """Start or resume a session."""
        return self._change(self._sessions.StartSession, session_pb2.StartSessionRequest(session=session))

    def pause(self, session: str) -> Session:
        """Stop a session's jobs and release its slots; nothing is lost."""
        return self._change(self._sessions.PauseSession, session_pb2.PauseSessionRequest(session=session))

    def complete(self, session: str) -> Session:
        """Say that no more movies will come: what is queued is worked off, results become final."""
        return self._change(self._sessions.CompleteSession, session_pb2.CompleteSessionRequest(session=session))

    def clone_session(self, session: str, name: str, *, movie_folder: str = "") -> Session:
        """Create a session with the values of another; `movie_folder` empty means the same folder."""
        request = session_pb2.CloneSessionRequest(session=session, name=name, movie_folder=movie_folder)
        return self._change(self._sessions.CloneSession, request)

    def delete_session(self, session: str, *, delete_results: bool = False) -> session_pb2.DeleteSessionResponse:
        """Forget a session that is paused or completed; its results stay on disk unless they are to go too."""
        request = session_pb2.DeleteSessionRequest(session=session, delete_results=delete_results)
        return self._change(self._sessions.DeleteSession, request)

    def update_parameters(
        self,
        session: str,
        parameters: SessionParameters,
        *,
        new_exposures_only: bool = False,
        redo_from: str = "",
        dry_run: bool = False,
    ) -> session_pb2.UpdateParametersResponse:
        """Change all of a session's parameters; what is stale is redone from the first stage that needs it, and no other."""
        request = session_pb2.UpdateParametersRequest(
            session=session,
            parameters=parameters,
            new_exposures_only=new_exposures_only,
            redo_from=redo_from,
            dry_run=dry_run,
        )
        return self._change(self._sessions.UpdateParameters, request)

    def set_thresholds(self, session: str, thresholds: Sequence[AttributeThreshold]) -> Session:
        """Set all the intervals that exposures' attributes must lie in, or their particles are not used."""
        request = session_pb2.UpdateThresholdsRequest(session=session, thresholds=thresholds)
        return self._change(self._sessions.UpdateThresholds, request)

    # -------------------------------------------------------------------------------------------- a session's resources
    def update_compute(self, session: str, compute: ComputeResources, *, now: bool = False) -> Session:
        """Change all of a session's compute resources: from its next start on, or now."""
        request = session_pb2.UpdateComputeRequest(session=session, compute=compute, now=now)
        return self._change(self._sessions.UpdateCompute, request)

    def switch_plan(self, session: str, jobs: Mapping[str, int]) -> Session:
        """Hand slots over inside a session: how many jobs of which type are to run. Empty cancels the one under way."""
        return self._change(self._sessions.SwitchPlan, session_pb2.SwitchPlanRequest(session=session, jobs=jobs))

    def start_streaming_job(self, session: str, job_type: str) -> Session:
        """Let a streaming job enter the queue."""
        request = session_pb2.StartStreamingJobRequest(session=session, job_type=job_type)
        return self._change(self._sessions.StartStreamingJob, request)

    def stop_streaming_job(self, session: str, job_type: str) -> Session:
        """Stop a streaming job at a checkpoint."""
        request = session_pb2.StopStreamingJobRequest(session=session, job_type=job_type)
        return self._change(self._sessions.StopStreamingJob, request)

    def advise_compute(
        self, session: str = "", *, parameters: SessionParameters | None = None, compute: ComputeResources | None = None
    ) -> ComputeAdvice:
        """Say what would run together and what would wait; what is not given is the session's."""
        request = session_pb2.AdviseComputeRequest(session=session, parameters=parameters, compute=compute)
        return self._call(self._sessions.AdviseCompute, request)

    # --------------------------------------------------------------------------------------------------------- profiles
    def profiles(self) -> Sequence[Profile]:
        """Return the configuration profiles."""
        return self._call(self._sessions.ListProfiles, session_pb2.ListProfilesRequest()).profiles

    def save_profile(self, profile: Profile, *, session: str = "") -> Profile:
        """Save a configuration profile, with the values of `session` if one is named."""
        return self._change(self._sessions.SaveProfile, session_pb2.SaveProfileRequest(profile=profile, session=session))

    def delete_profile(self, name: str) -> None:
        """Delete a configuration profile."""
        self._change(self._sessions.DeleteProfile, session_pb2.DeleteProfileRequest(name=name))

    def apply_profile(self, profile: str, session: str) -> Session:
        """Give a session that is not running the values of a configuration profile."""
        return self._change(self._sessions.ApplyProfile, session_pb2.ApplyProfileRequest(profile=profile, session=session))

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
        return self._change(self._exposures.RetryQuarantined, RetryQuarantinedRequest(session=session)).count

    def curate(self, session: str, exposure_ids: Sequence[str], override: Override.ValueType) -> Sequence[Exposure]:
        """Reject or accept exposures by hand, or let thresholds decide again."""
        request = CurateExposuresRequest(session=session, exposure_ids=exposure_ids, override=override)
        return self._change(self._exposures.CurateExposures, request).exposures

    def test_exposure(self, exposure_id: str, parameters: SessionParameters) -> TestExposureResponse:
        """Process one exposure with other parameters, as an auxiliary job, into a folder of its own."""
        request = TestExposureRequest(exposure_id=exposure_id, parameters=parameters)
        return self._change(self._exposures.TestExposure, request)

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

    def select_classes(
        self,
        session: str,
        *,
        select: Sequence[int] = (),
        exclude: Sequence[int] = (),
        release: Sequence[int] = (),
        release_all: bool = False,
        thresholds: ClassThresholds | None = None,
        all_particles: bool = False,
    ) -> SelectClassesResponse:
        """Choose 2D classes by number and by thresholds; from then on 3D takes only particles of selected ones.

        `release` lets thresholds and ranking decide on a class again; `all_particles` lets 3D take every particle after all.
        """
        request = SelectClassesRequest(
            session=session,
            select=select,
            exclude=exclude,
            release=release,
            release_all=release_all,
            thresholds=thresholds,
            all_particles=all_particles,
        )
        return self._change(self._reconstruction.SelectClasses, request)

    def reset_classes(self, session: str, *, clear: bool = False) -> None:
        """Begin 2D classification anew, or stop it and take its classes away."""
        self._change(self._reconstruction.ResetClasses, ResetClassesRequest(session=session, clear=clear))

    def templates(self, session: str = "") -> Sequence[Templates]:
        """Return templates for the picker, of one session or of all, the newest first."""
        return self._call(self._reconstruction.ListTemplates, ListTemplatesRequest(session=session)).templates

    def choose_templates(
        self, session: str, job_id: str, numbers: Sequence[int] = (), *, new_exposures_only: bool = False
    ) -> Session:
        """Let a session pick with the templates of a job: those with these numbers, else those that the job suggests.

        What is picked already is picked anew, unless `new_exposures_only`.
        """
        request = session_pb2.ChooseTemplatesRequest(
            session=session, job_id=job_id, numbers=numbers, new_exposures_only=new_exposures_only
        )
        return self._change(self._sessions.ChooseTemplates, request)

    def volume(self, session: str, kind: Volume.Kind.ValueType = Volume.KIND_UNSPECIFIED) -> Volume | None:
        """Return the newest volume of a session, of a kind or of any; None before the first."""
        try:
            return self._call(self._reconstruction.GetVolume, GetVolumeRequest(session=session, kind=kind))
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

    # ------------------------------------------------------------------------------------------------ nodes and lanes
    def nodes(self) -> Sequence[Node]:
        """Return the nodes with their slots and who holds them."""
        return self._call(self._scheduler.ListNodes, scheduler_pb2.ListNodesRequest()).nodes

    def fence_node(self, node_id: str, attested_by: str) -> Node:
        """Attest that every process on a lost node is dead: its leases are freed without proof from the node."""
        request = scheduler_pb2.FenceNodeRequest(node_id=node_id, attested_by=attested_by)
        return self._change(self._scheduler.FenceNode, request)

    def drain_gpu(self, slot_key: str, reason: str) -> GpuSlot:
        """Give a GPU to nobody else once its present jobs have ended."""
        return self._change(self._scheduler.DrainGpu, scheduler_pb2.DrainGpuRequest(slot_key=slot_key, reason=reason))

    def quarantine_gpu(self, slot_key: str, reason: str) -> GpuSlot:
        """Take a GPU out of service; its jobs go on elsewhere."""
        request = scheduler_pb2.QuarantineGpuRequest(slot_key=slot_key, reason=reason)
        return self._change(self._scheduler.QuarantineGpu, request)

    def clear_gpu(self, slot_key: str, reason: str) -> GpuSlot:
        """Put a drained or quarantined GPU back into service."""
        return self._change(self._scheduler.ClearGpu, scheduler_pb2.ClearGpuRequest(slot_key=slot_key, reason=reason))

    def lanes(self) -> Sequence[Lane]:
        """Return the lanes."""
        return self._call(self._scheduler.ListLanes, scheduler_pb2.ListLanesRequest()).lanes

    def create_lane(self, name: str, backend: str, options: Mapping[str, Any]) -> Lane:
        """Add a lane; `options` are those of the backend, as in frazil.toml."""
        lane = Lane(name=name, backend=backend, options_json=json.dumps(options))
        return self._change(self._scheduler.CreateLane, scheduler_pb2.CreateLaneRequest(lane=lane))

    def update_lane(self, name: str, options: Mapping[str, Any]) -> Lane:
        """Change a lane's options, all of them."""
        lane = Lane(name=name, options_json=json.dumps(options))
        return self._change(self._scheduler.UpdateLane, scheduler_pb2.UpdateLaneRequest(lane=lane))

    def delete_lane(self, name: str) -> None:
        """Remove a lane that nobody uses."""
        self._change(self._scheduler.DeleteLane, scheduler_pb2.DeleteLaneRequest(name=name))

    # ------------------------------------------------------------------------------------------------------------- jobs
    def jobs(self, session: str = "", *, active_only: bool = False) -> Sequence[Job]:
        """Return jobs in queue order, of one session or of all."""
        request = scheduler_pb2.ListJobsRequest(session=session, active_only=active_only)
        return self._call(self._scheduler.ListJobs, request).jobs

    def get_job(self, job_id: str) -> Job:
        """Return one job."""
        return self._call(self._scheduler.GetJob, scheduler_pb2.GetJobRequest(job_id=job_id))

    def explain_wait(self, job_id: str) -> ExplainWaitResponse:
        """Say why a job waits, who blocks it and what can be done."""
        return self._call(self._scheduler.ExplainWait, scheduler_pb2.ExplainWaitRequest(job_id=job_id))

    def submit_job(
        self,
        session: str,
        job_type: str,
        *,
        lane: str = "",
        gpus: Sequence[str] = (),
        priority: int | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Job:
        """Queue an auxiliary job of a session."""
        request = scheduler_pb2.SubmitJobRequest(
            session=session, job_type=job_type, lane=lane, gpus=gpus, priority=priority, parameters=parameters
        )
        return self._change(self._scheduler.SubmitJob, request)

    def set_job_priority(self, job_id: str, priority: int) -> Job:
        """Change a job's priority, 0 to 100."""
        request = scheduler_pb2.SetJobPriorityRequest(job_id=job_id, priority=priority)
        return self._change(self._scheduler.SetJobPriority, request)

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; its slot is released once its worker is proven dead."""
        return self._change(self._scheduler.CancelJob, scheduler_pb2.CancelJobRequest(job_id=job_id))

    def kill_job(self, job_id: str) -> Job:
        """End a job's worker at once, without a checkpoint; the job is cancelled."""
        return self._change(self._scheduler.KillJob, scheduler_pb2.KillJobRequest(job_id=job_id))

    def requeue_job(self, job_id: str) -> Job:
        """Put a job back into the queue."""
        return self._change(self._scheduler.RequeueJob, scheduler_pb2.RequeueJobRequest(job_id=job_id))

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

        Raises FrazilError EVENTS_FORGOTTEN when events after `after` are no longer kept: read the records anew, then follow
        after `int(error.metadata["newest_sequence"])`. `after=0` begins with the oldest that is kept.
        """
        backoff, ceiling = _EVENT_BACKOFF_SECONDS
        wait, silent_since = backoff, time.monotonic()
        while True:
            request = WatchEventsRequest(after_sequence=after, session=session, until_now=until_now)
            stream = self._events.WatchEvents(request)
            try:
                for response in stream:
                    wait, silent_since = backoff, time.monotonic()
                    for event in response.events:  # none in a heartbeat
                        if event.sequence > after:
                            yield event
                            after = event.sequence
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

    def _change(self, method: Callable[..., Reply], request: Any) -> Reply:
        """Call a method that changes something: repeats carry one request id, so that nothing happens twice."""
        request.request_id = request.request_id or new_request_id()
        return self._call(method, request)
