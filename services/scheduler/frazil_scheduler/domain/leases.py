"""Leases in the ledger: the pure machine of `frazil_scheduler.lease` applied to rows, in the transaction of its cause."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, insert, select, update

from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lease as machine
from frazil_scheduler.domain import attempts, jobs, limits, memory, slots
from frazil_scheduler.ledger import statements, tables
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.placement import Grant

_lease = tables.lease.c
_job = tables.job.c

OPEN = _lease.state != "CLOSED"


def grant(tx: Transaction, grant: Grant, boot_id: str) -> None:
    """Reserve a slot for a job under a fresh epoch. The start is sent only after this is durable."""
    # At least the wall clock's milliseconds: slots remember the newest epoch that they have seen, over the life of any one
    # ledger (a second `frazil run`, a ledger that was thrown away), and refuse what is not newer.
    epoch: int = max(tx.scalar(select(tables.meta.c.epoch)) + 1, tx.wall_ns // 1_000_000)
    tx.run(update(tables.meta).values(epoch=epoch))
    lease_id = tx.token()
    tx.run(
        insert(tables.lease).values(
            lease_id=lease_id,
            epoch=epoch,
            slot_key=grant.slot.slot_key,
            node_id=grant.slot.node_id,
            job_id=grant.job.job_id,
            boot_id=boot_id,
            state="RESERVED",
            granted_ns=tx.wall_ns,
        )
    )
    row = jobs.find(tx, grant.job.job_id)
    if row is not None:
        jobs.set_state(tx, row, "STARTING", reason="", progress="", lease_id=lease_id, epoch=epoch, progressed=False)
    _touch(tx, grant.slot.node_id)


def find(tx: Transaction, lease_id: str) -> RowMapping | None:
    """Return a lease's row."""
    return tx.one(statements.LEASE, key=lease_id)


def current(tx: Transaction, token: worker_pb2.LeaseToken) -> tuple[RowMapping, RowMapping]:
    """Return the lease and job of a worker that may act.

    Raises FrazilError EPOCH_STALE when the job has moved on or the lease is over: the worker must exit. Raises LEASE_LOST
    (try again) while the lease's node is silent.
    """
    row = find(tx, token.lease_id)
    job = jobs.find(tx, row["job_id"]) if row is not None else None
    if row is None or job is None or row["epoch"] != token.epoch or job["epoch"] != token.epoch:
        raise _stale(token)
    if row["state"] == "LOST" and not row["stop"]:
        raise FrazilError("LEASE_LOST", f"The agent of node {row['node_id']} is silent; try again.", kind=ErrorKind.UNAVAILABLE)
    if row["dead"] or row["state"] not in ("RESERVED", "HELD", "RELEASING"):
        raise _stale(token)
    return row, job


def apply(tx: Transaction, row: RowMapping, event: machine.Event) -> RowMapping:
    """Let an event happen to a lease, with everything that follows, and return the new row."""
    before = to_lease(row)
    after, effects = machine.step(before, event)
    if after != before:
        values = _values(tx, row, before, after, effects)
        tx.run(update(tables.lease).where(_lease.lease_id == row["lease_id"]).values(**values))
        tx.changed_jobs.setdefault(row["job_id"], f"lease_{after.state.value.lower()}")
        tx.topics.add(f"lease:{row['lease_id']}")
        if after.state is not before.state:
            tx.placement_wanted = True
            job = jobs.find(tx, row["job_id"])
            if job is not None:  # a pausing or completing session waits for its last slot to be free, lost or quarantined
                tx.unsettled[job["session_id"]] = None
        _touch(tx, row["node_id"])
    for effect in effects:
        _follow(tx, row, effect)
    return find(tx, row["lease_id"]) or row


def ask_stop(tx: Transaction, job: RowMapping, stop: machine.Stop, seconds: float) -> None:
    """Ask the workers of a job to stop: its live lease, and lost ones should they come back."""
    for row in tx.all(select(tables.lease).where(_lease.job_id == job["job_id"], OPEN)):
        tx.run(update(tables.lease).where(_lease.lease_id == row["lease_id"]).values(stop_seconds=seconds))
        apply(tx, find(tx, row["lease_id"]) or row, machine.StopAsked(stop))
    tx.topics.add(f"session:{job['session_id']}")


def count_failures(tx: Transaction, row: RowMapping, failures: int) -> None:
    """Keep how many attempts in a row have failed under a lease."""
    tx.run(update(tables.lease).where(_lease.lease_id == row["lease_id"]).values(failures_in_row=failures))


def to_lease(row: RowMapping) -> machine.Lease:
    """Return what the machine needs of a row."""
    return machine.Lease(
        lease_id=row["lease_id"],
        epoch=row["epoch"],
        boot_id=row["boot_id"],
        state=machine.State(row["state"]),
        stop=machine.Stop(row["stop"]) if row["stop"] else None,
        dead=row["dead"],
        released=row["released"],
    )


def overdue_after(tx: Transaction, lease: machine.Lease, stop_seconds: float) -> dict[str, float]:
    """Return the deadlines of a lease that is being released, counted from now."""
    stop_mono = tx.mono + (stop_seconds if lease.stop is machine.Stop.DRAIN and not lease.dead else 0.0)
    return {"stop_mono": stop_mono, "overdue_mono": stop_mono + limits.PROOF_SECONDS}


def _values(
    tx: Transaction, row: RowMapping, before: machine.Lease, after: machine.Lease, effects: tuple[machine.Effect, ...]
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "state": after.state.value,
        "stop": after.stop.value if after.stop else "",
        "dead": after.dead,
        "released": after.released,
    }
    entered = after.state is machine.State.RELEASING and before.state is not after.state
    if entered or (after.dead, after.stop) != (before.dead, before.stop):
        values |= overdue_after(tx, after, row["stop_seconds"])
    if after.state is machine.State.CLOSED:
        values["closed_ns"] = tx.wall_ns
    for effect in effects:
        if isinstance(effect, machine.JobReleased):
            values["ended_by"] = effect.cause.value
    return values


def _follow(tx: Transaction, row: RowMapping, effect: machine.Effect) -> None:
    match effect:
        case machine.JobRuns():
            jobs.runs(tx, row["job_id"], row["epoch"])
        case machine.JobReleased():
            hopeless = attempts.end_of_lease(tx, row["lease_id"], effect)
            job = jobs.find(tx, row["job_id"])
            if hopeless and job is not None and job["epoch"] == row["epoch"]:
                jobs.note_progress(tx, job)  # it was the exposure's fault, and that exposure is out of the way
            jobs.released(tx, row["job_id"], row["epoch"], effect)
            if effect.cause is machine.Cause.OUT_OF_MEMORY:
                memory.ran_out(tx, row["lease_id"], effect.exit_code)
        case machine.SlotQuarantined():
            slots.quarantine(tx, row["slot_key"], effect.kind, effect.reason)
        case machine.SlotFreed():
            slots.freed(tx, row["slot_key"])


def _touch(tx: Transaction, node_id: str) -> None:
    tx.changed_nodes.setdefault(node_id, "node_changed")
    tx.topics.add(f"node:{node_id}")


def _stale(token: worker_pb2.LeaseToken) -> FrazilError:
    return FrazilError(
        "EPOCH_STALE",
        f"Lease {token.lease_id} with epoch {token.epoch} is over; the worker must exit.",
        kind=ErrorKind.CONFLICT,
    )
