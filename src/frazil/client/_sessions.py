"""Sessions, their parameters and resources, and profiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from frazil.api.session.v1 import session_pb2
from frazil.api.session.v1.session_pb2 import (
    AttributeThreshold,
    ComputeAdvice,
    ComputeResources,
    Profile,
    Session,
    SessionParameters,
)
from frazil.client._connection import Connection


class SessionCalls(Connection):
    """What can be asked of sessions."""

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
