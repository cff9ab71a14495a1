"""Attempts: an exposure is claimed, worked on, and committed exactly once, or fails for a reason that decides what is next."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, bindparam, func, insert, literal, or_, select, true, update

from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil.model.stages import STAGES, first_stale
from frazil_scheduler.domain import blocks, curation, exposures, jobs, limits, parameters
from frazil_scheduler.domain.last_words import last_words
from frazil_scheduler.lease import Cause, JobReleased
from frazil_scheduler.ledger import records, statements, tables
from frazil_scheduler.ledger.transaction import Transaction

_exposure = tables.exposure.c
_attempt = tables.attempt.c
_lease = tables.lease.c

_READY = (_exposure.session_id == bindparam("session_id")) & (_exposure.state == "READY")
_SOONEST = select(func.min(_exposure.not_before_mono)).where(_READY)
_FIRST = select(tables.exposure).where(_READY, _exposure.not_before_mono <= bindparam("now")).limit(1)
_NEWEST, _OLDEST = _FIRST.order_by(_exposure.number.desc()), _FIRST.order_by(_exposure.number)

OUTCOME_OF_CLASS = {
    worker_pb2.FailExposureRequest.FAILURE_CLASS_INPUT: "INPUT",
    worker_pb2.FailExposureRequest.FAILURE_CLASS_RESOURCE: "RESOURCE",
    worker_pb2.FailExposureRequest.FAILURE_CLASS_CRASH: "CRASH",
    worker_pb2.FailExposureRequest.FAILURE_CLASS_INFRA: "INFRA",
    worker_pb2.FailExposureRequest.FAILURE_CLASS_RETURNED: "RETURNED",
}


def claim(tx: Transaction, session: RowMapping, lease: RowMapping, count: int) -> list[worker_pb2.Claim]:
    """Take up to `count` exposures for a lease: while files arrive the newest, and each fifth time the oldest."""
    if session["disk_problem"]:
        return []
    if session["outcome_problem"] and session["state"] == "RUNNING":
        if tx.mono < session["probe_mono"]:
            return []
        count = 1
    claimed: list[worker_pb2.Claim] = []
    for turn in range(session["claims"], session["claims"] + min(count, limits.CLAIM_MAX)):
        row = _next(tx, session, lease, turn)
        if row is None:
            break
        claimed.append(_take(tx, session, row, lease, turn))
    if claimed:
        values = {"claims": session["claims"] + len(claimed), "probe_mono": tx.mono + limits.PROBE_SECONDS}
        tx.run(statements.CHANGE_SESSION, key=session["session_id"], **values)
    return claimed


def seconds_until_ready(tx: Transaction, session: RowMapping) -> float | None:
    """Return after how long it is worth claiming again without news; None when only news can help."""
    if session["disk_problem"]:
        return None
    if session["outcome_problem"] and session["state"] == "RUNNING" and session["probe_mono"] > tx.mono:
        return float(session["probe_mono"] - tx.mono)
    soonest = tx.scalar(_SOONEST, session_id=session["session_id"])
    return None if soonest is None else float(max(0.0, soonest - tx.mono))


def commit(tx: Transaction, lease: RowMapping, request: worker_pb2.CommitExposureRequest) -> worker_pb2.CommitExposureResponse:
    """Make an attempt's result count. Raises FrazilError ATTEMPT_SUPERSEDED when it no longer may."""
    attempt = tx.one(statements.ATTEMPT, key=request.attempt_id)
    if attempt is None or attempt["lease_id"] != lease["lease_id"]:
        raise _superseded(request.attempt_id, "is not this lease's")
    if attempt["outcome"] == "DONE" and attempt["manifest_sha256"] == request.manifest_sha256:
        return worker_pb2.CommitExposureResponse(particle_block_sequence=attempt["block_sequence"])  # a very late repeat
    if attempt["outcome"] != "RUNNING":
        raise _superseded(request.attempt_id, f"ended before: {attempt['outcome'].lower()}")
    row = exposures.find(tx, attempt["exposure_id"])
    if row is None or row["generation"] != attempt["generation"]:
        raise _superseded(request.attempt_id, "is about an older content of the movie")
    folder = f"results/{row['exposure_id']}/{attempt['folder']}"
    if request.result.folder not in ("", folder):
        raise FrazilError("RESULT_FOLDER_WRONG", f"The result of {request.attempt_id} must lie in {folder}.")
    request.result.folder = folder
    session = tx.only(statements.SESSION, key=row["session_id"])
    request.result.stage_digests.update(zip(STAGES, attempt["made_with"].split(), strict=False))
    values = {"result": request.result.SerializeToString(), "finished_ns": tx.wall_ns}
    exposure = records.exposure_record({**row, **values})
    rejected = curation.judge(exposure, row["override"], curation.of(session))
    stage = parameters.stage_to_redo(session, attempt["made_with"], attempt["parameters_version"])
    sequence = blocks.replace(tx, session, row, request.result, used=not rejected and not stage)
    if bool(rejected) != bool(row["rejected"]):
        curation.count(tx, row["session_id"], 1 if rejected else -1)
    _end(tx, attempt, "DONE", block_sequence=sequence, manifest_sha256=request.manifest_sha256)
    exposures.move(
        tx,
        row,
        "READY" if stage else "DONE",  # its parameters may have changed since it was claimed
        attempts=0 if stage else row["attempts"] + 1,
        failure="",
        **values,
        block_sequence=sequence,
        block_particles=request.result.particle_count if sequence else 0,
        made_with=parameters.kept_digests(attempt["made_with"], stage) if stage else attempt["made_with"],
        parameters_version=attempt["parameters_version"],
        outdated=stage != "",
        rejected=rejected,
    )
    _remember(tx, session, ".", "")
    return worker_pb2.CommitExposureResponse(particle_block_sequence=sequence)


