"""Slots: out of service, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, select, update

from frazil_scheduler.lease import QuarantineKind
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_slot = tables.slot.c
_lease = tables.lease.c

IN_SERVICE: dict[str, Any] = {"quarantined": "", "quarantine_kind": "", "clear_asked": False}


def find(tx: Transaction, slot_key: str) -> Sequence[RowMapping]:
    """Return the slot as every node offers it."""
    return tx.all(select(tables.slot).where(_slot.slot_key == slot_key).order_by(_slot.node_id))


def of_gpu(tx: Transaction, row: RowMapping) -> list[str]:
    """Return the keys of all slots of the slot's GPU; a CPU slot stands for itself."""
    if row["kind"] != "GPU":
        return [row["slot_key"]]
    gpu = row["slot_key"].partition("#")[0]
    keys = tx.all(select(_slot.slot_key).where(_slot.node_id == row["node_id"]).order_by(_slot.slot_key))
    return [key["slot_key"] for key in keys if key["slot_key"].partition("#")[0] == gpu]


def open_lease(tx: Transaction, slot_key: str) -> RowMapping | None:
    """Return the lease that holds a slot, or None."""
    return tx.one(select(tables.lease).where(_lease.slot_key == slot_key, _lease.state != "CLOSED"))


def quarantine(tx: Transaction, slot_key: str, kind: QuarantineKind, reason: str) -> None:
    """Take a slot out of service. What a person or the agent has said is not replaced by a lesser reason.

    While another program uses the slot every probe fails; it still comes back by itself once that program has ended.
    """
    rows = find(tx, slot_key)
    weaker = kind in (QuarantineKind.OVERDUE, QuarantineKind.EXTERNAL)
    known = rows and (rows[0]["quarantined"], rows[0]["quarantine_kind"]) == (reason, kind.value) and not rows[0]["clear_asked"]
    external = kind is QuarantineKind.PROOF and rows and rows[0]["quarantine_kind"] == QuarantineKind.EXTERNAL.value
    if not rows or known or external or (weaker and rows[0]["quarantined"]):
        return
    tx.notice("warning", f"GPU slot {slot_key} is out of service: {reason}.")
    _set(tx, slot_key, quarantined=reason, quarantine_kind=kind.value, clear_asked=False)


def freed(tx: Transaction, slot_key: str) -> None:
    """The slot is proven free: lift a quarantine that only waited for this, or that a person has asked to lift."""
    tx.placement_wanted = True
    rows = find(tx, slot_key)
    if not rows or not rows[0]["quarantined"]:
        return
    waited = rows[0]["quarantine_kind"] in (QuarantineKind.OVERDUE.value, QuarantineKind.EXTERNAL.value)
    if waited or rows[0]["clear_asked"]:
        tx.notice("info", f"GPU slot {slot_key} is back in service.")
        _set(tx, slot_key, **IN_SERVICE)


def drain(tx: Transaction, slot_key: str, reason: str) -> None:
    """Say why a slot gets no new job; no reason lets it get jobs again."""
    if any(row["drained"] != reason for row in find(tx, slot_key)):
        _set(tx, slot_key, drained=reason)


def hand_over(tx: Transaction, slot_key: str, session_id: str) -> None:
    """Keep a slot for the jobs of one session; empty gives it back to everybody."""
    if any(row["handoff_session_id"] != session_id for row in find(tx, slot_key)):
        _set(tx, slot_key, handoff_session_id=session_id)


def ask_clear(tx: Transaction, slot_key: str) -> None:
    """Let the next proof put the slot back into service."""
    _set(tx, slot_key, clear_asked=True)


def _set(tx: Transaction, slot_key: str, **values: Any) -> None:
    tx.run(update(tables.slot).where(_slot.slot_key == slot_key).values(**values))
    tx.placement_wanted = True
    for row in find(tx, slot_key):
        tx.changed_nodes.setdefault(row["node_id"], "node_changed")
        tx.topics.add(f"node:{row['node_id']}")
