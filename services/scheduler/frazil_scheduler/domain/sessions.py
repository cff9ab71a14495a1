"""Sessions: creating, starting, pausing and completing them, and settling what follows when their jobs and queue change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping, func, insert, or_, select, update

from frazil import jobs as declarations
from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lease as machine
from frazil_scheduler.domain import jobs, leases
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_session = tables.session.c
_lease = tables.lease.c
_job = tables.job.c


def create(tx: Transaction, wanted: session_pb2.Session, folder: Path) -> RowMapping:
    """Add a session in state PAUSED; its values have been checked. Raises FrazilError SESSION_EXISTS."""
    if tx.one(select(_session.name).where(_session.name == wanted.name)) is not None:
        raise FrazilError(
            "SESSION_EXISTS",
            f"There is already a session {wanted.name!r}; choose another name.",
            kind=ErrorKind.ALREADY_EXISTS,
        )
    session_id = tx.token()
    tx.run(
        insert(tables.session).values(
            session_id=session_id,
            number=(tx.scalar(select(func.max(_session.number))) or 0) + 1,
            name=wanted.name,
            state="PAUSED",
            folder=str(folder),
            parameters=wanted.parameters.SerializeToString(),
            compute=wanted.compute.SerializeToString(),
            labels=json.dumps(dict(wanted.labels), sort_keys=True),
            created_ns=tx.wall_ns,
        )
    )
    tx.changed_sessions[session_id] = "session_created"
    return require(tx, session_id)


def require(tx: Transaction, key: str) -> RowMapping:
    """Return a session by identity or name; raises FrazilError SESSION_UNKNOWN."""
    row = tx.one(select(tables.session).where(_session.session_id == key))
    row = row or tx.one(select(tables.session).where(_session.name == key))
    if row is None:
        raise FrazilError("SESSION_UNKNOWN", f"There is no session {key!r}.", kind=ErrorKind.NOT_FOUND)
    return row


def page(tx: Transaction, before: int, count: int) -> Sequence[RowMapping]:
    """Return up to `count` sessions, newest first, older than number `before` (0: from the newest)."""
    statement = select(tables.session)
    if before:
        statement = statement.where(_session.number < before)
    return tx.all(statement.order_by(_session.number.desc()).limit(count))


def start(tx: Transaction, row: RowMapping, state: str = "RUNNING") -> RowMapping:
    """Start or resume a session: the same jobs, at their own places in the queue. Nothing happens to a running one.

    A completed one may be started again, because more movies have come: its finished jobs go on where they ended.
    """
    if row["state"] in ("RUNNING", "COMPLETING"):
        return row
    _require_state(row, ("PAUSED", "COMPLETED"), "started")
    _set_state(tx, row, state, scan=b"", job_problem="", recent_outcomes="", outcome_problem="", arrival_mono=0.0)
    known = jobs.of_session(tx, row["session_id"])
    if not any(job["indefinite"] for job in known):
        jobs.create(tx, row)
    for job in known:
        if job["state"] == "PAUSED" or (job["indefinite"] and job["state"] in ("FAILED", "DONE")):
            jobs.set_state(tx, job, "WAITING", reason="", failures_in_row=0, not_before_mono=0.0)
    return require(tx, row["session_id"])


def pause(tx: Transaction, row: RowMapping) -> RowMapping:
    """Stop a session's jobs; it is PAUSED once every slot is proven free, lost or out of service."""
    if row["state"] in ("PAUSED", "PAUSING"):
        return row
    _require_state(row, ("RUNNING", "COMPLETING"), "paused")
    _set_state(tx, row, "PAUSING")
    for job in jobs.of_session(tx, row["session_id"]):
        stop(tx, job, "PAUSED")
    settle(tx, row["session_id"])
    return require(tx, row["session_id"])


def complete(tx: Transaction, row: RowMapping) -> RowMapping:
    """Await no more movies: what is queued is worked off, then the session is COMPLETED. A paused session is started for it."""
    if row["state"] in ("COMPLETING", "COMPLETED"):
        return row
    _require_state(row, ("RUNNING", "PAUSED"), "completed")
    if row["state"] == "PAUSED":
        start(tx, row, "COMPLETING")
    else:
        _set_state(tx, row, "COMPLETING")
    tx.unsettled[row["session_id"]] = None
    settle(tx, row["session_id"])
    return require(tx, row["session_id"])


def stop(tx: Transaction, job: RowMapping, stop_to: str, reason: str = "") -> None:
    """Bring a job out of the queue or off its slot, towards PAUSED or CANCELLED. A finished job stays as it is."""
    if job["state"] in jobs.TERMINAL:
        return
    if job["state"] in ("WAITING", "PAUSED"):
        jobs.set_state(tx, job, stop_to, reason=reason)
    elif job["state"] != "STOPPING" or job["stop_to"] != "CANCELLED":
        jobs.set_state(tx, job, "STOPPING", stop_to=stop_to, reason=reason)
    leases.ask_stop(tx, job, machine.Stop.DRAIN, job["drain_seconds"])


