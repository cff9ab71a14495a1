"""What time brings, once a second, and what a restart must put right."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import RowMapping, delete, func, select, update

from frazil_scheduler import lease as machine
from frazil_scheduler.cluster import pilots
from frazil_scheduler.domain import autopause, compute, jobs, leases, limits, nodes, parameters, queue, sessions, stalls, turns
from frazil_scheduler.ledger import records, tables
from frazil_scheduler.ledger.transaction import Transaction

_session = tables.session.c
_exposure = tables.exposure.c
_job = tables.job.c
_lease = tables.lease.c


def begin(tx: Transaction) -> None:
    """Start a term: no node has dialled in to it, and every timer of the last one begins anew."""
    tx.run(update(tables.node).values(hello_term=0))
    tx.run(update(tables.session).values(arrival_mono=0.0, probe_mono=0.0, started_mono=tx.mono))
    tx.run(update(tables.exposure).where(_exposure.not_before_mono > 0).values(not_before_mono=0.0))
    tx.run(update(tables.job).values(not_before_mono=0.0, state_mono=tx.mono, updated_mono=0.0))
    stalls.begin(tx)
    tx.run(update(tables.gpu_fault).values(seen_mono=tx.mono))
    pilots.begin(tx)
    for row in tx.all(select(tables.lease).where(leases.OPEN)):
        deadlines = leases.overdue_after(tx, leases.to_lease(row), row["stop_seconds"])
        if row["state"] not in ("RELEASING", "QUARANTINED"):
            deadlines["stop_mono"] = tx.mono + limits.FINISH_SECONDS
        tx.run(update(tables.lease).where(_lease.lease_id == row["lease_id"]).values(**deadlines))
    for row in tx.all(select(_session.session_id).where(_session.state.not_in(("PAUSED", "COMPLETED")))):
        tx.unsettled[row["session_id"]] = None
    tx.placement_wanted = True


def tick(tx: Transaction, silence: Mapping[str, float], asked: Mapping[str, float], lanes: queue.Lanes) -> None:
    """Do what is due.

    `silence` holds for every node the seconds since its last sign of life, `asked` for leases when their worker last asked for
    work and there was none.
    """
    for node_id, seconds in silence.items():
        nodes.silent(tx, node_id, seconds)
    for row in tx.all(select(tables.lease).where(_lease.state == "RELEASING", _lease.overdue_mono <= tx.mono)):
        leases.apply(tx, row, machine.ProofOverdue())
    _kill_finished(tx)
    stalls.watch(tx, asked)
    for session_id in parameters.unswept(tx):
        parameters.sweep(tx, session_id)
    held_back = compute.held_back(tx)
    for row in tx.all(select(tables.session).where(_session.state == "RUNNING")):
        if row["session_id"] in held_back and not compute.awaits_movie(row):
            compute.let_in(tx, row)
        _look_after(tx, lanes, row)
    backing_off = select(func.count()).select_from(tables.job).where(_job.state == "WAITING")
    if tx.scalar(backing_off):
        tx.placement_wanted = True
    for row in tx.all(select(_session.session_id).where(_session.changes > _session.changes_told)):
        tx.changed_sessions.setdefault(row["session_id"], "session_progress")
    _forget_old_requests(tx)


def finish(tx: Transaction, lanes: queue.Lanes) -> None:
    """End every transaction: settle sessions, place jobs, and tell what has changed."""
    while tx.unsettled or tx.placement_wanted:
        if tx.unsettled:
            sessions.settle(tx, tx.unsettled.popitem()[0])
        else:
            tx.placement_wanted = False
            queue.place(tx, lanes)
    for job_id, kind in tx.changed_jobs.items():
        job = jobs.find(tx, job_id)
        if job is not None:
            tx.emit(kind, job["session_id"], job=records.job_record(tx, job))
    for node_id, kind in tx.changed_nodes.items():
        node = nodes.find(tx, node_id)
        if node is not None:
            tx.emit(kind, node=records.node_record(tx, node))
    if tx.changed_sessions:
        _tell_sessions(tx)


def _tell_sessions(tx: Transaction) -> None:
    changed = _session.session_id.in_(tx.changed_sessions)
    rows = {row["session_id"]: row for row in tx.all(select(tables.session).where(changed))}
    tx.run(update(tables.session).where(changed).values(changes_told=_session.changes))
    for session_id, kind in tx.changed_sessions.items():
        tx.emit(kind, session_id, session=records.session_record(rows[session_id]))


def _look_after(tx: Transaction, lanes: queue.Lanes, row: RowMapping) -> None:
    """Let a running session pause by itself, or its jobs take turns."""
    sentence = autopause.reason(tx, row)
    if sentence:
        tx.notice("info", sentence, row["session_id"])
        sessions.pause(tx, row)
    elif compute.of(row).alternation.enabled:
        turns.alternate(tx, lanes, row)


def _kill_finished(tx: Transaction) -> None:
    """A worker whose job is over but that does not exit is killed."""
    rows = tx.all(
        select(tables.lease)
        .join(tables.job)
        .where(_lease.state == "HELD", _lease.stop_mono <= tx.mono, _job.state.in_(jobs.TERMINAL))
    )
    for row in rows:
        leases.apply(tx, row, machine.StopAsked(machine.Stop.KILL))


def _forget_old_requests(tx: Transaction) -> None:
    """Keep the newest replies only; a commit that is repeated later still is known by its attempt."""
    newest = tx.scalar(select(func.max(tables.request.c.sequence))) or 0
    oldest = tx.scalar(select(func.min(tables.request.c.sequence))) or 0
    if newest - oldest > limits.REQUESTS_KEPT * 1.1:
        tx.run(delete(tables.request).where(tables.request.c.sequence <= newest - limits.REQUESTS_KEPT))