def fail(tx: Transaction, lease: RowMapping, request: worker_pb2.FailExposureRequest) -> bool:
    """End an attempt without a result and tell whether its exposure is out of the queue for good.

    An attempt that has ended before is left as it is.
    """
    outcome = OUTCOME_OF_CLASS.get(request.failure_class)
    if outcome is None:
        raise FrazilError("FAILURE_CLASS_MISSING", "Say in failure_class whose fault the failure was.")
    attempt = tx.one(statements.ATTEMPT, key=request.attempt_id)
    if attempt is None or attempt["lease_id"] != lease["lease_id"]:
        raise _superseded(request.attempt_id, "is not this lease's")
    if attempt["outcome"] != "RUNNING":
        return False
    return end(tx, attempt, outcome, request.reason)


def forgive(tx: Transaction, lease_id: str) -> bool:
    """When a lease's last attempts failed on as many different exposures, blame the worker: none of them counts.

    Tells whether it did so.
    """
    last = tx.all(
        select(tables.attempt)
        .where(_attempt.lease_id == lease_id, _attempt.outcome != tables.RUNNING)
        .order_by(_attempt.claim_number.desc())
        .limit(limits.WORKER_FAILURES_MAX)
    )
    blamed = [attempt for attempt in last if attempt["outcome"] in ("CRASH", "RESOURCE")]
    if len({attempt["exposure_id"] for attempt in blamed}) < limits.WORKER_FAILURES_MAX:
        return False
    for attempt in blamed:
        tx.run(update(tables.attempt).where(_attempt.attempt_id == attempt["attempt_id"]).values(outcome="INFRA"))
        row = exposures.find(tx, attempt["exposure_id"])
        if row is None or row["generation"] != attempt["generation"] or row["state"] not in ("READY", "QUARANTINED"):
            continue
        values: dict[str, Any] = {"attempts": max(0, row["attempts"] - 1), "infra_failures": row["infra_failures"] + 1}
        values["failed_on"] = ""
        if attempt["outcome"] == "RESOURCE":
            values["resource_failures"] = max(0, row["resource_failures"] - 1)
        exposures.move(tx, row, "READY", failure="", finished_ns=0, **values)
    return True


def end_of_lease(tx: Transaction, lease_id: str, effect: JobReleased) -> bool:
    """Return a lease's running exposures to the queue; tell whether one is out of it for good.

    When the worker died by itself, the exposure it had claimed first is taken for the one it was at: only that one counts.
    """
    running = tx.all(
        select(tables.attempt)
        .where(_attempt.lease_id == lease_id, _attempt.outcome == tables.RUNNING)
        .order_by(_attempt.claim_number)
    )
    quarantined = False
    for place, attempt in enumerate(running):
        outcome, reason = _outcome_of_end(effect, first=place == 0)
        quarantined |= end(tx, attempt, outcome, reason)
    return quarantined


