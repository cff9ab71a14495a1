"""Exposures: registering them, moving them from state to state with the session's counters, listing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import RowMapping, Update, bindparam, insert, select, update
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from frazil.api.exposure.v1 import exposure_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import limits
from frazil_scheduler.ledger import records, statements, tables
from frazil_scheduler.ledger.transaction import Transaction

_exposure = tables.exposure.c
_session = tables.session.c

_NEW: dict[str, Any] = {
    column.name: column.default.arg
    for column in tables.exposure.columns
    if isinstance(column.default, ScalarElementColumnDefault)
}

_BY_PATH = select(tables.exposure).where(
    _exposure.session_id == bindparam("session_id"), _exposure.relative_path == bindparam("path")
)
UNTRIED: dict[str, Any] = {"attempts": 0, "resource_failures": 0, "failed_on": "", "not_before_mono": 0.0}
"""Columns of an exposure whose failures are forgotten."""


def register_all(
    tx: Transaction, requests: Iterable[exposure_pb2.RegisterExposuresRequest]
) -> list[exposure_pb2.RegisterExposuresResponse]:
    """Register movies in order, in one transaction."""
    return [register(tx, request) for request in requests]


def register(tx: Transaction, request: exposure_pb2.RegisterExposuresRequest) -> exposure_pb2.RegisterExposuresResponse:
    """Register one movie; a known one with other content gets the next generation and is processed again.

    While a session is being completed only what it still has to work off may change.
    """
    path = request.file.relative_path
    session = tx.one(statements.SESSION, key=request.session_id)
    known = tx.one(_BY_PATH, session_id=request.session_id, path=path)
    refused = _refusal(session, path, known)
    if refused or session is None:
        return exposure_pb2.RegisterExposuresResponse(relative_path=path, refused=refused)
    if known is None:
        exposure_id = _create(tx, session, request)
        return exposure_pb2.RegisterExposuresResponse(relative_path=path, exposure_id=exposure_id, created=True)
    if _changed(known, request.file):
        _renew(tx, known, request)
    return exposure_pb2.RegisterExposuresResponse(relative_path=path, exposure_id=known["exposure_id"])


def move(tx: Transaction, row: RowMapping, state: str, **values: Any) -> None:
    """Bring an exposure into a state, with the session's counters and the event that tells it."""
    session_id, old = row["session_id"], row["state"]
    tx.run(statements.CHANGE_EXPOSURE, key=row["exposure_id"], state=state, **values)
    if state != old and tx.scalar(_recount(old, state), key=session_id) == "COMPLETING":  # its queue may be empty now
        tx.unsettled[session_id] = None
    _tell(tx, {**row, "state": state, **values})


def find(tx: Transaction, exposure_id: str) -> RowMapping | None:
    """Return an exposure's row."""
    return tx.one(statements.EXPOSURE, key=exposure_id)


def require(tx: Transaction, exposure_id: str) -> RowMapping:
    """Return an exposure's row; raises FrazilError EXPOSURE_UNKNOWN."""
    row = find(tx, exposure_id)
    if row is None:
        raise FrazilError("EXPOSURE_UNKNOWN", f"There is no exposure {exposure_id!r}.", kind=ErrorKind.NOT_FOUND)
    return row


def page(
    tx: Transaction, session_id: str, after: int, count: int, states: Sequence[str], *, newest_first: bool
) -> Sequence[RowMapping]:
    """Return up to `count` exposures whose number is beyond `after` (0: from the start)."""
    statement = select(tables.exposure).where(_exposure.session_id == session_id)
    if after:
        statement = statement.where(_exposure.number < after if newest_first else _exposure.number > after)
    if states:
        statement = statement.where(_exposure.state.in_(states))
    return tx.all(statement.order_by(_exposure.number.desc() if newest_first else _exposure.number).limit(count))


