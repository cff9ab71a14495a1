"""The queue meets the slots: grants in the transaction that made them possible, and for every other job why it waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from sqlalchemy import RowMapping, select

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.cluster import outlook
from frazil_scheduler.domain import jobs, leases, memory
from frazil_scheduler.lanes import LaneBackend
from frazil_scheduler.ledger import records, tables
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.placement import Holder, Kind, Reason, Slot, WaitingJob, bound, explain, fits, order, schedule, usable

Lanes = Mapping[str, LaneBackend]

_job = tables.job.c
_lease = tables.lease.c

_REMEDY = {
    Reason.NO_NODE: "Start an agent that offers the program, or put its node into the lane.",
    Reason.LANE_TOO_SMALL: "Give the job another lane, or declare larger slots.",
    Reason.LANE_QUARANTINED: "See the slots' reasons, cure them, and clear the GPUs.",
    Reason.LANE_HELD: "Pause one of the sessions that hold the slots, or add slots to the lane.",
    Reason.LANE_BUSY: "Nothing: a slot becomes free by itself.",
    Reason.GPUS_BUSY: "Wait, stop the jobs that hold these GPUs, or submit it without choosing GPUs.",
}


def place(tx: Transaction, lanes: Lanes) -> None:
    """Grant what can be granted and say of the other jobs why they wait."""
    rows = {row["job_id"]: row for row in waiting(tx)}
    if not rows:
        return
    slots = slots_by_lane(tx, lanes)
    placement = schedule([to_job(row) for row in rows.values()], slots)
    boots = {row["node_id"]: row["boot_id"] for row in tx.all(select(tables.node.c.node_id, tables.node.c.boot_id))}
    for grant in placement.grants:
        leases.grant(tx, grant, boots[grant.slot.node_id])
    prospects = _prospects(tx, lanes)
    for job_id, reason in placement.blocked.items():
        row = rows[job_id]
        clusters = row["lane"] in lanes and lanes[row["lane"]].policy is not None  # it may have larger ones to give
        if reason is Reason.LANE_TOO_SMALL and row["outgrown_mib"] and not clusters:
            memory.no_larger_slot(tx, row)
            continue
        words = prospects(row["lane"], job_id) or sentence(to_job(row), slots.get(row["lane"], ()), reason)
        jobs.set_reason(tx, row, memory.words(row) + words)


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
    cluster_nodes = outlook.nodes(tx)
    slots = [_to_slot(tx, row, holders.get(row["slot_key"]), cluster_nodes.get(row["node_id"])) for row in rows]
    return {
        name: [slot for slot in slots if _belongs(slot.node_id, cluster_nodes.get(slot.node_id), name, lanes)] for name in lanes
    }


def in_lane(tx: Transaction, lanes: Lanes, lane: str, node_id: str) -> bool:
    """Tell whether a node's slots belong to a lane."""
    return lane in lanes and _belongs(node_id, outlook.nodes(tx).get(node_id), lane, lanes)


def could_take(lanes: Lanes, job: WaitingJob, slot: Slot) -> bool:
    """Tell whether a job could have the place of the one on a slot of its lane: the slot, or a cluster's next one instead."""
    return fits(job, slot) or (job.lane in lanes and lanes[job.lane].policy is not None)


def explain_wait(tx: Transaction, lanes: Lanes, row: RowMapping) -> scheduler_pb2.ExplainWaitResponse:
    """Say why a job waits, who is before it, who blocks it, and what a person can do."""
    if row["parked"]:
        return scheduler_pb2.ExplainWaitResponse(
            reason="PARKED",
            sentence="Another job of its session uses its slot for a while; its checkpoint waits.",
            remedy="Nothing: its turn comes by itself.",
        )
    if row["state"] != "WAITING":
        text = f"The job is {row['state'].lower()}." + (f" {row['reason']}" if row["reason"] else "")
        return scheduler_pb2.ExplainWaitResponse(reason="NOT_WAITING", sentence=text)
    slots = slots_by_lane(tx, lanes)
    job = to_job(row)
    mine = {slot.slot_key for slot in slots.get(job.lane, ()) if usable(job, slot)}
    if row["not_before_mono"] > tx.mono:
        seconds = row["not_before_mono"] - tx.mono
        return scheduler_pb2.ExplainWaitResponse(
            reason="BACKING_OFF",
            sentence=row["reason"] or "It starts again after a while.",
            position=_position(tx, job, mine, slots),
            remedy=f"Nothing: it is tried again in {seconds:.0f} s. Requeue it to try at once.",
        )
    words = _prospects(tx, lanes)(job.lane, job.job_id)
    if words:
        return scheduler_pb2.ExplainWaitResponse(
            reason="CLUSTER_PENDING",
            sentence=words,
            position=_position(tx, job, mine, slots),
            remedy="Nothing here: the cluster decides. See its limits and reservations, or give the job another lane.",
        )
    reason = explain(job, slots.get(job.lane, ()))
    return scheduler_pb2.ExplainWaitResponse(
        reason=reason.value,
        sentence=memory.words(row) + sentence(job, slots.get(job.lane, ()), reason),
        position=_position(tx, job, mine, slots),
        blockers=_blockers(tx, mine),
        remedy=_REMEDY[reason],
    )


