"""Bringing a job out of the queue or off its slot; what its worker has done stays."""

from __future__ import annotations

from sqlalchemy import RowMapping, select

from frazil_scheduler import lease as machine
from frazil_scheduler.domain import jobs, leases
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_lease = tables.lease.c


def stop(tx: Transaction, job: RowMapping, stop_to: str, reason: str = "", *, parked: bool = False) -> None:
    """Bring a job out of the queue or off its slot, towards PAUSED, CANCELLED or WAITING. A finished job stays as it is.

    A worker finishes its exposure or writes a checkpoint first. What is on its way to be cancelled stays so.
    """
    if job["state"] in jobs.TERMINAL:
        return
    if job["state"] in ("WAITING", "PAUSED"):
        jobs.set_state(tx, job, stop_to, reason=reason, parked=parked)
    elif job["state"] != "STOPPING" or job["stop_to"] != "CANCELLED":
        jobs.set_state(tx, job, "STOPPING", stop_to=stop_to, reason=reason, parked=parked)
    leases.ask_stop(tx, job, machine.Stop.DRAIN, job["drain_seconds"])


def requeue(tx: Transaction, job: RowMapping, to: str = "WAITING") -> None:
    """Put a job back into the queue at its own place, or to PAUSED; one with a worker, a dying one included, after that."""
    fresh = {"reason": "", "parked": False, **jobs.AFRESH}
    if is_bound(tx, job):
        jobs.set_state(tx, job, "STOPPING", stop_to=to, **fresh)
        leases.ask_stop(tx, job, machine.Stop.DRAIN, job["drain_seconds"])
    else:
        jobs.set_state(tx, job, to, **fresh)


def is_bound(tx: Transaction, job: RowMapping) -> bool:
    """Tell whether a worker may still act for a job."""
    return tx.one(select(_lease.lease_id).where(_lease.job_id == job["job_id"], ~_lease.released)) is not None


def leave(tx: Transaction, node_id: str) -> None:
    """Stop the jobs on a node that is about to end; they go on elsewhere from what they leave."""
    live = _lease.state.in_(("RESERVED", "HELD"))
    for row in tx.all(select(tables.lease).where(_lease.node_id == node_id, live).order_by(_lease.epoch)):
        job = jobs.find(tx, row["job_id"])
        if job is not None and job["epoch"] == row["epoch"]:
            stop(tx, job, "WAITING")
