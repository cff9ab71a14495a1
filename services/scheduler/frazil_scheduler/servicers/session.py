"""SessionService: creates, starts, pauses and completes sessions."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping

from frazil.api.session.v1 import session_pb2, session_pb2_grpc
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import sessions, validation
from frazil_scheduler.hub import Hub
from frazil_scheduler.ledger.records import session_record
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.servicers import page_size, page_start

Request = session_pb2.StartSessionRequest | session_pb2.PauseSessionRequest | session_pb2.CompleteSessionRequest


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """See session.proto."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def CreateSession(self, request: session_pb2.CreateSessionRequest, context: Any) -> session_pb2.Session:
        """Check everything a person set, then add the session and make its folder."""
        known = await self._hub.store.look(lambda tx: tx.known_reply(request, session_pb2.Session))
        if known is not None:
            return known
        wanted = session_pb2.Session()
        wanted.CopyFrom(request.session)
        validation.check_name(wanted.name)
        validation.check_parameters(wanted.parameters)
        validation.check_compute(wanted.compute, self._hub.lanes, sorted(self._hub.lanes))
        folder = self._hub.data_dir / wanted.name
        await asyncio.to_thread(validation.check_paths, wanted.parameters, folder)
        await asyncio.to_thread(_make_folder, folder)
        validation.fill_defaults(wanted.parameters, wanted.compute)

        def body(tx: Transaction) -> session_pb2.Session:
            return tx.once(request, session_pb2.Session, lambda: session_record(sessions.create(tx, wanted, folder)))

        return await self._hub.store.run(body)

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
        """Start or resume a session."""
        return await self._change(request, sessions.start)

    async def PauseSession(self, request: session_pb2.PauseSessionRequest, context: Any) -> session_pb2.Session:
        """Pause a session."""
        return await self._change(request, sessions.pause)

    async def CompleteSession(self, request: session_pb2.CompleteSessionRequest, context: Any) -> session_pb2.Session:
        """Complete a session."""
        return await self._change(request, sessions.complete)

    async def ReportScan(self, request: session_pb2.ReportScanRequest, context: Any) -> session_pb2.ReportScanResponse:
        """Keep what ingest says of the folder."""
        await self._hub.store.run(lambda tx: sessions.report_scan(tx, request))
        return session_pb2.ReportScanResponse()

    async def _change(self, request: Request, change: Callable[[Transaction, RowMapping], RowMapping]) -> session_pb2.Session:
        def body(tx: Transaction) -> session_pb2.Session:
            return tx.once(
                request,
                session_pb2.Session,
                lambda: session_record(change(tx, sessions.require(tx, request.session))),
            )

        return await self._hub.store.run(body)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FrazilError("SESSION_FOLDER_UNUSABLE", f"Cannot make the session's folder {folder}: {error.strerror}.") from error