def refuse_hopeless(lanes: Lanes, by_lane: Mapping[str, Sequence[Slot]], job: WaitingJob) -> None:
    """Raise FrazilError NO_SLOT_FITS for a job that no slot of its lane, see `slots_by_lane`, could ever serve.

    A lane without slots may still get some, and a cluster's lane gets what is asked for: there nothing is refused.
    """
    lane = lanes.get(job.lane)
    if lane is None or lane.policy is not None:
        return
    slots = by_lane[job.lane]
    if slots and not any(fits(job, replace(slot, programs=frozenset({job.program}))) for slot in slots):
        raise FrazilError("NO_SLOT_FITS", _too_small(job, slots))


def sentence(job: WaitingJob, slots: Sequence[Slot], reason: Reason) -> str:
    """Return one sentence that stays the same while the cause does."""
    if reason is Reason.LANE_TOO_SMALL:
        return _too_small(job, [slot for slot in slots if job.program in slot.programs])
    lane = f"lane {job.lane!r}"
    every = f"Every slot of {lane} that it could use"
    return {
        Reason.NO_NODE: f"No node of {lane} has dialled in that can start {job.program}.",
        Reason.LANE_QUARANTINED: f"{every} is out of service or drained.",
        Reason.LANE_HELD: f"{every} is held until a session is paused.",
        Reason.LANE_BUSY: f"{every} is busy.",
        Reason.GPUS_BUSY: f"The GPUs of {lane} that it is bound to are held by other jobs.",
    }[reason]


def _too_small(job: WaitingJob, slots: Sequence[Slot]) -> str:
    lane = f"lane {job.lane!r}"
    chosen = [slot for slot in slots if bound(job, slot)]
    if not chosen:
        return f"None of the GPUs it is bound to ({', '.join(sorted(job.gpus))}) is in {lane}."
    largest = max(slot.memory_mib for slot in chosen)
    needs = f"{job.gpu_memory_min_mib} MiB on a GPU or {job.cpu_memory_min_mib} MiB on a CPU slot"
    among = " that it is bound to" if job.gpus else ""
    return f"No slot of {lane}{among} is large enough: it needs {needs}, the largest has {largest} MiB."


def _position(tx: Transaction, job: WaitingJob, mine: set[str], slots: Mapping[str, Sequence[Slot]]) -> int:
    """Count the jobs before this one that could use the same slots."""
    before = 0
    for row in waiting(tx):
        other = to_job(row)
        theirs = {slot.slot_key for slot in slots.get(other.lane, ()) if usable(other, slot)}
        before += order(other) < order(job) and bool(mine & theirs)
    return before


def waiting(tx: Transaction) -> Sequence[RowMapping]:
    """Return the jobs that could start now: no lease binds them, they are not parked and do not back off."""
    leased = select(_lease.job_id).where(~_lease.released)
    return tx.all(
        select(tables.job)
        .where(_job.state == "WAITING", ~_job.parked, _job.not_before_mono <= tx.mono, _job.job_id.not_in(leased))
        .order_by(_job.sequence)
    )


def to_job(row: RowMapping) -> WaitingJob:
    """Return what placement needs of a job's row."""
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


def _belongs(node_id: str, cluster_node: outlook.ClusterNode | None, lane: str, lanes: Lanes) -> bool:
    return cluster_node.lane == lane if cluster_node is not None else lanes[lane].accepts(node_id)


def _prospects(tx: Transaction, lanes: Lanes) -> Callable[[str, str], str]:
    """Return what tells why a job of a cluster's lane waits; nothing for those of other lanes."""

    @cache
    def of(lane: str) -> outlook.Prospects | None:
        backend = lanes.get(lane)
        return outlook.Prospects(tx, lane, backend.policy) if backend is not None and backend.policy is not None else None

    def words(lane: str, job_id: str) -> str:
        prospects = of(lane)
        return prospects.sentence(job_id) if prospects is not None else ""

    return words


def _to_slot(tx: Transaction, row: RowMapping, holder: Holder | None, cluster_node: outlook.ClusterNode | None) -> Slot:
    usable_here = cluster_node is None or cluster_node.usable
    return Slot(
        slot_key=row["slot_key"],
        node_id=row["node_id"],
        kind=Kind(row["kind"]),
        memory_mib=row["memory_mib"],
        programs=frozenset(row["programs"].splitlines()),
        ready=usable_here and row["node_state"] == "UP" and row["hello_term"] == tx.term and not row["stray_lease_id"],
        quarantined=bool(row["quarantined"]),
        drained=bool(row["drained"]),
        handoff_session_id=row["handoff_session_id"] or (cluster_node.session_id if cluster_node is not None else ""),
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
            indefinite=row["indefinite"] and row["state"] in ("RESERVED", "HELD"),
            since=records.timestamp(row["granted_ns"]),
        )
        for row in rows
    ]
