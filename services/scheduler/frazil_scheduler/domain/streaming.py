"""Starting and stopping a session's streaming jobs one by one."""

from __future__ import annotations

from sqlalchemy import RowMapping

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import compute, jobs, queue, sessions, switching, volumes
from frazil_scheduler.domain.stopping import requeue, stop
from frazil_scheduler.ledger.transaction import Transaction

STOPPED = "Stopped by a person; started again, it goes on where it ended."


def start_job(tx: Transaction, lanes: queue.Lanes, row: RowMapping, job_type: str) -> RowMapping:
    """Let a streaming job enter the queue; in a session that is paused, from its start on.

    Raises FrazilError for a job type that does not stream in this session, for a refinement without a volume to start from, and
    when no slot of its lane could ever serve it.
    """
    require(row, job_type)
    volumes.require_start(tx, row, job_type)
    compute.set_streaming(tx, row, [*compute.streaming(row), job_type])
    row = sessions.require(tx, row["session_id"])
    if row["state"] != "PAUSED":
        _enter(tx, row, job_type)
        for job in _of_type(tx, row, job_type):
            queue.refuse_hopeless(lanes, queue.slots_by_lane(tx, lanes), queue.to_job(job))
    return sessions.require(tx, row["session_id"])


def stop_job(tx: Transaction, row: RowMapping, job_type: str) -> RowMapping:
    """Bring a streaming job off its slot at a checkpoint. Nothing happens to one that is not wanted."""
    require(row, job_type)
    compute.set_streaming(tx, row, [other for other in compute.streaming(row) if other != job_type])
    for job in _of_type(tx, row, job_type):
        stop(tx, job, "PAUSED", STOPPED)
    tx.unsettled[row["session_id"]] = None
    return sessions.require(tx, row["session_id"])


def _enter(tx: Transaction, row: RowMapping, job_type: str) -> None:
    known = _of_type(tx, row, job_type)
    if not known:
        jobs.add(tx, row, job_type)
    for job in known:
        if job["parked"]:
            switching.unpark(tx, job)
        elif not switching.takes_part(job):
            requeue(tx, job)
    compute.let_in(tx, row)


def _of_type(tx: Transaction, row: RowMapping, job_type: str) -> list[RowMapping]:
    return [job for job in jobs.of_session(tx, row["session_id"]) if job["job_type"] == job_type]


def require(row: RowMapping, job_type: str) -> None:
    """Raise FrazilError for a job type that does not stream in this session, or a session whose jobs cannot be changed now."""
    allowed = jobs.streaming_of(session_pb2.SessionParameters.FromString(row["parameters"]))
    if job_type not in allowed:
        known = f"it has {', '.join(allowed)}" if allowed else "it ends with preprocessing"
        raise FrazilError("JOB_TYPE_NOT_STREAMING", f"{job_type!r} is no streaming job of session {row['name']}: {known}.")
    if row["state"] not in ("RUNNING", "COMPLETING", "PAUSED"):
        sentence = f"Session {row['name']} is {row['state'].lower()}; start or stop its jobs when it runs or is paused."
        raise FrazilError("SESSION_STATE_WRONG", sentence, kind=ErrorKind.CONFLICT)
