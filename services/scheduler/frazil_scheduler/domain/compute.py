"""A session's compute resources become its jobs: how many, in which lane, on which GPUs, with which priority."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, select, update

from frazil import jobs as declarations
from frazil.api.session.v1 import session_pb2
from frazil_scheduler.domain import jobs, queue
from frazil_scheduler.domain.stopping import is_bound, stop
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

AWAITING_MOVIE = "It takes no slot until the first movie is there."
FEWER_WORKERS = "The session has fewer preprocessing workers now."

_session = tables.session.c
_job = tables.job.c
_lease = tables.lease.c


def of(row: RowMapping) -> session_pb2.ComputeResources:
    """Return the compute resources by which a session's jobs are made."""
    return session_pb2.ComputeResources.FromString(row["compute"])


def newest(row: RowMapping) -> session_pb2.ComputeResources:
    """Return what a session will have from its next start on."""
    return session_pb2.ComputeResources.FromString(row["compute_next"] or row["compute"])


def streaming(row: RowMapping) -> list[str]:
    """Return the types of the streaming jobs that a session is to have."""
    return str(row["streaming"]).splitlines()


def set_streaming(tx: Transaction, row: RowMapping, job_types: Sequence[str]) -> None:
    """Say which streaming jobs a session is to have."""
    mine = _session.session_id == row["session_id"]
    tx.run(update(tables.session).where(mine).values(streaming="\n".join(sorted(set(job_types)))))


def awaits_movie(row: RowMapping) -> bool:
    """Tell whether a session takes no slot yet."""
    return row["state"] == "RUNNING" and of(row).wait_for_exposures and row["ready"] + row["running"] + row["done"] == 0


def belongs(row: RowMapping, job: RowMapping) -> bool:
    """Tell whether a job is to run while its session does: what a person has stopped is not, nor what is parked."""
    return not job["parked"] and (not jobs.streams(job) or job["job_type"] in streaming(row))


def fit(tx: Transaction, row: RowMapping, before: session_pb2.ComputeResources) -> None:
    """Make the session's jobs what its compute resources say; `before` is what they were made by.

    New jobs are at the end of the queue; surplus workers stop after their exposure. A job that runs goes on where it is.
    """
    _fit_workers(tx, row)
    known = {job["job_type"] for job in jobs.of_session(tx, row["session_id"])}
    for job_type in streaming(row):
        if job_type not in known:
            jobs.add(tx, row, job_type)
    for job in jobs.of_session(tx, row["session_id"]):
        if job["indefinite"] and job["state"] != "CANCELLED":
            _fit_job(tx, row, job, before)


def let_in(tx: Transaction, row: RowMapping, states: Sequence[str] = ("PAUSED",)) -> None:
    """Bring the session's jobs in these states into the queue, at their own places; or say that they await the first movie.

    A job that ends by itself and has ended is over.
    """
    hold = awaits_movie(row)
    for job in jobs.of_session(tx, row["session_id"]):
        over = not job["indefinite"] and job["state"] in jobs.TERMINAL
        if job["state"] not in (*states, "WAITING") or over or not belongs(row, job):
            continue
        if hold and job["indefinite"]:
            jobs.set_state(tx, job, "PAUSED", reason=AWAITING_MOVIE, **jobs.AFRESH)
        elif job["state"] != "WAITING":
            jobs.set_state(tx, job, "WAITING", reason="", **jobs.AFRESH)


def held_back(tx: Transaction) -> set[str]:
    """Return the sessions with jobs that await the first movie."""
    rows = tx.all(select(_job.session_id).where(_job.state == "PAUSED", _job.reason == AWAITING_MOVIE).distinct())
    return {row["session_id"] for row in rows}


def move_misplaced(tx: Transaction, lanes: queue.Lanes, row: RowMapping) -> None:
    """Bring jobs off slots that are not in their lane any more, or not among the GPUs they are bound to."""
    for job in jobs.of_session(tx, row["session_id"]):
        if job["indefinite"] and job["state"] in ("STARTING", "RUNNING") and not _well_placed(tx, lanes, job):
            stop(tx, job, "WAITING")


def _well_placed(tx: Transaction, lanes: queue.Lanes, job: RowMapping) -> bool:
    lease = tx.one(select(tables.lease).where(_lease.lease_id == job["lease_id"]))
    if lease is None:
        return True
    gpus, slot_key = job["gpus"].splitlines(), str(lease["slot_key"])
    bound = not gpus or slot_key in gpus or slot_key.partition("#")[0] in gpus
    return bound and queue.in_lane(tx, lanes, job["lane"], lease["node_id"])


def _fit_workers(tx: Transaction, row: RowMapping) -> None:
    count = max(1, of(row).preprocessing_workers)
    workers = [job for job in jobs.of_session(tx, row["session_id"]) if job["job_type"] == jobs.PREPROCESS and not _leaves(job)]
    for _ in range(count - len(workers)):
        jobs.add(tx, row, jobs.PREPROCESS)
    workers.sort(key=lambda job: (job["state"] not in ("STARTING", "RUNNING"), job["sequence"]))
    for job in workers[count:]:
        if job["state"] not in jobs.TERMINAL:
            stop(tx, job, "CANCELLED", FEWER_WORKERS)
        elif not is_bound(tx, job):
            jobs.set_state(tx, job, "CANCELLED", reason=FEWER_WORKERS)


def _leaves(job: RowMapping) -> bool:
    return "CANCELLED" in (job["state"], job["stop_to"])


def _fit_job(tx: Transaction, row: RowMapping, job: RowMapping, before: session_pb2.ComputeResources) -> None:
    """Move a job to what the session says now; what a person has set for this job alone stays while that says the same."""
    after = of(row)
    declaration = declarations.load(job["job_type"])
    least = declaration.gpu_memory_min_mib(jobs.workload_of(_parameters(row)))
    values: dict[str, Any] = {"gpu_memory_min_mib": max(least, job["gpu_memory_min_mib"]) if job["outgrown_mib"] else least}
    if jobs.lane_of(declaration, before) != jobs.lane_of(declaration, after):
        values["lane"] = jobs.lane_of(declaration, after)
    if list(jobs.gpus_of(declaration, before)) != list(jobs.gpus_of(declaration, after)):
        values["gpus"] = "\n".join(jobs.gpus_of(declaration, after))
    if before.priority != after.priority:
        values["priority"] = after.priority
    jobs.change(tx, job, **values)


def _parameters(row: RowMapping) -> session_pb2.SessionParameters:
    return session_pb2.SessionParameters.FromString(row["parameters"])
