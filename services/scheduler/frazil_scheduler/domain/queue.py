"""The queue meets the slots: grants in the transaction that made them possible, and for every other job why it waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import RowMapping, select

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil_scheduler.domain import jobs, leases
from frazil_scheduler.lanes import LaneBackend
from frazil_scheduler.ledger import records, tables
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.placement import Holder, Kind, Reason, Slot, WaitingJob, explain, order, schedule, usable

Lanes = Mapping[str, LaneBackend]

_job = tables.job.c
_lease = tables.lease.c

_REMEDY = {
    Reason.NO_NODE: "Start an agent that offers the program, or put its node into the lane.",
    Reason.LANE_TOO_SMALL: "Give the job another lane, or declare larger slots.",
    Reason.LANE_QUARANTINED: "See the slots' reasons, cure them, and clear the GPUs.",
    Reason.LANE_HELD: "Pause one of the sessions that hold the slots, or add slots to the lane.",
    Reason.LANE_BUSY: "Nothing: a slot becomes free by itself.",
    Reason.GPUS_BUSY: "Wait, stop the jobs that hold these GPUs, or requeue it without choosing GPUs.",
}


def place(tx: Transaction, lanes: Lanes) -> None:
    """Grant what can be granted and say of the other jobs why they wait."""
    rows = {row["job_id"]: row for row in _waiting(tx)}
    if not rows:
        return
    slots = slots_by_lane(tx, lanes)
    placement = schedule([_to_job(row) for row in rows.values()], slots)
    boots = {row["node_id"]: row["boot_id"] for row in tx.all(select(tables.node.c.node_id, tables.node.c.boot_id))}
    for grant in placement.grants:
        leases.grant(tx, grant, boots[grant.slot.node_id])
    for job_id, reason in placement.blocked.items():
        row = rows[job_id]
        jobs.set_reason(tx, row, sentence(_to_job(row), slots.get(row["lane"], ()), reason))


def slots_by_lane(tx: Transaction, lanes: Lanes) -> dict[str, list[Slot]]:
    """Return every lane's slots as they are now."""
    rows = tx.all(
        select(tables.slot, tables.node.c.state.label("node_state"), tables.node.c.hello_term, tables.node.c.programs)
        .join(tables.node, tables.node.c.node_id == tables.slot.c.node_id)
        .where(tables.slot.c.present)
    )
    open_leases = tx.all(select(tables.lease, _job.indefinite).join(tables.job).where(leases.OPEN))
    holders = {
        row["slot_key"]: Holder(job_id=row["job_id"], indefinite=row["indefinite"] and row["state"] in ("RESERVED", "HELD"))
        for row in open_leases
    }
    slots = [_to_slot(tx, row, holders.get(row["slot_key"])) for row in rows]
    return {name: [slot for slot in slots if lane.accepts(slot.node_id)] for name, lane in lanes.items()}


def explain_wait(tx: Transaction, lanes: Lanes, row: RowMapping) -> scheduler_pb2.ExplainWaitResponse:
    """Say why a job waits, who is before it, who blocks it, and what a person can do."""
    if row["state"] != "WAITING":
        text = f"The job is {row['state'].lower()}." + (f" {row['reason']}" if row["reason"] else "")
        return scheduler_pb2.ExplainWaitResponse(reason="NOT_WAITING", sentence=text)
    slots = slots_by_lane(tx, lanes)
    job = _to_job(row)
    mine = {slot.slot_key for slot in slots.get(job.lane, ()) if usable(job, slot)}
    reason = explain(job, slots.get(job.lane, ()))
    before = 0
    for other in _waiting(tx):
        theirs = {slot.slot_key for slot in slots.get(other["lane"], ()) if usable(_to_job(other), slot)}
        before += order(_to_job(other)) < order(job) and bool(mine & theirs)
    return scheduler_pb2.ExplainWaitResponse(
        reason=reason.value,
        sentence=row["reason"] or sentence(job, slots.get(job.lane, ()), reason),
        position=before,
        blockers=_blockers(tx, mine),
        remedy=_REMEDY[reason],
    )


def sentence(job: WaitingJob, slots: Sequence[Slot], reason: Reason) -> str:
    """Return one sentence that stays the same while the cause does."""
    lane = f"lane {job.lane!r}"
    if reason is Reason.NO_NODE:
        return f"No node of {lane} has dialled in that can start {job.program}."
    if reason is Reason.LANE_TOO_SMALL:
        largest = max(slot.memory_mib for slot in slots if job.program in slot.programs)
        needs = f"{job.gpu_memory_min_mib} MiB on a GPU or {job.cpu_memory_min_mib} MiB on a CPU slot"
        return f"No slot of {lane} is large enough: it needs {needs}, the largest has {largest} MiB."
    return {
        Reason.LANE_QUARANTINED: f"Every slot of {lane} that it could use is out of service.",
        Reason.LANE_HELD: f"Every slot of {lane} that it could use is held until a session is paused.",
        Reason.LANE_BUSY: f"Every slot of {lane} that it could use is busy.",
        Reason.GPUS_BUSY: f"The GPUs of {lane} that it is bound to are held by other jobs.",
    }[reason]


def _waiting(tx: Transaction) -> Sequence[RowMapping]:
    """Return the jobs that could start now: no lease binds them and they do not back off."""
    bound = select(_lease.job_id).where(~_lease.released)
    return tx.all(
        select(tables.job)
        .where(_job.state == "WAITING", _job.not_before_mono <= tx.mono, _job.job_id.not_in(bound))
        .order_by(_job.sequence)
    )


def _to_job(row: RowMapping) -> WaitingJob:
    return WaitingJob(
        job_id=row["job_id"],
        sequence=row["sequence"],
        lane=row["lane"],
        program=row["program"],
        gpu_memory_min_mib=row["gpu_memory_min_mib"],
        cpu_memory_min_mib=row["cpu_memory_min_mib"],
        indefinite=row["indefinite"],
        session_id=row["session_id"],
        priority=row["priority"],
        gpus=frozenset(row["gpus"].splitlines()),
    )


def _to_slot(tx: Transaction, row: RowMapping, holder: Holder | None) -> Slot:
    return Slot(
        slot_key=row["slot_key"],
        node_id=row["node_id"],
        kind=Kind(row["kind"]),
        memory_mib=row["memory_mib"],
        programs=frozenset(row["programs"].splitlines()),
        ready=row["node_state"] == "UP" and row["hello_term"] == tx.term and not row["stray_lease_id"],
        quarantined=bool(row["quarantined"]),
        drained=bool(row["drained"]),
        handoff_session_id=row["handoff_session_id"],
        holder=holder,
    )


def _blockers(tx: Transaction, slot_keys: set[str]) -> list[scheduler_pb2.Blocker]:
    rows = tx.all(
        select(tables.lease, _job.job_type, _job.session_id, _job.indefinite)
        .join(tables.job)
        .where(leases.OPEN, _lease.slot_key.in_(sorted(slot_keys)))
        .order_by(_lease.slot_key)
    )
    return [
        scheduler_pb2.Blocker(
            slot_key=row["slot_key"],
            job_id=row["job_id"],
            job_type=row["job_type"],
            session_id=row["session_id"],
            indefinite=row["indefinite"],
            since=records.timestamp(row["granted_ns"]),
        )
        for row in rows
    ]
