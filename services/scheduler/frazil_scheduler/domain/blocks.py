"""Particle blocks: the gap-free list by which reconstruction learns which particles there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, insert, select

from frazil.api.exposure.v1 import exposure_pb2
from frazil_scheduler.ledger import records, statements, tables
from frazil_scheduler.ledger.transaction import Transaction

_block = tables.particle_block.c
_CHANGE = statements.CHANGE_SESSION.values(changes=tables.session.c.changes + 1)


def replace(
    tx: Transaction, session: RowMapping, exposure: RowMapping, result: exposure_pb2.ExposureResult, *, used: bool = True
) -> int:
    """Withdraw the exposure's live block, if any, add the result's particles if they are `used`, and return the new block's
    sequence (0: none)."""
    head, particles = session["block_sequence"], session["particles"]
    if exposure["block_sequence"]:
        head += 1
        particles -= exposure["block_particles"]
        _append(tx, exposure, head, kind="RETRACT", retracts_sequence=exposure["block_sequence"],
                particle_count=exposure["block_particles"])  # fmt: skip
    added = 0
    if used and result.particle_count > 0:
        head += 1
        particles += result.particle_count
        added = head
        _append(tx, exposure, head, kind="ADD", particle_count=result.particle_count,
                particles=f"{result.folder}/{result.particles}",
                particle_table=f"{result.folder}/{result.particle_table}")  # fmt: skip
    if head != session["block_sequence"]:
        tx.run(_CHANGE, key=session["session_id"], block_sequence=head, particles=particles)
    return added


def read(tx: Transaction, session_id: str, after: int, count: int) -> Sequence[RowMapping]:
    """Return up to `count` blocks after a sequence number, in order."""
    return tx.all(
        select(tables.particle_block)
        .where(_block.session_id == session_id, _block.sequence > after)
        .order_by(_block.sequence)
        .limit(count)
    )


def _append(tx: Transaction, exposure: RowMapping, sequence: int, **values: Any) -> None:
    row = {
        "session_id": exposure["session_id"],
        "sequence": sequence,
        "exposure_id": exposure["exposure_id"],
        "exposure_number": exposure["number"],
        **values,
    }
    tx.run(insert(tables.particle_block), **row)
    tx.emit("particle_block_added", exposure["session_id"], particle_block=records.block_record(row))
