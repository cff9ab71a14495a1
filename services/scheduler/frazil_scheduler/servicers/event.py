"""EventService: the event log, first what was, then what comes."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from sqlalchemy import RowMapping, func, or_, select

from frazil.api.event.v1 import event_pb2, event_pb2_grpc
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import sessions
from frazil_scheduler.hub import Hub
from frazil_scheduler.ledger import statements, tables
from frazil_scheduler.ledger.transaction import Transaction

BATCH_EVENTS = 500  # in one response
BATCH_BYTES = 1 << 20  # a quarter of what gRPC takes for one message

_event = tables.event.c


@dataclass(frozen=True, slots=True)
class _Batch:
    """Events that travel together."""

    response: event_pb2.WatchEventsResponse
    last: int  # number of the last event looked at, sent or not
    complete: bool  # these were all there are now


class EventServicer(event_pb2_grpc.EventServiceServicer):
    """See event.proto. A watcher costs one number, its cursor: nothing is queued for it."""

    def __init__(self, hub: Hub, *, heartbeat_seconds: float = 10.0) -> None:
        self._hub = hub
        self._heartbeat_seconds = heartbeat_seconds
        self._shared: dict[tuple[int, str], _Batch] = {}  # by cursor and session, while `_head` is the newest event
        self._head = 0

    async def WatchEvents(
        self, request: event_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        """Send events after a sequence number, then go on live."""
        session_id = ""
        if request.session:
            session_id = (await self._hub.store.look(lambda tx: sessions.require(tx, request.session)))["session_id"]
        cursor = request.after_sequence
        while True:
            ticket = self._hub.notifier.ticket("watchers")
            batch = await self._after(cursor, session_id)
            cursor = batch.last
            if batch.response.events:
                yield batch.response
            if not batch.complete:
                continue
            if request.until_now:
                return
            self._hub.require_open()
            await self._hub.notifier.wait("watchers", ticket, self._heartbeat_seconds)
            if self._hub.notifier.ticket("watchers") == ticket:
                self._hub.require_open()
                yield event_pb2.WatchEventsResponse()

    async def _after(self, cursor: int, session_id: str) -> _Batch:
        tail = self._hub.tail
        if tail and cursor >= tail[0].sequence - 1:
            return self._of_tail(cursor, session_id)

        def body(tx: Transaction) -> tuple[Sequence[RowMapping], int]:
            head = tx.scalar(statements.NEWEST_EVENT) or 0
            oldest = tx.scalar(select(func.min(_event.sequence))) or 0
            if 0 < cursor < oldest - 1:
                raise _forgotten(cursor, oldest, head)
            statement = select(_event.sequence, _event.body).where(_event.sequence > cursor).order_by(_event.sequence)
            if session_id:
                statement = statement.where(or_(_event.session_id == session_id, _event.session_id == ""))
            return tx.all(statement.limit(BATCH_EVENTS)), head

        rows, head = await self._hub.store.look(body)
        batch = _gather((event_pb2.Event.FromString(row["body"]) for row in rows), cursor, session_id)
        if len(rows) == BATCH_EVENTS:
            return replace(batch, complete=False)
        return replace(batch, last=max(batch.last, head)) if batch.complete else batch

    def _of_tail(self, cursor: int, session_id: str) -> _Batch:
        """Return what those who have the same cursor and session share."""
        tail = self._hub.tail
        if tail[-1].sequence != self._head:
            self._shared.clear()
            self._head = tail[-1].sequence
        key = (cursor, session_id)
        if key not in self._shared:
            self._shared[key] = _gather(islice(tail, max(0, cursor - tail[0].sequence + 1), None), cursor, session_id)
        return self._shared[key]


def _gather(events: Iterable[event_pb2.Event], cursor: int, session_id: str) -> _Batch:
    """Take events as long as they fit into one response."""
    taken: list[event_pb2.Event] = []
    size = 0
    for event in events:
        if not session_id or event.session_id in ("", session_id):
            size += event.ByteSize()
            if taken and (len(taken) == BATCH_EVENTS or size > BATCH_BYTES):
                return _Batch(event_pb2.WatchEventsResponse(events=taken), cursor, complete=False)
            taken.append(event)
        cursor = event.sequence
    return _Batch(event_pb2.WatchEventsResponse(events=taken), cursor, complete=True)


def _forgotten(cursor: int, oldest: int, newest: int) -> FrazilError:
    return FrazilError(
        "EVENTS_FORGOTTEN",
        f"Events {cursor + 1} to {oldest - 1} are no longer kept: read the records anew, then follow after {newest}.",
        kind=ErrorKind.EXPIRED,
        metadata={"oldest_sequence": str(oldest), "newest_sequence": str(newest)},
    )
