"""When a session pauses by itself: nothing has arrived for a while, and what was there is done."""

from __future__ import annotations

from sqlalchemy import RowMapping

from frazil.api.session.v1 import session_pb2
from frazil_scheduler.domain import compute, jobs, limits, reconstruction
from frazil_scheduler.ledger.transaction import Transaction

_ComputeResources = session_pb2.ComputeResources


def reason(tx: Transaction, row: RowMapping) -> str:
    """Return why a running session is to pause by itself now; empty when it is not."""
    resources = compute.of(row)
    if resources.auto_pause == _ComputeResources.AUTO_PAUSE_UNSPECIFIED or compute.awaits_movie(row):
        return ""
    minutes = resources.auto_pause_idle_minutes or limits.AUTO_PAUSE_IDLE_MINUTES
    idle = tx.mono - max(row["arrival_mono"], row["started_mono"])
    if idle < 60.0 * minutes or row["ready"] + row["running"]:
        return ""
    graceful = resources.auto_pause == _ComputeResources.AUTO_PAUSE_GRACEFUL
    if graceful and not _all_up_to_date(tx, row, 60.0 * minutes):
        return ""
    what = "every exposure and every streaming job is up to date" if graceful else "every exposure is processed"
    return f"The session pauses by itself: no movie has come for {minutes} min, and {what}."


def _all_up_to_date(tx: Transaction, row: RowMapping, idle_seconds: float) -> bool:
    """Tell whether every streaming job has taken in all particles, or has had nothing to do with them for as long."""
    for job in jobs.of_session(tx, row["session_id"]):
        wanted = job["parked"] or compute.belongs(row, job)
        if not wanted or not jobs.streams(job) or job["state"] in jobs.TERMINAL:
            continue
        rests = job["state"] == "RUNNING" and tx.mono - max(job["updated_mono"], job["running_mono"]) >= idle_seconds
        if not rests and reconstruction.cursor(tx, job["job_id"]) < row["block_sequence"]:
            return False
    return True
