"""Jobs that run too long, or whose workers live and make no progress: the verdicts of `frazil_scheduler.stall` carried out."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import RowMapping, func, select, update

from frazil import jobs as declarations
from frazil_scheduler import lease as machine
from frazil_scheduler.domain import attempts, jobs, leases, limits, sessions
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.stall import Verdict, Watched, judge

_job = tables.job.c


def watch(tx: Transaction, asked: Mapping[str, float]) -> None:
    """Look at every running job. `asked` says of leases when their worker last asked for work and there was none."""
    known = set(declarations.names())
    for row in tx.all(select(tables.job).where(_job.state == "RUNNING")):
        if row["job_type"] not in known:  # its distribution was removed while it runs: its limits are not known
            continue
        declaration = declarations.load(row["job_type"])
        if not row["indefinite"] and tx.mono - row["running_mono"] >= declaration.time_limit_seconds:
            _time_over(tx, row, declaration)
        else:
            _look(tx, row, declaration, asked.get(row["lease_id"], 0.0))


def begin(tx: Transaction) -> None:
    """Count from now on: the scheduler has just started."""
    tx.run(update(tables.job).where(_job.state == "RUNNING").values(progress_mono=tx.mono, running_mono=tx.mono))


def _time_over(tx: Transaction, row: RowMapping, declaration: declarations.JobType) -> None:
    sentence = f"It ran for more than {declaration.time_limit_seconds / 3600:g} h, its limit, and was stopped."
    jobs.set_state(tx, row, "STOPPING", stop_to="FAILED", reason=sentence)
    tx.notice("error", f"{declaration.title} has failed: {sentence}", row["session_id"])
    leases.ask_stop(tx, row, machine.Stop.KILL, 0.0)


def _look(tx: Transaction, row: RowMapping, declaration: declarations.JobType, asked: float) -> None:
    """Judge a worker; the time without input does not count."""
    limit = declaration.stall_limit_seconds
    moved = max(row["progress_mono"], asked)
    verdict = judge(Watched(moved=moved, limit=limit, restarts=row["stalls"]), tx.mono)
    if verdict is Verdict.NOTHING or (verdict is Verdict.FLAG and row["stalled"]):
        return
    if not input_waits(tx, row):
        tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(progress_mono=tx.mono))
    elif verdict is Verdict.FLAG:
        minutes, left = _minutes(tx.mono - moved), _minutes(limit - (tx.mono - moved))
        sentence = f"No progress for {minutes} although there is something to do; its worker starts anew in {left} without any."
        jobs.change(tx, row, stalled=True, reason=sentence)
        tx.changed_jobs[row["job_id"]] = "job_stalled"
        tx.notice("warning", f"{declaration.title} has stalled. {sentence}", row["session_id"])
    else:
        _restart(tx, row, declaration, verdict)


def _restart(tx: Transaction, row: RowMapping, declaration: declarations.JobType, verdict: Verdict) -> None:
    """Kill a worker. The exposure at which it hangs is blamed first; when that is out of the queue, the job is not to blame."""
    words = f"made no progress for {_minutes(declaration.stall_limit_seconds)}"
    cured = attempts.blame(tx, row["lease_id"], f"The worker {words} at this exposure.")
    stalls = 0 if cured else row["stalls"] + 1
    values = {"failures": row["failures"] + 1, "stalls": stalls}
    if verdict is Verdict.GIVE_UP and not cured:
        sentence = f"Its workers {words}, {stalls} times in a row. See the last one's log, then requeue it."
        jobs.set_state(tx, row, "STOPPING", stop_to="FAILED", reason=sentence, **values)
        tx.notice("error", f"{declaration.title} has failed: {sentence}", row["session_id"])
    else:
        sentence = f"Its worker {words}; it starts anew."
        after = tx.mono + limits.RESTART_BACKOFF_SECONDS[-1]
        jobs.set_state(tx, row, "STOPPING", stop_to="WAITING", reason=sentence, not_before_mono=after, **values)
        tx.notice("warning", f"{declaration.title}: {sentence}", row["session_id"])
    leases.ask_stop(tx, row, machine.Stop.KILL, 0.0)


def input_waits(tx: Transaction, row: RowMapping) -> bool:
    """Tell whether there is something for a job to do."""
    session = tx.one(select(tables.session).where(tables.session.c.session_id == row["session_id"]))
    if session is None:
        return False
    if not row["indefinite"] or sessions.is_drained(tx, session):  # what is left then is its last work, and to end
        return True
    if row["job_type"] != jobs.PREPROCESS:
        newest = select(func.max(tables.checkpoint.c.cursor_sequence)).where(tables.checkpoint.c.job_id == row["job_id"])
        return bool(session["block_sequence"] > (tx.scalar(newest) or 0))
    attempt = tables.attempt.c
    mine = select(attempt.attempt_id).where(attempt.lease_id == row["lease_id"], attempt.outcome == tables.RUNNING).limit(1)
    queued = session["ready"] > 0 and not session["disk_problem"] and not session["outcome_problem"]
    return queued or tx.one(mine) is not None


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min"