def retry_quarantined(tx: Transaction, session_id: str) -> int:
    """Put every quarantined exposure that has no defect back into the queue and return how many there are."""
    rows = tx.all(
        select(tables.exposure)
        .where(_exposure.session_id == session_id, _exposure.state == "QUARANTINED")
        .order_by(_exposure.number)
    )
    fresh: dict[str, Any] = {**UNTRIED, "failure": "", "finished_ns": 0}
    retried = 0
    for row in rows:
        if not exposure_pb2.MovieFile.FromString(row["file"]).defect:
            move(tx, row, "READY", **fresh)
            retried += 1
    tx.run(
        update(tables.session)
        .where(_session.session_id == session_id)
        .values(recent_outcomes="", outcome_problem="", changes=_session.changes + 1)
    )
    return retried


def _refusal(session: RowMapping | None, path: str, known: RowMapping | None) -> str:
    if session is None:
        return "There is no such session."
    queued = session["state"] == "COMPLETING" and known is not None and known["state"] in ("READY", "RUNNING")
    if session["state"] != "RUNNING" and not queued:
        return f"Session {session['name']} is {session['state'].lower()}; start it to register movies."
    if not path or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        return f"{path!r} is not a path relative to the session's movie folder."
    return ""


def _create(tx: Transaction, session: RowMapping, request: exposure_pb2.RegisterExposuresRequest) -> str:
    number = session["found"] + 1
    exposure_id = f"{session['session_id']}-{number:06d}"
    state = "QUARANTINED" if request.file.defect else "READY"
    values = {
        **_NEW,
        "exposure_id": exposure_id,
        "session_id": session["session_id"],
        "number": number,
        "relative_path": request.file.relative_path,
        "generation": 1,
        "state": state,
        "registered_ns": tx.wall_ns,
        **_content(tx, request),
    }
    tx.run(insert(tables.exposure), **values)
    tx.run(
        _count(state),
        key=session["session_id"],
        found=number,
        arrival_mono=tx.mono,
        expected_bytes=12 * request.file.width_px * request.file.height_px,  # two float micrographs, and as much in particles
    )
    _tell(tx, values)
    return exposure_id


def _renew(tx: Transaction, row: RowMapping, request: exposure_pb2.RegisterExposuresRequest) -> None:
    if request.file.defect and row["state"] == "DONE":
        return  # damaged after it was processed: its result stays
    running = (tables.attempt.c.exposure_id == row["exposure_id"]) & (tables.attempt.c.outcome == tables.RUNNING)
    superseded = {"outcome": "SUPERSEDED", "detail": "The movie's content has changed.", "ended_ns": tx.wall_ns}
    tx.run(update(tables.attempt).where(running).values(**superseded))
    fresh = {**UNTRIED, "infra_failures": 0, "made_with": "", "outdated": True}
    state = "QUARANTINED" if request.file.defect else "READY"
    move(tx, row, state, generation=row["generation"] + 1, **fresh, **_content(tx, request))


@cache
def _count(state: str) -> Update:
    """Return the statement that counts a new exposure."""
    return statements.CHANGE_SESSION.values(changes=_session.changes + 1, **{state.lower(): _session[state.lower()] + 1})


@cache
def _recount(old: str, new: str) -> Update:
    """Return the statement that counts an exposure's change of state and returns the session's state."""
    less = {old.lower(): _session[old.lower()] - 1}
    return _count(new).values(**less).returning(_session.state)


def _content(tx: Transaction, request: exposure_pb2.RegisterExposuresRequest) -> dict[str, Any]:
    return {
        "file": request.file.SerializeToString(),
        "metadata": request.metadata.SerializeToString(),
        "failure": request.file.defect[: limits.REASON_MAX_CHARACTERS],
        "finished_ns": tx.wall_ns if request.file.defect else 0,
    }


def _changed(row: RowMapping, file: exposure_pb2.MovieFile) -> bool:
    """Compare content, not inode: device numbers change when a share is mounted again."""
    known = exposure_pb2.MovieFile.FromString(row["file"])
    return (known.size_bytes, known.modified_ns, known.defect) != (file.size_bytes, file.modified_ns, file.defect)


def _tell(tx: Transaction, row: dict[str, Any]) -> None:
    session_id = row["session_id"]
    tx.emit(f"exposure_{row['state'].lower()}", session_id, exposure=records.exposure_record(row))
    if row["state"] != "RUNNING":  # nobody waits for that
        tx.topics.add(f"session:{session_id}")
