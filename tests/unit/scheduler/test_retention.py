"""The old end of the event log goes; numbers go on, records stay."""

from __future__ import annotations

from sqlalchemy import func, select

from frazil_scheduler.domain import retention
from frazil_scheduler.domain.retention import PIECE, Retention
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction
from model.world import World

DAY = 24 * 3600.0
LONG = 1000.0


def notices(world: World, count: int) -> None:
    world.store.transact(lambda tx: [tx.notice("info", "something") for _ in range(count)] and None)


def prune(world: World, keep: Retention) -> tuple[int, int]:
    """Drop what may go, as the scheduler does every second; return the oldest and the newest that are left."""

    def ends(tx: Transaction) -> tuple[int, int]:
        sequence = tables.event.c.sequence
        return tuple(tx.one(select(func.min(sequence), func.max(sequence))).values())  # type: ignore[return-value, union-attr]

    while last := world.store.read(lambda tx: retention.due(tx, keep)):
        world.store.transact(lambda tx: retention.forget(tx, last))
    return world.store.read(ends)


def test_as_many_as_asked_for_are_kept_and_at_most_a_piece_more(world: World) -> None:
    notices(world, 3 * PIECE)
    keep = Retention(days=LONG, count=PIECE + 10)
    assert prune(world, keep) == (PIECE + 1, 3 * PIECE)
    notices(world, 10)
    assert prune(world, keep) == (2 * PIECE + 1, 3 * PIECE + 10)


def test_young_events_are_kept_and_numbers_go_on_when_all_are_old(world: World) -> None:
    keep = Retention(days=30, count=10**9)
    notices(world, PIECE)
    world.mono += 20 * DAY
    notices(world, PIECE)
    world.mono += 9 * DAY
    assert prune(world, keep) == (1, 2 * PIECE)
    world.mono += 2 * DAY
    assert prune(world, keep) == (PIECE + 1, 2 * PIECE)
    world.mono += 100 * DAY
    assert prune(world, keep) == (PIECE + 1, 2 * PIECE)  # the newest event stays, and with it its piece
    notices(world, 1)
    assert prune(world, keep) == (2 * PIECE + 1, 2 * PIECE + 1)
    notices(world, 1)
    assert prune(world, keep) == (2 * PIECE + 1, 2 * PIECE + 2)


def test_an_empty_log_has_nothing_to_forget(world: World) -> None:
    assert world.store.read(lambda tx: retention.due(tx, Retention(days=1, count=1))) == 0