def blame(tx: Transaction, lease_id: str, reason: str) -> bool:
    """End, as its own fault, the exposure that a lease claimed first of those it works on; tell whether it is quarantined."""
    running = select(tables.attempt).where(_attempt.lease_id == lease_id, _attempt.outcome == tables.RUNNING)
    first = tx.one(running.order_by(_attempt.claim_number).limit(1))
    return first is not None and end(tx, first, "CRASH", reason)


def _outcome_of_end(effect: JobReleased, *, first: bool) -> tuple[str, str]:
    if effect.cause is Cause.ASKED:
        return "RETURNED", "The worker was stopped."
    crashed = effect.cause is Cause.DIED and effect.exit_code != 0
    if not first or not (crashed or effect.cause is Cause.OUT_OF_MEMORY):
        return "INFRA", f"The lease ended ({effect.cause.value.lower().replace('_', ' ')})."
    last = last_words(effect.detail)
    reason = f"The worker died at this exposure ({effect.how})." + (f" Last words: {last}" if last else "")
    return "CRASH" if crashed else "RESOURCE", reason


def end(tx: Transaction, attempt: RowMapping, outcome: str, reason: str) -> bool:
    """End a running attempt without a result; return whether its exposure is quarantined."""
    reason = reason.strip()[-limits.REASON_MAX_CHARACTERS :] or "The worker gave no reason."
    _end(tx, attempt, outcome, detail=reason)
    row = exposures.find(tx, attempt["exposure_id"])
    if row is None:
        return False
    attempts = row["attempts"] + (outcome in ("INPUT", "RESOURCE", "CRASH"))
    resource_failures = row["resource_failures"] + (outcome == "RESOURCE")
    values: dict[str, Any] = {"attempts": attempts, "resource_failures": resource_failures}
    if outcome == "CRASH" or (outcome == "RESOURCE" and resource_failures > 1):
        values["failed_on"] = "\n".join(sorted({*row["failed_on"].splitlines(), _gpu_of(tx, attempt["lease_id"])}))
    hopeless = outcome == "INPUT" or attempts >= limits.ATTEMPTS_MAX or resource_failures >= limits.RESOURCE_FAILURES_MAX
    if hopeless and outcome in ("INPUT", "RESOURCE", "CRASH"):
        exposures.move(tx, row, "QUARANTINED", failure=reason, finished_ns=tx.wall_ns, **values)
        _remember(tx, tx.only(statements.SESSION, key=row["session_id"]), "x", reason)
        return True
    if outcome == "INFRA":
        values["infra_failures"] = row["infra_failures"] + 1
        if values["infra_failures"] == limits.INFRA_ALARM:
            path = row["relative_path"]
            sentence = f"{path} could not be processed {limits.INFRA_ALARM} times through no fault of its own: {reason}"
            tx.notice("warning", sentence, row["session_id"])
    values["not_before_mono"] = tx.mono + _backoff(outcome, attempts)
    exposures.move(tx, row, "READY", **values)
    return False


def _backoff(outcome: str, attempts: int) -> float:
    if outcome == "CRASH":
        return limits.CRASH_BACKOFF_SECONDS[min(attempts, len(limits.CRASH_BACKOFF_SECONDS)) - 1]
    return limits.INFRA_BACKOFF_SECONDS if outcome == "INFRA" else 0.0


def _next(tx: Transaction, session: RowMapping, lease: RowMapping, turn: int) -> RowMapping | None:
    arriving = session["arrival_mono"] > 0 and tx.mono - session["arrival_mono"] < limits.ARRIVING_SECONDS
    newest = arriving and session["state"] == "RUNNING" and (turn + 1) % limits.OLDEST_EVERY != 0
    statement, session_id = _NEWEST if newest else _OLDEST, session["session_id"]
    row = tx.one(statement, session_id=session_id, now=tx.mono)
    if row is None or _gpu(lease["slot_key"]) not in row["failed_on"].splitlines():
        return row
    return tx.one(statement.where(_may_try(tx, session_id, lease)), session_id=session_id, now=tx.mono)


