"""What a person may do to a job: submit, cancel, kill, requeue it, and change its priority."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import RowMapping, update

from frazil import jobs as declarations
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lease as machine
from frazil_scheduler.domain import jobs, leases, limits, queue, sessions, stopping
from frazil_scheduler.lanes import LaneBackend
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_job = tables.job.c


def require(tx: Transaction, job_id: str) -> RowMapping:
    """Return a job's row. Raises FrazilError JOB_UNKNOWN."""
    row = jobs.find(tx, job_id)
    if row is None:
        raise FrazilError("JOB_UNKNOWN", f"There is no job {job_id!r}.", kind=ErrorKind.NOT_FOUND)
    return row


def submit(tx: Transaction, lanes: Mapping[str, LaneBackend], request: scheduler_pb2.SubmitJobRequest) -> RowMapping:
    """Put an auxiliary job at the end of the queue.

    Raises FrazilError for a job type that belongs to the session's life, for parameters it does not know, and when no slot
    of its lane could ever serve it.
    """
    session = sessions.require(tx, request.session)
    if session["state"] not in ("RUNNING", "PAUSED", "COMPLETING", "COMPLETED"):
        sentence = f"Session {session['name']} is {session['state'].lower()}; try again in a moment."
        raise FrazilError("SESSION_STATE_WRONG", sentence, kind=ErrorKind.CONFLICT)
    declaration = declarations.load(request.job_type)
    if declaration.hold is not declarations.Hold.UNTIL_DONE:
        sentence = f"{declaration.title} belongs to the session's life: it starts and stops with the session."
        raise FrazilError("JOB_TYPE_STREAMING", sentence)
    if request.lane and request.lane not in lanes:
        raise FrazilError("LANE_UNKNOWN", f"There is no lane {request.lane!r}; known are {', '.join(sorted(lanes))}.")
    priority = request.priority if request.HasField("priority") else None
    check_priority(priority or 0)
    job_id = jobs.add(
        tx,
        session,
        request.job_type,
        lane=request.lane,
        gpus=request.gpus,
        priority=priority,
        parameters={name: str(value) for name, value in declaration.read(request.parameters).items()},
    )
    row = require(tx, job_id)
    queue.refuse_hopeless(lanes, queue.slots_by_lane(tx, lanes), queue.to_job(row))
    return row


def check_priority(priority: int) -> None:
    """Raise FrazilError PRIORITY_INVALID for what is no priority."""
    if not 0 <= priority <= limits.PRIORITY_MAX:
        raise FrazilError("PRIORITY_INVALID", f"The priority is {priority}; it must be between 0 and {limits.PRIORITY_MAX}.")


def set_priority(tx: Transaction, row: RowMapping, priority: int) -> RowMapping:
    """Change a job's place in the queue; a job that holds a slot keeps it."""
    check_priority(priority)
    tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(priority=priority))
    tx.changed_jobs.setdefault(row["job_id"], f"job_{row['state'].lower()}")
    tx.placement_wanted = True
    return require(tx, row["job_id"])


def cancel(tx: Transaction, row: RowMapping) -> RowMapping:
    """Bring a job off its slot after its current exposure or a checkpoint, for good."""
    stopping.stop(tx, row, "CANCELLED", reason="Cancelled by a person.")
    return require(tx, row["job_id"])


def kill(tx: Transaction, row: RowMapping) -> RowMapping:
    """End a job's worker at once; the job is cancelled. Nothing happens to one that is over."""
    if row["state"] in jobs.TERMINAL:
        return row
    reason = "Killed by a person."
    if row["state"] in ("WAITING", "PAUSED"):
        jobs.set_state(tx, row, "CANCELLED", reason=reason)
    else:
        jobs.set_state(tx, row, "STOPPING", stop_to="CANCELLED", reason=reason)
    leases.ask_stop(tx, row, machine.Stop.KILL, 0.0)
    return require(tx, row["job_id"])


def requeue(tx: Transaction, row: RowMapping) -> RowMapping:
    """Put a job back into the queue at its own place: one with a worker after a checkpoint, another as it ended.

    A job of a session that is paused waits for the session's start. Raises FrazilError JOB_DONE or JOB_PAUSED.
    """
    if row["state"] == "DONE":
        raise FrazilError("JOB_DONE", "The job has finished; submit a new one.", kind=ErrorKind.CONFLICT)
    if row["state"] == "PAUSED":
        raise FrazilError("JOB_PAUSED", "The job waits for its session; start the session.", kind=ErrorKind.CONFLICT)
    session = sessions.require(tx, row["session_id"])
    active = session["state"] in ("RUNNING", "COMPLETING") or (not row["indefinite"] and session["state"] != "PAUSING")
    to = "WAITING" if active else "PAUSED"
    stopping.requeue(tx, row, to)
    return require(tx, row["job_id"])
