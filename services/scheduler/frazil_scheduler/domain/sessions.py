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
from frazil_scheduler.domain import advice, compute, jobs, queue, switching
from frazil_scheduler.domain.stopping import stop
from frazil_scheduler.ledger import statements, tables
from frazil_scheduler.ledger.transaction import Transaction

_session = tables.session.c
_lease = tables.lease.c
_job = tables.job.c


def create(tx: Transaction, wanted: session_pb2.Session, folder: Path, session_id: str = "") -> RowMapping:
    """Add a session in state PAUSED; its values have been checked. Raises FrazilError SESSION_EXISTS."""
    require_free(tx, wanted.name)
    session_id = session_id or tx.token()
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


def require_free(tx: Transaction, name: str) -> None:
    """Raise FrazilError SESSION_EXISTS for a name that a session has."""
    row = tx.one(select(_session.state).where(_session.name == name))
    if row is not None:
        sentence = f"There is already a session {name!r}; choose another name."
        if row["state"] == "DELETING":
            sentence = f"A session {name!r} is still being deleted; wait a moment, or choose another name."
        raise FrazilError("SESSION_EXISTS", sentence, kind=ErrorKind.ALREADY_EXISTS)


def require(tx: Transaction, key: str) -> RowMapping:
    """Return a session by identity or name; raises FrazilError SESSION_UNKNOWN."""
    row = tx.one(statements.SESSION, key=key) or tx.one(statements.SESSION_BY_NAME, key=key)
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
    before = compute.of(row)
    after = compute.newest(row)
    fresh = {"scan": b"", "job_problem": "", "recent_outcomes": "", "outcome_problem": "", "arrival_mono": 0.0}
    fresh |= {"compute": after.SerializeToString(), "compute_next": b"", "streaming": _streaming(tx, row, before, after)}
    _set_state(tx, row, state, started_mono=tx.mono, **fresh)
    row = require(tx, row["session_id"])
    _end_plan_if_other(tx, row, before)
    compute.fit(tx, row, before)
    compute.let_in(tx, row, ("PAUSED", "FAILED", "DONE"))
    return require(tx, row["session_id"])


def start_checked(tx: Transaction, lanes: queue.Lanes, row: RowMapping) -> RowMapping:
    """Start a session for a person: what fits no slot is refused, and what will wait is said.

    Raises FrazilError NO_SLOT_FITS.
    """
    if row["state"] in ("RUNNING", "COMPLETING"):
        return row
    row = start(tx, row)
    sentence = advice.of_start(tx, lanes, row)
    if sentence:
        tx.notice("warning", sentence, row["session_id"])
    return row


def _streaming(
    tx: Transaction, row: RowMapping, before: session_pb2.ComputeResources, after: session_pb2.ComputeResources
) -> str:
    """Return the streaming jobs that a session is to have once it is started: those it had, unless their start has changed."""
    parameters = session_pb2.SessionParameters.FromString(row["parameters"])
    wanted = set(compute.streaming(row))
    is_new = _is_new(tx, row)
    if is_new or before.streaming_start != after.streaming_start:
        at_start = set(jobs.streaming_at_start(parameters, after))
        wanted = wanted | at_start if at_start or is_new else set()
    return "\n".join(sorted(wanted & set(jobs.streaming_of(parameters))))


def _is_new(tx: Transaction, row: RowMapping) -> bool:
    return not any(job["indefinite"] for job in jobs.of_session(tx, row["session_id"]))


def pause(tx: Transaction, row: RowMapping) -> RowMapping:
    """Stop a session's jobs; it is PAUSED once every slot is proven free, lost or out of service."""
    if row["state"] in ("PAUSED", "PAUSING"):
        return row
    _require_state(row, ("RUNNING", "COMPLETING"), "paused")
    if switching.of(row).state == session_pb2.SlotSwitch.STATE_SWITCHING:
        switching.cancel(tx, row, "the session was paused.")
    _set_state(tx, row, "PAUSING")
    for job in jobs.of_session(tx, row["session_id"]):
        if not job["parked"]:
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
        compute.let_in(tx, require(tx, row["session_id"]))
    switching.cancel(tx, row, "the session is being completed.")
    tx.unsettled[row["session_id"]] = None
    settle(tx, row["session_id"])
    return require(tx, row["session_id"])


def update_compute(
    tx: Transaction, lanes: queue.Lanes, row: RowMapping, wanted: session_pb2.ComputeResources, *, now: bool
) -> RowMapping:
    """Change where a session's jobs run: from its next start on, or at once (hot scaling).

    At once, new workers enter the queue, surplus ones stop after their exposure, and jobs that have to move do so at a
    checkpoint; all others go on untouched.
    """
    _require_state(row, ("PAUSED", "RUNNING", "PAUSING", "COMPLETING", "COMPLETED"), "changed")
    before = compute.of(row)
    active = now and row["state"] in ("RUNNING", "COMPLETING")
    if active or _is_new(tx, row):
        values = {"compute": wanted.SerializeToString(), "compute_next": b""}
    else:
        values = {"compute_next": b"" if wanted == before else wanted.SerializeToString()}
    mine = _session.session_id == row["session_id"]
    tx.run(update(tables.session).where(mine).values(changes=_session.changes + 1, **values))
    tx.changed_sessions[row["session_id"]] = "session_compute"
    if active:
        row = require(tx, row["session_id"])
        _end_plan_if_other(tx, row, before)
        compute.fit(tx, row, before)
        compute.let_in(tx, row)
        compute.move_misplaced(tx, lanes, row)
        tx.unsettled[row["session_id"]] = None
        tx.placement_wanted = True
    return require(tx, row["session_id"])


def _end_plan_if_other(tx: Transaction, row: RowMapping, before: session_pb2.ComputeResources) -> None:
    """End a hand-over that was made for other workers, lanes or GPUs."""
    if _layout(before) != _layout(compute.of(row)):
        switching.cancel(tx, row, "the session's compute resources have changed.")


def _layout(resources: session_pb2.ComputeResources) -> session_pb2.ComputeResources:
    layout = session_pb2.ComputeResources()
    layout.CopyFrom(resources)
    for name in ("priority", "wait_for_exposures", "auto_pause", "auto_pause_idle_minutes", "streaming_start"):
        layout.ClearField(name)
    return layout


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
    if row["state"] in ("PAUSED", "DELETING"):
        return
    switching.follow(tx, row)
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
    elif row["state"] == "COMPLETING" and all(_is_over(row, job) for job in members):
        left = row["ready"] + row["running"]
        if left:
            tx.notice("warning", f"{left} exposures were left unprocessed: no preprocessing worker is left.", session_id)
        _set_state(tx, row, "COMPLETED")


def _is_over(row: RowMapping, job: RowMapping) -> bool:
    """Tell whether a completing session need not wait for a job."""
    return job["state"] in jobs.TERMINAL or (job["state"] == "PAUSED" and not compute.belongs(row, job))


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