def _may_try(tx: Transaction, session_id: str, lease: RowMapping) -> ColumnElement[bool]:
    """Leave to the session's workers on other GPUs what has failed on this one; what has failed on all is for everybody."""
    mine = _gpu(lease["slot_key"])
    rows = tx.all(
        select(_lease.slot_key)
        .join(tables.job)
        .where(tables.job.c.session_id == session_id, tables.job.c.job_type == jobs.PREPROCESS, _lease.state == "HELD")
    )
    others = {_gpu(row["slot_key"]) for row in rows} - {mine}
    return or_(~_failed_on(mine), and_(true(), *(_failed_on(gpu) for gpu in sorted(others))))


def _failed_on(gpu: str) -> ColumnElement[bool]:
    lines = literal("\n") + _exposure.failed_on + literal("\n")
    return lines.contains(f"\n{gpu}\n", autoescape=True)


def _gpu(slot_key: str) -> str:
    return slot_key.partition("#")[0]


def _gpu_of(tx: Transaction, lease_id: str) -> str:
    return _gpu(str(tx.scalar(select(_lease.slot_key).where(_lease.lease_id == lease_id))))


def _take(tx: Transaction, session: RowMapping, row: RowMapping, lease: RowMapping, turn: int) -> worker_pb2.Claim:
    digests = parameters.digests(session)
    number = row["attempt_number"] + 1
    attempt_id = f"{row['exposure_id']}-{number}"
    folder = f"{row['generation']}.{lease['epoch']}.{number}"
    tx.run(
        insert(tables.attempt),
        attempt_id=attempt_id,
        exposure_id=row["exposure_id"],
        generation=row["generation"],
        number=number,
        lease_id=lease["lease_id"],
        epoch=lease["epoch"],
        claim_number=turn,
        folder=folder,
        outcome="RUNNING",
        started_ns=tx.wall_ns,
        made_with=" ".join(digests),
        parameters_version=session["parameters_version"],
    )
    exposures.move(tx, row, "RUNNING", attempt_number=number)
    exposure = records.exposure_record({**row, "state": "RUNNING"})
    return worker_pb2.Claim(
        exposure=exposure,
        attempt_id=attempt_id,
        attempt_folder=folder,
        parameters=session_pb2.SessionParameters.FromString(session["parameters"]),
        first_stage="" if row["attempts"] else first_stale(row["made_with"].split(), digests),  # one that fails starts anew
    )


def _end(tx: Transaction, attempt: RowMapping, outcome: str, **values: Any) -> None:
    tx.run(statements.CHANGE_ATTEMPT, key=attempt["attempt_id"], outcome=outcome, ended_ns=tx.wall_ns, **values)


def _remember(tx: Transaction, session: RowMapping, outcome: str, reason: str) -> None:
    """Keep the last outcomes; when most of them are failures, say so: a wrong gain must not quarantine thousands of movies."""
    session_id, problem = session["session_id"], session["outcome_problem"]
    recent = (session["recent_outcomes"] + outcome)[-limits.OUTCOME_WINDOW :]
    values: dict[str, Any] = {"recent_outcomes": recent}
    if outcome == "." and problem:
        values = {"recent_outcomes": "", "outcome_problem": ""}
    elif recent.count("x") * 2 > limits.OUTCOME_WINDOW and not problem:
        sentence = (
            f"More than half of the last {limits.OUTCOME_WINDOW} exposures failed, the last with: {reason} "
            "One a minute is tried until one succeeds."
        )
        values["outcome_problem"] = sentence
        tx.notice("error", sentence, session_id)
    if "outcome_problem" in values:
        tx.changed_sessions[session_id] = "session_attention"
    if any(session[name] != value for name, value in values.items()):
        tx.run(statements.CHANGE_SESSION, key=session_id, **values)


def _superseded(attempt_id: str, why: str) -> FrazilError:
    return FrazilError(
        "ATTEMPT_SUPERSEDED", f"Attempt {attempt_id} {why}; delete its folder and go on.", kind=ErrorKind.CONFLICT
    )
