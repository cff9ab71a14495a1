"""Jobs that make no progress: a streaming one is flagged, a bounded one starts anew or is given up."""

from __future__ import annotations

from sqlalchemy import RowMapping, func, select, update

from frazil import jobs as declarations
from frazil_scheduler import lease as machine
from frazil_scheduler.domain import jobs, leases, limits
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_job = tables.job.c


def watch(tx: Transaction) -> None:
    """Look at every running job."""
    for row in tx.all(select(tables.job).where(_job.state == "RUNNING")):
        if row["indefinite"]:
            _flag(tx, row)
        else:
            _limit(tx, row)


def begin(tx: Transaction) -> None:
    """Count from now on: the scheduler has just started."""
    tx.run(update(tables.job).where(_job.state == "RUNNING").values(progress_mono=tx.mono, running_mono=tx.mono))


def _flag(tx: Transaction, row: RowMapping) -> None:
    """Flag a job whose input has waited for long; the time without input does not count."""
    still = tx.mono - row["progress_mono"]
    if row["stalled"] or still < limits.PROGRESS_NOTED_SECONDS:
        return
    if not input_waits(tx, row):
        tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(progress_mono=tx.mono))
        return
    if still < limits.STALLED_SECONDS:
        return
    tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(stalled=True))
    tx.changed_jobs.setdefault(row["job_id"], "job_stalled")
    title = declarations.load(row["job_type"]).title
    minutes = limits.STALLED_SECONDS / 60
    sentence = f"{title} has made no progress for {minutes:.0f} min although its input waits; requeue it to start it anew."
    tx.notice("warning", sentence, row["session_id"])


def _limit(tx: Transaction, row: RowMapping) -> None:
    if row["job_type"] not in declarations.names():  # its distribution was removed while it runs: its limits are not known
        return
    declaration = declarations.load(row["job_type"])
    if tx.mono - row["running_mono"] >= declaration.time_limit_seconds:
        sentence = f"It ran for more than {declaration.time_limit_seconds / 3600:g} h, its limit, and was stopped."
        jobs.set_state(tx, row, "STOPPING", stop_to="FAILED", reason=sentence)
        tx.notice("error", f"{declaration.title} has failed: {sentence}", row["session_id"])
    elif tx.mono - row["progress_mono"] >= declaration.stall_limit_seconds:
        jobs.distrusted(tx, row, f"{declaration.title} made no progress for {declaration.stall_limit_seconds / 60:.0f} min.")
    else:
        return
    leases.ask_stop(tx, row, machine.Stop.KILL, 0.0)


def input_waits(tx: Transaction, row: RowMapping) -> bool:
    """Tell whether there is something for a job to do."""
    session = tx.one(select(tables.session).where(tables.session.c.session_id == row["session_id"]))
    if session is None:
        return False
    if row["job_type"] != jobs.PREPROCESS:
        newest = select(func.max(tables.checkpoint.c.cursor_sequence)).where(tables.checkpoint.c.job_id == row["job_id"])
        return bool(session["block_sequence"] > (tx.scalar(newest) or 0))
    attempt = tables.attempt.c
    mine = select(attempt.attempt_id).where(attempt.lease_id == row["lease_id"], attempt.outcome == tables.RUNNING).limit(1)
    queued = session["ready"] > 0 and not session["disk_problem"] and not session["outcome_problem"]
    return queued or tx.one(mine) is not None
