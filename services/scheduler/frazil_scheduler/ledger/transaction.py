"""One transaction on the ledger: reading, writing, events, and what must be told to whom after the commit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection, Executable, RowMapping, insert

from frazil.api.event.v1 import event_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.ledger import statements, tables

Reply = TypeVar("Reply", bound=Message)


@dataclass(slots=True)
class Transaction:
    """Everything a domain function may touch; all of it becomes real at once, or none."""

    connection: Connection
    term: int
    mono: float  # seconds of the scheduler's own clock
    wall_ns: int
    token: Callable[[], str]
    events: list[event_pb2.Event] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)  # who is to be woken after the commit
    placement_wanted: bool = False  # slots or waiting jobs have changed
    unsettled: dict[str, None] = field(default_factory=dict)  # sessions whose jobs, leases or queue have changed
    changed_sessions: dict[str, str] = field(default_factory=dict)  # id to kind of event; told once, at the end
    changed_jobs: dict[str, str] = field(default_factory=dict)
    changed_nodes: dict[str, str] = field(default_factory=dict)
    head: int | None = None  # number of the newest event; None: not known yet

    def one(self, statement: Executable, **parameters: Any) -> RowMapping | None:
        """Return the first row, or None."""
        return self.connection.execute(statement, parameters).mappings().first()

    def only(self, statement: Executable, **parameters: Any) -> RowMapping:
        """Return the row that must be there."""
        return self.connection.execute(statement, parameters).mappings().one()

    def all(self, statement: Executable, **parameters: Any) -> Sequence[RowMapping]:
        """Return every row."""
        return self.connection.execute(statement, parameters).mappings().all()

    def scalar(self, statement: Executable, **parameters: Any) -> Any:
        """Return the first column of the first row, or None."""
        return self.connection.execute(statement, parameters).scalar()

    def run(self, statement: Executable, **parameters: Any) -> None:
        """Write."""
        self.connection.execute(statement, parameters)

    def emit(self, kind: str, session_id: str = "", **body: Message) -> None:
        """Append an event with the next sequence number; it counts only if the transaction does."""
        if self.head is None:
            self.head = self.scalar(statements.NEWEST_EVENT) or 0
        self.head += 1
        event = event_pb2.Event(sequence=self.head, session_id=session_id, kind=kind, **body)  # type: ignore[arg-type]
        event.time.FromNanoseconds(self.wall_ns)
        self.events.append(event)

    def write_events(self) -> None:
        """Append the events to the log; the last thing that a transaction does."""
        if self.events:
            rows = [
                {"sequence": event.sequence, "session_id": event.session_id, "body": event.SerializeToString()}
                for event in self.events
            ]
            self.connection.execute(insert(tables.event), rows)

    def notice(self, level: str, sentence: str, session_id: str = "") -> None:
        """Append a sentence for the operator."""
        self.emit("notice", session_id, notice=event_pb2.Notice(level=level, sentence=sentence))

    def once(
        self,
        request: Message,
        reply_type: type[Reply],
        body: Callable[[], Reply],
        *,
        keep: Callable[[Reply], bool] = lambda _: True,
    ) -> Reply:
        """Do `body` at most once per request id; a repeat returns the stored reply. A reply that `keep` denies is not stored.

        Raises FrazilError REQUEST_ID_MISSING, or REQUEST_ID_REUSED when the id came before with other content.
        """
        known = self.known_reply(request, reply_type)
        if known is not None:
            return known
        reply = body()
        if keep(reply):
            row = {
                "request_id": request.request_id,  # type: ignore[attr-defined]
                "method": request.DESCRIPTOR.full_name,
                "digest": _digest(request),
                "reply": reply.SerializeToString(),
            }
            self.run(insert(tables.request), **row)
        return reply

    def known_reply(self, request: Message, reply_type: type[Reply]) -> Reply | None:
        """Return the stored reply of a repeated request, or None for a new one. Raises as `once` does."""
        request_id: str = request.request_id  # type: ignore[attr-defined]
        if not request_id:
            raise FrazilError("REQUEST_ID_MISSING", "Set request_id to a fresh unique text, and keep it over retries.")
        known = self.one(statements.REQUEST, key=request_id)
        if known is None:
            return None
        if (known["method"], known["digest"]) != (request.DESCRIPTOR.full_name, _digest(request)):
            raise FrazilError(
                "REQUEST_ID_REUSED", f"request_id {request_id!r} came before with another request; use a fresh one."
            )
        return reply_type.FromString(known["reply"])


def _digest(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
