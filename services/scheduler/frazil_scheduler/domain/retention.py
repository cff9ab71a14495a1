"""How much of the event log is kept. It goes from its old end, piece by piece; the records that it tells of stay."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, select

from frazil.api.event.v1 import event_pb2
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

PIECE = 1000  # events; a second's deletion is short, and faster than any facility writes
_DAY_NS = 24 * 3600 * 10**9

_event = tables.event.c


@dataclass(frozen=True, slots=True)
class Retention:
    """An event is kept while it is younger than `days` and one of the newest `count`."""

    days: float
    count: int


def due(tx: Transaction, keep: Retention) -> int:
    """Return the sequence of the last event of the oldest piece when all of it may go, else 0."""
    oldest = tx.scalar(select(func.min(_event.sequence))) or 0
    newest = tx.scalar(select(func.max(_event.sequence))) or 0
    last: int = oldest + PIECE - 1
    if last >= newest:  # the newest event stays: the next is numbered after it
        return 0
    if newest - last >= keep.count:
        return last
    event = event_pb2.Event.FromString(tx.scalar(select(_event.body).where(_event.sequence == last)))
    age_ns = tx.wall_ns - event.time.ToNanoseconds()
    return last if age_ns > keep.days * _DAY_NS else 0


def forget(tx: Transaction, last: int) -> None:
    """Drop the events up to one."""
    tx.run(delete(tables.event).where(_event.sequence <= last))
