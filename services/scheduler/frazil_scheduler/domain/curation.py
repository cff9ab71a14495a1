"""Curation: whose particles are used. Intervals on attributes decide, and a person's word wins over them.

A rejected exposure keeps its result; only its particle block is retracted, and appended again when it is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import RowMapping, update

from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc import attributes
from frazil_scheduler.domain import blocks, exposures
from frazil_scheduler.ledger import records, statements, tables
from frazil_scheduler.ledger.transaction import Transaction

_session = tables.session.c
BY_HAND = "Rejected by hand."
_OVERRIDES = {
    exposure_pb2.OVERRIDE_UNSPECIFIED: "",
    exposure_pb2.OVERRIDE_ACCEPT: "ACCEPT",
    exposure_pb2.OVERRIDE_REJECT: "REJECT",
}


def check(thresholds: Iterable[session_pb2.AttributeThreshold]) -> None:
    """Raise FrazilError for an unknown attribute, one named twice, or an interval that nothing can lie in."""
    seen: set[str] = set()
    for one in thresholds:
        title = attributes.find(one.attribute).title
        low = one.minimum if one.HasField("minimum") else -math.inf
        high = one.maximum if one.HasField("maximum") else math.inf
        if not low <= high:  # not a number fails too
            raise FrazilError("THRESHOLD_INVALID", f"{title}: the least value, {low:g}, is above the greatest, {high:g}.")
        if one.attribute in seen:
            raise FrazilError("THRESHOLD_TWICE", f"{title} has two thresholds; give one interval for each attribute.")
        seen.add(one.attribute)


def of(session: RowMapping) -> Sequence[session_pb2.AttributeThreshold]:
    """Return a session's thresholds."""
    return session_pb2.Session.FromString(session["thresholds"]).thresholds


def to_bytes(thresholds: Iterable[session_pb2.AttributeThreshold]) -> bytes:
    """Return thresholds as the ledger keeps them."""
    return session_pb2.Session(thresholds=thresholds).SerializeToString()


def judge(exposure: exposure_pb2.Exposure, override: str, thresholds: Sequence[session_pb2.AttributeThreshold]) -> str:
    """Return why an exposure's particles are not to be used; "" when they are."""
    if override:
        return BY_HAND if override == "REJECT" else ""
    for one in thresholds:
        attribute = attributes.find(one.attribute)
        value, unit = attribute.read(exposure), f" {attribute.unit}".rstrip()
        if value is None or not math.isfinite(value):
            return f"{attribute.title} is not known."
        if one.HasField("minimum") and value < one.minimum:
            return f"{attribute.title} is {value:.4g}{unit}, below {one.minimum:.4g}{unit}."
        if one.HasField("maximum") and value > one.maximum:
            return f"{attribute.title} is {value:.4g}{unit}, above {one.maximum:.4g}{unit}."
    return ""


def judge_again(tx: Transaction, row: RowMapping, override: str, thresholds: Sequence[session_pb2.AttributeThreshold]) -> None:
    """Bring an exposure in or out, with its particle block, as its result, thresholds and a person's word ask for."""
    record = records.exposure_record(row)
    rejected = judge(record, override, thresholds) if record.HasField("result") else ""
    values: dict[str, Any] = {name: new for name, new in (("override", override), ("rejected", rejected)) if row[name] != new}
    if not values:
        return
    if bool(rejected) != bool(row["rejected"]):
        session = tx.only(statements.SESSION, key=row["session_id"])
        sequence = blocks.replace(tx, session, row, record.result, used=not rejected and not row["outdated"])
        values["block_sequence"] = sequence
        values["block_particles"] = record.result.particle_count if sequence else 0
        count(tx, row["session_id"], 1 if rejected else -1)
    exposures.move(tx, row, row["state"], **values)


def count(tx: Transaction, session_id: str, more: int) -> None:
    """Count an exposure that was rejected, or accepted again."""
    changed = {"rejected": _session.rejected + more, "changes": _session.changes + 1}
    tx.run(update(tables.session).where(_session.session_id == session_id).values(**changed))


def require_alive(session: RowMapping) -> None:
    """Raise FrazilError SESSION_STATE_WRONG for a session that is being deleted."""
    if session["state"] == "DELETING":
        raise FrazilError("SESSION_STATE_WRONG", f"Session {session['name']} is being deleted.", kind=ErrorKind.CONFLICT)


def override(
    tx: Transaction, session: RowMapping, exposure_ids: Sequence[str], word: exposure_pb2.Override.ValueType
) -> list[exposure_pb2.Exposure]:
    """Take a person's word on exposures. Raises FrazilError EXPOSURE_UNKNOWN or OVERRIDE_INVALID."""
    if word not in _OVERRIDES:
        raise FrazilError("OVERRIDE_INVALID", f"override is {word}, which this scheduler does not know.")
    require_alive(session)
    thresholds = of(session)
    changed = []
    for exposure_id in exposure_ids:
        row = exposures.find(tx, exposure_id)
        if row is None or row["session_id"] != session["session_id"]:
            sentence = f"The session has no exposure {exposure_id!r}."
            raise FrazilError("EXPOSURE_UNKNOWN", sentence, kind=ErrorKind.NOT_FOUND)
        judge_again(tx, row, _OVERRIDES[word], thresholds)
        changed.append(records.exposure_record(tx.only(statements.EXPOSURE, key=exposure_id)))
    return changed
