"""GPUs out of service and back: what a person says of them, and what their agents report."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, delete, func, insert, select

from frazil.api.agent.v1 import agent_pb2
from frazil.model import gpu_errors
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lease as machine
from frazil_scheduler.domain import jobs, leases, limits, slots
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_slot = tables.slot.c
_fault = tables.gpu_fault.c


def drain(tx: Transaction, slot_key: str, reason: str) -> RowMapping:
    """Give no new job to the slots of a slot's GPU; those that hold them go on to their end."""
    row = _require_slot(tx, slot_key)
    for key in slots.of_gpu(tx, row):
        slots.drain(tx, key, reason.strip() or "drained by a person")
    return _require_slot(tx, slot_key)


def quarantine(tx: Transaction, slot_key: str, reason: str) -> RowMapping:
    """Take all slots of a slot's GPU out of service; their jobs are stopped and wait for another slot."""
    row = _require_slot(tx, slot_key)
    reason = reason.strip() or "taken out of service by a person"
    for key in slots.of_gpu(tx, row):
        slots.quarantine(tx, key, machine.QuarantineKind.OPERATOR, reason)
        _move_job(tx, key, machine.Stop.DRAIN)
    return _require_slot(tx, slot_key)


def clear(tx: Transaction, slot_key: str) -> RowMapping:
    """End a GPU's drain, and ask the agent to prove its quarantined slots free; the proof puts them back into service."""
    row = _require_slot(tx, slot_key)
    for key in slots.of_gpu(tx, row):
        slots.drain(tx, key, "")
        if slots.find(tx, key)[0]["quarantined"]:
            slots.ask_clear(tx, key)
    return _require_slot(tx, slot_key)


def faulty(tx: Transaction, node_id: str, message: agent_pb2.GpuFault) -> None:
    """An agent reports an error of a GPU: unless it is a program's own, the GPU goes out of service and its jobs elsewhere.

    Whose own it was is known when that worker ends.
    """
    if not gpu_errors.is_programs_own(message.xid):
        _take_out(tx, _slots_of(tx, node_id, message.gpu_uuid), message.sentence or gpu_errors.describe(message.xid))


def ended_with(tx: Transaction, lease: RowMapping, message: agent_pb2.Exited) -> None:
    """A worker has ended on a GPU that reported errors while it ran.

    Errors of a program's own from two different jobs within an hour are believed to be the GPU's all the same.
    """
    keys = _slots_of(tx, lease["node_id"], lease["slot_key"].partition("#")[0])
    grave = [xid for xid in message.xids if not gpu_errors.is_programs_own(xid)]
    if grave:
        _take_out(tx, keys, gpu_errors.describe(grave[0]))
    elif message.xids and message.exit_code != 0:
        xid = message.xids[0]
        others = _remember(tx, lease, xid)
        if others:
            _take_out(tx, keys, f"{gpu_errors.describe(xid)}, under {others + 1} different jobs within an hour")


def is_fatal(message: agent_pb2.Exited) -> bool:
    """Tell whether a worker's end was its GPU's fault."""
    return any(not gpu_errors.is_programs_own(xid) for xid in message.xids)


def _remember(tx: Transaction, lease: RowMapping, xid: int) -> int:
    """Keep a program's error; return of how many other jobs the GPU has had one within the last hour."""
    gpu = lease["slot_key"].partition("#")[0]
    tx.run(delete(tables.gpu_fault).where(_fault.seen_mono < tx.mono - limits.PROGRAM_FAULTS_SECONDS))
    row = {"gpu_uuid": gpu, "job_id": lease["job_id"], "xid": xid, "seen_mono": tx.mono}
    tx.run(insert(tables.gpu_fault).values(**row))
    others = select(func.count(_fault.job_id.distinct())).where(_fault.gpu_uuid == gpu, _fault.job_id != lease["job_id"])
    return int(tx.scalar(others))


def _take_out(tx: Transaction, keys: Sequence[str], reason: str) -> None:
    for key in keys:
        slots.quarantine(tx, key, machine.QuarantineKind.PROOF, reason)
        _move_job(tx, key, machine.Stop.KILL)


def _move_job(tx: Transaction, slot_key: str, stop: machine.Stop) -> None:
    """Stop the job that holds a slot, so that it goes on elsewhere."""
    held = slots.open_lease(tx, slot_key)
    job = jobs.find(tx, held["job_id"]) if held is not None else None
    if held is None or job is None or held["state"] not in ("RESERVED", "HELD", "RELEASING"):
        return
    if job["state"] in ("STARTING", "RUNNING"):
        jobs.set_state(tx, job, "STOPPING", stop_to="WAITING")
    elif held["state"] == "RELEASING" and stop is machine.Stop.DRAIN:
        return
    leases.ask_stop(tx, job, stop, job["drain_seconds"] if stop is machine.Stop.DRAIN else 0.0)


def _slots_of(tx: Transaction, node_id: str, gpu_uuid: str) -> list[str]:
    rows = tx.all(select(_slot.slot_key).where(_slot.node_id == node_id, _slot.kind == "GPU").order_by(_slot.slot_key))
    return [row["slot_key"] for row in rows if row["slot_key"].partition("#")[0] == gpu_uuid]


def _require_slot(tx: Transaction, slot_key: str) -> RowMapping:
    rows = slots.find(tx, slot_key)
    if not rows:
        raise FrazilError("SLOT_UNKNOWN", f"There is no GPU slot {slot_key!r}.", kind=ErrorKind.NOT_FOUND)
    return rows[0]
