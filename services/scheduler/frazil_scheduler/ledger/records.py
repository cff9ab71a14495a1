"""Rows become the messages that readers and events see."""

from __future__ import annotations

import json
from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import RowMapping, select

from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_JOB_STATES = scheduler_pb2.Job.State
_LEASE_STATES: Mapping[str, scheduler_pb2.Lease.State.ValueType] = {
    "RESERVED": scheduler_pb2.Lease.STATE_RESERVED,
    "HELD": scheduler_pb2.Lease.STATE_HELD,
    "RELEASING": scheduler_pb2.Lease.STATE_RELEASING,
    "LOST": scheduler_pb2.Lease.STATE_LOST,
    "QUARANTINED": scheduler_pb2.Lease.STATE_RELEASING,  # still awaits proof; the slot says why it is out of service
    "CLOSED": scheduler_pb2.Lease.STATE_CLOSED,
}


def timestamp(nanoseconds: int) -> Timestamp | None:
    """Return a timestamp; 0 means never."""
    if not nanoseconds:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(nanoseconds)
    return stamp


def session_record(row: RowMapping) -> session_pb2.Session:
    """Return a session."""
    scan = session_pb2.ScanStatus.FromString(row["scan"])
    of_row = [row[f"{kind}_problem"] for kind in ("disk", "outcome", "job", "deletion")]
    problems = [*of_row, scan.problem, scan.omission]
    return session_pb2.Session(
        session_id=row["session_id"],
        name=row["name"],
        state=session_pb2.Session.State.Value(f"STATE_{row['state']}"),
        state_reason=" ".join(problem for problem in problems if problem),
        parameters=session_pb2.SessionParameters.FromString(row["parameters"]),
        compute=session_pb2.ComputeResources.FromString(row["compute"]),
        folder=row["folder"],
        counts=session_pb2.SessionCounts(
            found=row["found"],
            ready=row["ready"],
            running=row["running"],
            done=row["done"],
            quarantined=row["quarantined"],
            particles=row["particles"],
            particle_block_sequence=row["block_sequence"],
            particles_classified=row["particles_classified"],
            rejected=row["rejected"],
        ),
        scan=scan,
        create_time=timestamp(row["created_ns"]),
        labels=json.loads(row["labels"] or "{}"),
        compute_next=session_pb2.ComputeResources.FromString(row["compute_next"]) if row["compute_next"] else None,
        slot_switch=session_pb2.SlotSwitch.FromString(row["slot_switch"]) if row["slot_switch"] else None,
        thresholds=session_pb2.Session.FromString(row["thresholds"]).thresholds,
    )


def profile_record(row: RowMapping) -> session_pb2.Profile:
    """Return a configuration profile."""
    return session_pb2.Profile(
        name=row["name"],
        description=row["description"],
        parameters=session_pb2.SessionParameters.FromString(row["parameters"]),
        compute=session_pb2.ComputeResources.FromString(row["compute"]),
        save_time=timestamp(row["saved_ns"]),
    )


def exposure_record(row: Mapping[str, object] | RowMapping) -> exposure_pb2.Exposure:
    """Return an exposure."""
    values = dict(row)
    return exposure_pb2.Exposure(
        exposure_id=values["exposure_id"],
        session_id=values["session_id"],
        number=values["number"],
        file=exposure_pb2.MovieFile.FromString(values["file"]),
        metadata=exposure_pb2.MovieMetadata.FromString(values["metadata"]),
        generation=values["generation"],
        state=exposure_pb2.Exposure.State.Value(f"STATE_{values['state']}"),
        attempts=values["attempts"],
        failure=values["failure"],
        result=exposure_pb2.ExposureResult.FromString(values["result"]) if values["result"] else None,
        register_time=timestamp(values["registered_ns"]),
        finish_time=timestamp(values["finished_ns"]),
        override=exposure_pb2.Override.Value(f"OVERRIDE_{values['override'] or 'UNSPECIFIED'}"),
        rejected=values["rejected"],
    )


def block_record(row: Mapping[str, object] | RowMapping) -> reconstruction_pb2.ParticleBlock:
    """Return a particle block."""
    values = dict(row)
    values["kind"] = reconstruction_pb2.ParticleBlock.Kind.Value(f"KIND_{values['kind']}")
    return reconstruction_pb2.ParticleBlock(**values)


def lease_record(row: RowMapping) -> scheduler_pb2.Lease:
    """Return a lease."""
    return scheduler_pb2.Lease(
        lease_id=row["lease_id"],
        epoch=row["epoch"],
        slot_key=row["slot_key"],
        job_id=row["job_id"],
        state=_LEASE_STATES[row["state"]],
        grant_time=timestamp(row["granted_ns"]),
    )


def job_record(tx: Transaction, row: RowMapping) -> scheduler_pb2.Job:
    """Return a job with its newest lease."""
    lease = tx.one(select(tables.lease).where(tables.lease.c.lease_id == row["lease_id"])) if row["lease_id"] else None
    return scheduler_pb2.Job(
        job_id=row["job_id"],
        sequence=row["sequence"],
        session_id=row["session_id"],
        job_type=row["job_type"],
        lane=row["lane"],
        state=_JOB_STATES.Value(f"STATE_{row['state']}"),
        reason=row["reason"],
        lease=lease_record(lease) if lease is not None else None,
        progress=row["progress"],
        failures=row["failures"],
        priority=row["priority"],
        indefinite=row["indefinite"],
        parked=row["parked"],
        gpus=row["gpus"].splitlines(),
        gpu_memory_min_mib=row["gpu_memory_min_mib"],
        state_time=timestamp(row["state_ns"]),
        stalled=row["stalled"],
        parameters=json.loads(row["parameters"] or "{}"),
    )


def slot_record(row: RowMapping, lease: RowMapping | None) -> scheduler_pb2.GpuSlot:
    """Return a slot with its open lease, if any."""
    return scheduler_pb2.GpuSlot(
        slot_key=row["slot_key"],
        node_id=row["node_id"],
        kind=scheduler_pb2.GpuSlot.Kind.Value(f"KIND_{row['kind']}"),
        device_name=row["device_name"],
        memory_mib=row["memory_mib"],
        quarantined=row["quarantined"],
        drained=row["drained"],
        handoff_session_id=row["handoff_session_id"],
        lease=lease_record(lease) if lease is not None else None,
    )


def node_record(tx: Transaction, row: RowMapping) -> scheduler_pb2.Node:
    """Return a node with its slots."""
    slots = tx.all(
        select(tables.slot)
        .where(tables.slot.c.node_id == row["node_id"], tables.slot.c.present)
        .order_by(tables.slot.c.slot_key)
    )
    open_leases = tx.all(
        select(tables.lease).where(
            tables.lease.c.slot_key.in_([slot["slot_key"] for slot in slots]), tables.lease.c.state != "CLOSED"
        )
    )
    by_slot = {lease["slot_key"]: lease for lease in open_leases}
    return scheduler_pb2.Node(
        node_id=row["node_id"],
        state=scheduler_pb2.Node.State.Value(f"STATE_{row['state']}"),
        programs=row["programs"].splitlines(),
        slots=[slot_record(slot, by_slot.get(slot["slot_key"])) for slot in slots],
        last_seen_time=timestamp(row["seen_ns"]),
    )


def checkpoint_record(row: RowMapping) -> worker_pb2.Checkpoint:
    """Return a checkpoint."""
    return worker_pb2.Checkpoint(
        number=row["number"], cursor_sequence=row["cursor_sequence"], path=row["path"], sha256=row["sha256"]
    )
