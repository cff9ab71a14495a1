"""EventService: the event log, first what was, then what comes."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import func, or_, select

from frazil.api.event.v1 import event_pb2, event_pb2_grpc
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import sessions
from frazil_scheduler.hub import Hub
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

PAGE = 500

_event = tables.event.c


class EventServicer(event_pb2_grpc.EventServiceServicer):
    """See event.proto. A watcher costs one number, its cursor: nothing is queued for it."""

    def __init__(self, hub: Hub, *, heartbeat_seconds: float = 10.0) -> None:
        self._hub = hub
        self._heartbeat_seconds = heartbeat_seconds

    async def WatchEvents(
        self, request: event_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        """Send events after a sequence number, then go on live."""
        session_id = ""
        if request.session:
            session_id = (await self._hub.store.look(lambda tx: sessions.require(tx, request.session)))["session_id"]
        cursor = request.after_sequence
        while True:
            ticket = self._hub.notifier.ticket("events")
            page, cursor, complete = await self._after(cursor, session_id)
            for event in page:
                yield event_pb2.WatchEventsResponse(event=event)
            if not complete:
                continue
            if request.until_now:
                return
            self._hub.require_open()
            await self._hub.notifier.wait("events", ticket, self._heartbeat_seconds)
            if self._hub.notifier.ticket("events") == ticket:
                self._hub.require_open()
                yield event_pb2.WatchEventsResponse(event=event_pb2.Event())

    async def _after(self, cursor: int, session_id: str) -> tuple[Sequence[event_pb2.Event], int, bool]:
        """Return events after the cursor, the new cursor, and whether these were all there are now."""
        tail = self._hub.tail
        if tail and cursor >= tail[0].sequence - 1:
            start = max(0, cursor - tail[0].sequence + 1)
            fresh = [tail[place] for place in range(start, len(tail))]
            return [event for event in fresh if _concerns(event, session_id)], max(cursor, tail[-1].sequence), True

        def body(tx: Transaction) -> tuple[list[bytes], int, bool]:
            head = tx.scalar(select(func.max(_event.sequence))) or 0
            oldest = tx.scalar(select(func.min(_event.sequence))) or 0
            if 0 < cursor < oldest - 1:
                raise _forgotten(cursor, oldest, head)
            statement = select(_event.sequence, _event.body).where(_event.sequence > cursor).order_by(_event.sequence)
            if session_id:
                statement = statement.where(or_(_event.session_id == session_id, _event.session_id == ""))
            rows = tx.all(statement.limit(PAGE))
            complete = len(rows) < PAGE
            last = max(cursor, head) if complete else rows[-1]["sequence"]
            return [row["body"] for row in rows], last, complete

        bodies, last, complete = await self._hub.store.look(body)
        return [event_pb2.Event.FromString(body) for body in bodies], last, complete


def _forgotten(cursor: int, oldest: int, newest: int) -> FrazilError:
    return FrazilError(
        "EVENTS_FORGOTTEN",
        f"Events {cursor + 1} to {oldest - 1} are no longer kept: read the records anew, then follow after {newest}.",
        kind=ErrorKind.EXPIRED,
        metadata={"oldest_sequence": str(oldest), "newest_sequence": str(newest)},
    )


def _concerns(event: event_pb2.Event, session_id: str) -> bool:
    return not session_id or event.session_id in ("", session_id)