def report_scan(tx: Transaction, request: session_pb2.ReportScanRequest) -> None:
    """Keep what ingest says of the folder. It is told to watchers when something has happened there, and once a minute."""
    row = require(tx, request.session_id)
    before = session_pb2.ScanStatus.FromString(row["scan"])
    values: dict[str, Any] = {"scan": request.scan.SerializeToString()}
    if _news(before) != _news(request.scan):
        values["changes"] = _session.changes + 1
    tx.run(update(tables.session).where(_session.session_id == row["session_id"]).values(**values))
    if (before.problem, before.omission) != (request.scan.problem, request.scan.omission):
        tx.changed_sessions[row["session_id"]] = "session_attention"


def _news(scan: session_pb2.ScanStatus) -> tuple[int, int, int]:
    return (scan.files_seen, scan.files_settling, int(scan.seconds_since_change // 60))


def set_disk_problem(tx: Transaction, session_id: str, problem: str) -> None:
    """Stop or resume handing out exposures because of the disk."""
    row = require(tx, session_id)
    if row["disk_problem"] == problem:
        return
    tx.run(update(tables.session).where(_session.session_id == session_id).values(disk_problem=problem))
    if bool(problem) != bool(row["disk_problem"]):
        sentence = problem or "The disk has room again; processing goes on."
        tx.notice("error" if problem else "info", sentence, session_id)
    tx.changed_sessions[session_id] = "session_attention"
    tx.topics.add(f"session:{session_id}")


def is_drained(tx: Transaction, row: RowMapping) -> bool:
    """Tell whether no more particle blocks can come: completing, and nothing queued or nobody left who could work it off."""
    if row["state"] not in ("COMPLETING", "COMPLETED"):
        return False
    if row["ready"] == 0 and row["running"] == 0:
        return True
    workers = [job for job in jobs.of_session(tx, row["session_id"]) if job["job_type"] == jobs.PREPROCESS]
    return all(job["state"] in jobs.TERMINAL for job in workers)


def settle(tx: Transaction, session_id: str) -> None:
    """Let a session follow its jobs, leases and queue."""
    row = require(tx, session_id)
    if row["state"] == "PAUSED":
        return
    if row["state"] == "COMPLETING" and is_drained(tx, row):
        for job in jobs.of_session(tx, session_id):
            if job["job_type"] == jobs.PREPROCESS and job["state"] == "WAITING":
                jobs.set_state(tx, job, "DONE", reason="")
        tx.topics.add(f"session:{session_id}")
    members = jobs.of_session(tx, session_id)
    _tell_failed_jobs(tx, row, members)
    if row["state"] == "RUNNING" or _live_leases(tx, session_id):
        return
    if row["state"] == "PAUSING" and all(job["state"] in ("PAUSED", *jobs.TERMINAL) for job in members):
        _set_state(tx, row, "PAUSED")
    elif row["state"] == "COMPLETING" and all(job["state"] in jobs.TERMINAL for job in members):
        left = row["ready"] + row["running"]
        if left:
            tx.notice("warning", f"{left} exposures were left unprocessed: no preprocessing worker is left.", session_id)
        _set_state(tx, row, "COMPLETED")


def _tell_failed_jobs(tx: Transaction, row: RowMapping, members: Sequence[RowMapping]) -> None:
    failed = {
        f"{declarations.load(job['job_type']).title} has failed: {job['reason']} Pause and start the session to try again."
        for job in members
        if job["state"] == "FAILED" and job["indefinite"]
    }
    problem = " ".join(sorted(failed))
    if problem != row["job_problem"]:
        tx.run(update(tables.session).where(_session.session_id == row["session_id"]).values(job_problem=problem))
        tx.changed_sessions.setdefault(row["session_id"], "session_attention")


def _live_leases(tx: Transaction, session_id: str) -> int:
    """Count the leases that still hold a slot; lost and quarantined ones are not waited for."""
    return int(
        tx.scalar(
            select(func.count())
            .select_from(tables.lease)
            .join(tables.job)
            .where(_job.session_id == session_id, or_(*(_lease.state == state for state in ("RESERVED", "HELD", "RELEASING"))))
        )
    )


def _set_state(tx: Transaction, row: RowMapping, state: str, **values: Any) -> None:
    session_id = row["session_id"]
    values |= {"state": state, "changes": _session.changes + 1}
    tx.run(update(tables.session).where(_session.session_id == session_id).values(**values))
    tx.changed_sessions[session_id] = f"session_{state.lower()}"
    tx.topics |= {f"session:{session_id}", "sessions"}
    tx.placement_wanted = True


def _require_state(row: RowMapping, states: tuple[str, ...], done: str) -> None:
    if row["state"] not in states:
        raise FrazilError(
            "SESSION_STATE_WRONG",
            f"Session {row['name']} is {row['state'].lower()}; it can be {done} only when it is {' or '.join(states).lower()}.",
            kind=ErrorKind.CONFLICT,
        )
