"""SessionService: the life of sessions, where their jobs run, and saved profiles."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import RowMapping

from frazil.api.session.v1 import session_pb2, session_pb2_grpc
from frazil_scheduler.domain import (
    advice,
    compute,
    deletion,
    jobs,
    parameters,
    profiles,
    sessions,
    streaming,
    switching,
    templates,
    validation,
)
from frazil_scheduler.hub import Hub
from frazil_scheduler.ledger.records import profile_record, session_record
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.servicers import page_size, page_start

Change = Callable[[Transaction, RowMapping], RowMapping]


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """See session.proto."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._creating = asyncio.Lock()  # one at a time: a name, its folder and its row belong together

    async def CreateSession(self, request: session_pb2.CreateSessionRequest, context: Any) -> session_pb2.Session:
        """Check everything a person set, then add the session and make its folder."""
        wanted = session_pb2.Session()
        wanted.CopyFrom(request.session)
        return await self._create(request, wanted)

    async def GetSession(self, request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
        """Return one session."""
        return await self._hub.store.look(lambda tx: session_record(sessions.require(tx, request.session)))

    async def ListSessions(self, request: session_pb2.ListSessionsRequest, context: Any) -> session_pb2.ListSessionsResponse:
        """List sessions, newest first."""
        size = page_size(request.page_size, 100, 1000)
        before = page_start(request.page_token)
        rows = await self._hub.store.look(lambda tx: sessions.page(tx, before, size))
        token = str(rows[-1]["number"]) if len(rows) == size and rows[-1]["number"] > 1 else ""
        return session_pb2.ListSessionsResponse(sessions=[session_record(row) for row in rows], next_page_token=token)

    async def StartSession(self, request: session_pb2.StartSessionRequest, context: Any) -> session_pb2.Session:
        """Start or resume a session, and say what will wait for as long as it runs."""
        return await self._change(request, lambda tx, row: sessions.start_checked(tx, self._hub.lanes, row))

    async def PauseSession(self, request: session_pb2.PauseSessionRequest, context: Any) -> session_pb2.Session:
        """Pause a session."""
        return await self._change(request, sessions.pause)

    async def CompleteSession(self, request: session_pb2.CompleteSessionRequest, context: Any) -> session_pb2.Session:
        """Complete a session."""
        return await self._change(request, sessions.complete)

    async def CloneSession(self, request: session_pb2.CloneSessionRequest, context: Any) -> session_pb2.Session:
        """Create a session with the values of another."""
        source = await self._hub.store.look(lambda tx: sessions.require(tx, request.session))
        record = session_record(source)
        wanted = session_pb2.Session(
            name=request.name, parameters=record.parameters, compute=compute.newest(source), labels=record.labels
        )
        wanted.parameters.movie_folder = request.movie_folder or wanted.parameters.movie_folder
        return await self._create(request, wanted)

    async def DeleteSession(self, request: session_pb2.DeleteSessionRequest, context: Any) -> session_pb2.DeleteSessionResponse:
        """Mark a session as being deleted; its rows, and its folder where asked for, go in the background."""
        known = await self._hub.store.look(lambda tx: tx.known_reply(request, session_pb2.DeleteSessionResponse))
        if known is not None:
            return known
        found = await self._hub.store.look(lambda tx: sessions.require(tx, request.session))
        if request.delete_results:
            folder = Path(found["folder"])
            await asyncio.to_thread(deletion.check_folder, folder, self._hub.data_dir, found["session_id"])

        def begin(tx: Transaction) -> session_pb2.DeleteSessionResponse:
            deletion.begin(tx, sessions.require(tx, found["session_id"]), delete_results=request.delete_results)
            return session_pb2.DeleteSessionResponse(folder=found["folder"], results_deleted=request.delete_results)

        return await self._hub.store.run(lambda tx: tx.once(request, session_pb2.DeleteSessionResponse, lambda: begin(tx)))

    async def UpdateCompute(self, request: session_pb2.UpdateComputeRequest, context: Any) -> session_pb2.Session:
        """Change where a session's jobs run."""
        wanted = session_pb2.ComputeResources()
        wanted.CopyFrom(request.compute)
        self._check_compute(wanted)

        def change(tx: Transaction, row: RowMapping) -> RowMapping:
            advice.refuse_hopeless(tx, self._hub.lanes, session_record(row).parameters, wanted, compute.streaming(row))
            return sessions.update_compute(tx, self._hub.lanes, row, wanted, now=request.now)

        return await self._change(request, change)

    async def SwitchPlan(self, request: session_pb2.SwitchPlanRequest, context: Any) -> session_pb2.Session:
        """Hand slots over inside a session, or give up the hand-over under way."""

        def change(tx: Transaction, row: RowMapping) -> RowMapping:
            if request.jobs:
                switching.switch(tx, self._hub.lanes, row, request.jobs)
            else:
                switching.cancel(tx, row, "a person took it back.")
            return sessions.require(tx, row["session_id"])

        return await self._change(request, change)

    async def StartStreamingJob(self, request: session_pb2.StartStreamingJobRequest, context: Any) -> session_pb2.Session:
        """Let a streaming job enter the queue."""
        return await self._change(request, lambda tx, row: streaming.start_job(tx, self._hub.lanes, row, request.job_type))

    async def StopStreamingJob(self, request: session_pb2.StopStreamingJobRequest, context: Any) -> session_pb2.Session:
        """Stop a streaming job at a checkpoint."""
        return await self._change(request, lambda tx, row: streaming.stop_job(tx, row, request.job_type))

    async def AdviseCompute(self, request: session_pb2.AdviseComputeRequest, context: Any) -> session_pb2.ComputeAdvice:
        """Say what the GPUs at hand allow."""

        def gather(tx: Transaction) -> Callable[[], session_pb2.ComputeAdvice]:
            row = sessions.require(tx, request.session) if request.session else None
            parameters, resources = request.parameters, request.compute
            if row is not None and not request.HasField("parameters"):
                parameters = session_record(row).parameters
            if row is not None and not request.HasField("compute"):
                resources = compute.newest(row)
            wanted = session_pb2.ComputeResources()
            wanted.CopyFrom(resources)
            self._check_compute(wanted)
            slots, lanes = advice.slots_for(tx, self._hub.lanes, row), dict(self._hub.lanes)
            return lambda: advice.advise(slots, lanes, row, parameters, wanted)

        return await asyncio.to_thread(await self._hub.store.look(gather))  # the ledger's thread has better things to do

    async def SaveProfile(self, request: session_pb2.SaveProfileRequest, context: Any) -> session_pb2.Profile:
        """Save a configuration profile."""
        profile = session_pb2.Profile()
        profile.CopyFrom(request.profile)
        validation.check_name(profile.name, "profile")
        if not request.session:
            validation.check_parameters(profile.parameters, complete=False)
            self._check_compute(profile.compute)

        def save(tx: Transaction) -> session_pb2.Profile:
            source = sessions.require(tx, request.session) if request.session else None
            return profile_record(profiles.save(tx, profile, source))

        return await self._hub.store.run(lambda tx: tx.once(request, session_pb2.Profile, lambda: save(tx)))

    async def ListProfiles(self, request: session_pb2.ListProfilesRequest, context: Any) -> session_pb2.ListProfilesResponse:
        """List configuration profiles."""
        rows = await self._hub.store.look(profiles.every)
        return session_pb2.ListProfilesResponse(profiles=[profile_record(row) for row in rows])

    async def DeleteProfile(self, request: session_pb2.DeleteProfileRequest, context: Any) -> session_pb2.DeleteProfileResponse:
        """Delete a configuration profile."""

        def forget(tx: Transaction) -> session_pb2.DeleteProfileResponse:
            profiles.forget(tx, request.name)
            return session_pb2.DeleteProfileResponse()

        return await self._hub.store.run(lambda tx: tx.once(request, session_pb2.DeleteProfileResponse, lambda: forget(tx)))

    async def ApplyProfile(self, request: session_pb2.ApplyProfileRequest, context: Any) -> session_pb2.Session:
        """Give a session that is not running the values of a profile; what they name must be there."""

        def look(tx: Transaction) -> tuple[RowMapping, RowMapping]:
            return profiles.require(tx, request.profile), sessions.require(tx, request.session)

        profile, session = await self._hub.store.look(look)
        merged = profiles.merged(profile, session)
        resources = profile_record(profile).compute
        validation.check_parameters(merged)
        self._check_compute(resources)
        validation.fill_defaults(merged, resources)
        await asyncio.to_thread(validation.check_paths, merged, Path(session["folder"]))

        def change(tx: Transaction, row: RowMapping) -> RowMapping:
            advice.refuse_hopeless(tx, self._hub.lanes, merged, resources, compute.streaming(row))
            return profiles.apply(tx, row, merged, resources if profile["compute"] else None)

        return await self._change(request, change)

    async def ChooseTemplates(self, request: session_pb2.ChooseTemplatesRequest, context: Any) -> session_pb2.Session:
        """Let a session pick with the templates of a job."""

        def change(tx: Transaction, row: RowMapping) -> RowMapping:
            wanted = session_pb2.UpdateParametersRequest(
                parameters=templates.chosen(tx, row, request.job_id, request.numbers),
                new_exposures_only=request.new_exposures_only,
            )
            validation.check_parameters(wanted.parameters)
            return parameters.change(tx, row, wanted)[0]

        return await self._change(request, change)

    async def UpdateParameters(
        self, request: session_pb2.UpdateParametersRequest, context: Any
    ) -> session_pb2.UpdateParametersResponse:
        """Change a session's parameters, and say what is redone."""
        validation.check_parameters(request.parameters)
        wanted = session_pb2.UpdateParametersRequest()
        wanted.CopyFrom(request)
        validation.fill_defaults(wanted.parameters, session_pb2.ComputeResources())
        found = await self._hub.store.look(lambda tx: sessions.require(tx, request.session))
        await asyncio.to_thread(validation.check_paths, wanted.parameters, Path(found["folder"]))

        def change(tx: Transaction) -> session_pb2.UpdateParametersResponse:
            row, redone = parameters.change(tx, sessions.require(tx, request.session), wanted)
            sentence = parameters.sentence(redone, row, dry_run=request.dry_run)
            return session_pb2.UpdateParametersResponse(session=session_record(row), redone=redone, sentence=sentence)

        if request.dry_run:
            return await self._hub.store.look(change)
        return await self._hub.store.run(lambda tx: tx.once(request, session_pb2.UpdateParametersResponse, lambda: change(tx)))

    async def UpdateThresholds(self, request: session_pb2.UpdateThresholdsRequest, context: Any) -> session_pb2.Session:
        """Set the intervals that exposures' attributes must lie in."""
        return await self._change(request, lambda tx, row: parameters.set_thresholds(tx, row, request.thresholds))

    async def ReportScan(self, request: session_pb2.ReportScanRequest, context: Any) -> session_pb2.ReportScanResponse:
        """Keep what ingest says of the folder."""
        await self._hub.store.run(lambda tx: sessions.report_scan(tx, request))
        return session_pb2.ReportScanResponse()

    def _check_compute(self, resources: session_pb2.ComputeResources) -> None:
        """Check compute resources and write out their defaults."""
        validation.check_compute(resources, self._hub.lanes, sorted(self._hub.lanes))
        validation.fill_compute_defaults(resources)

    async def _create(self, request: Message, wanted: session_pb2.Session) -> session_pb2.Session:
        known = await self._hub.store.look(lambda tx: tx.known_reply(request, session_pb2.Session))
        if known is not None:
            return known
        validation.check_name(wanted.name)
        validation.check_parameters(wanted.parameters)
        self._check_compute(wanted.compute)
        folder = self._hub.data_dir / wanted.name
        await asyncio.to_thread(validation.check_paths, wanted.parameters, folder)
        validation.fill_defaults(wanted.parameters, wanted.compute)
        session_id = self._hub.clock.token()

        def body(tx: Transaction) -> session_pb2.Session:
            return tx.once(
                request, session_pb2.Session, lambda: session_record(sessions.create(tx, wanted, folder, session_id))
            )

        async with self._creating:
            await self._hub.store.look(lambda tx: self._check_new(tx, wanted))
            await asyncio.to_thread(deletion.make_folder, folder, session_id)
            return await self._hub.store.run(body)

    def _check_new(self, tx: Transaction, wanted: session_pb2.Session) -> None:
        sessions.require_free(tx, wanted.name)
        streams = jobs.streaming_at_start(wanted.parameters, wanted.compute)
        advice.refuse_hopeless(tx, self._hub.lanes, wanted.parameters, wanted.compute, streams)

    async def _change(self, request: Any, change: Change) -> session_pb2.Session:
        def body(tx: Transaction) -> session_pb2.Session:
            return tx.once(
                request,
                session_pb2.Session,
                lambda: session_record(change(tx, sessions.require(tx, request.session))),
            )

        return await self._hub.store.run(body)
