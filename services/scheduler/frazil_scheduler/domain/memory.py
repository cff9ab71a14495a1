"""Jobs whose workers ran out of memory: the next slot is to be a larger one, on another GPU or a bigger share of the same.

What a job has outgrown is kept with it, `outgrown_mib`; its minimum is then above that. Whether its lane has such a slot is
known when slots are given out.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, select

from frazil import jobs as declarations
from frazil.api.session.v1 import session_pb2
from frazil.rpc.config import EXIT_OUT_OF_MEMORY
from frazil_scheduler.domain import jobs
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_slot = tables.slot.c
_lease = tables.lease.c


def ran_out(tx: Transaction, lease_id: str, exit_code: int | None) -> None:
    """A lease's worker has died of want of memory, its job has been let go.

    What the kernel kills on a GPU slot was short of the machine's memory: a larger slot would not help. The exposure that a
    preprocessing worker died at is blamed first; when that was of no use, the next worker gets more.
    """
    slot = _slot_of(tx, lease_id)
    row = jobs.find(tx, slot["job_id"]) if slot is not None else None
    if slot is None or row is None or row["lease_id"] != lease_id or row["state"] != "WAITING":
        return
    of_slot = slot["kind"] != "GPU" or exit_code == EXIT_OUT_OF_MEMORY
    if of_slot and (row["job_type"] != jobs.PREPROCESS or row["failures_in_row"] > 1):
        ask_for_more(tx, lease_id)


def ask_for_more(tx: Transaction, lease_id: str) -> None:
    """A lease's slot has too little memory for its job: the next one is to have more."""
    slot = _slot_of(tx, lease_id)
    row = jobs.find(tx, slot["job_id"]) if slot is not None else None
    if slot is None or row is None:
        return
    column = "gpu_memory_min_mib" if slot["kind"] == "GPU" else "cpu_memory_min_mib"
    more = {column: max(row[column], slot["memory_mib"] + 1), "outgrown_mib": slot["memory_mib"]}
    sentence = f"Its worker ran out of memory on {slot['slot_key']} ({slot['memory_mib']:,} MiB); it asks for a larger slot."
    jobs.change(tx, row, reason=sentence, **more)
    tx.notice("warning", f"{jobs.title(row['job_type'])}: {sentence}", row["session_id"])


def words(row: RowMapping) -> str:
    """Say what a job has outgrown, as a sentence and a space; nothing for most."""
    if not row["outgrown_mib"]:
        return ""
    return f"Its worker ran out of memory on a slot of {row['outgrown_mib']:,} MiB, so it needs a larger one. "


def no_larger_slot(tx: Transaction, row: RowMapping) -> None:
    """The lane has no larger slot: the job fails and says what to do. A preprocessing worker goes on with other exposures.

    Either way it needs no more than before from now on, so that it can be tried again.
    """
    jobs.change(tx, row, outgrown_mib=0, **minimum(tx, row))
    if row["job_type"] == jobs.PREPROCESS:
        return
    sentence = (
        f"Its worker ran out of memory on a slot of {row['outgrown_mib']:,} MiB, and no slot of lane {row['lane']!r} that it "
        "may use is larger. Declare a larger share or add a larger GPU, then requeue it."
    )
    jobs.set_state(tx, row, "FAILED", reason=sentence)
    tx.notice("error", f"{jobs.title(row['job_type'])} has failed: {sentence}", row["session_id"])


def minimum(tx: Transaction, row: RowMapping) -> dict[str, Any]:
    """Return what a job's declaration says that it needs."""
    parameters = tx.scalar(select(tables.session.c.parameters).where(tables.session.c.session_id == row["session_id"]))
    declaration = declarations.load(row["job_type"])
    workload = jobs.workload_of(session_pb2.SessionParameters.FromString(parameters))
    return {
        "gpu_memory_min_mib": declaration.gpu_memory_min_mib(workload),
        "cpu_memory_min_mib": declaration.cpu_memory_min_mib,
    }


def _slot_of(tx: Transaction, lease_id: str) -> RowMapping | None:
    """Return a lease's slot, with the lease's job."""
    same = (_lease.slot_key == _slot.slot_key) & (_lease.node_id == _slot.node_id)
    return tx.one(select(tables.slot, _lease.job_id).join(tables.lease, same).where(_lease.lease_id == lease_id))
