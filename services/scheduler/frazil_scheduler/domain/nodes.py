"""Nodes: what their agents say, what they are to be told, and what a person may say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, insert, select, update

from frazil.api.agent.v1 import agent_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lease as machine
from frazil_scheduler.cluster import pilots
from frazil_scheduler.domain import gpus, jobs, leases, limits, slots, stopping
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_node = tables.node.c
_slot = tables.slot.c
_lease = tables.lease.c

STOP_MODES = {
    machine.Stop.DRAIN: agent_pb2.Stop.MODE_DRAIN,
    machine.Stop.KILL: agent_pb2.Stop.MODE_KILL,
}


@dataclass(frozen=True, slots=True)
class Order:
    """Something an agent is to be told until the ledger says it is done."""

    key: tuple[object, ...]  # the same order has the same key
    message: agent_pb2.ConnectResponse
    again_seconds: float


def hello(tx: Transaction, message: agent_pb2.Hello) -> agent_pb2.Welcome:
    """Reconcile what the kernel says is held with the ledger. Only from then on is anything granted on the node."""
    _check_hello(message)
    if message.cluster_job_name:
        pilots.require_wanted(tx, message)
        pilots.joined(tx, message.cluster_job_name)
    known = find(tx, message.node_id)
    values: dict[str, Any] = {
        "state": "UP",
        "boot_id": message.boot_id,
        "incarnation": message.incarnation,
        "programs": "\n".join(message.programs),
        "hello_term": tx.term,
        "seen_ns": tx.wall_ns,
        "cluster_job_name": message.cluster_job_name,
    }
    if known is None:
        tx.run(insert(tables.node).values(node_id=message.node_id, **values))
    else:
        tx.run(update(tables.node).where(_node.node_id == message.node_id).values(**values))
    _take_slots(tx, message)
    welcome = _reconcile(tx, message)
    tx.changed_nodes[message.node_id] = "node_up"
    tx.topics.add(f"node:{message.node_id}")
    tx.placement_wanted = True
    return welcome


def bye(tx: Transaction, node_id: str, incarnation: str) -> None:
    """The agent's stream has ended: nothing more is granted on the node until it dials in again."""
    mine = (_node.node_id == node_id) & (_node.incarnation == incarnation)
    tx.run(update(tables.node).where(mine).values(hello_term=0))
    tx.placement_wanted = True


def leaving(tx: Transaction, node_id: str, message: agent_pb2.Leaving) -> None:  # noqa: ARG001 as every report
    """The agent is about to end and lets its workers finish: their jobs go on elsewhere, and the node gets none."""
    stopping.leave(tx, node_id)
    tx.run(update(tables.node).where(_node.node_id == node_id).values(hello_term=0))
    tx.placement_wanted = True


def heard(tx: Transaction, node_id: str) -> None:
    """A node that was late is heard again."""
    row = find(tx, node_id)
    if row is not None and row["state"] == "SUSPECT":
        _set_state(tx, node_id, "UP", seen_ns=tx.wall_ns)


def silent(tx: Transaction, node_id: str, seconds: float) -> None:
    """A node has said nothing for so long."""
    row = find(tx, node_id)
    if row is None or row["state"] == "ENDED":
        return
    if seconds >= limits.LOST_SECONDS and row["state"] != "LOST":
        _set_state(tx, node_id, "LOST", hello_term=0)
        open_here = _open_leases(tx, node_id)
        if open_here:
            sentence = f"Node {node_id} is silent; its jobs go on elsewhere, its slots wait until it is back or fenced."
            tx.notice("warning", sentence)
        for lease in open_here:
            leases.apply(tx, lease, machine.NodeSilent())
    elif seconds >= limits.SUSPECT_SECONDS and row["state"] == "UP":
        _set_state(tx, node_id, "SUSPECT")


def started(tx: Transaction, node_id: str, message: agent_pb2.Started) -> None:
    """A worker runs."""
    row = _reported(tx, node_id, message.lease_id, message.epoch)
    if row is not None:
        leases.apply(tx, row, machine.Started())


def exited(tx: Transaction, node_id: str, message: agent_pb2.Exited) -> None:
    """A worker ended, or a start was refused."""
    row = _reported(tx, node_id, message.lease_id, message.epoch)
    if row is None:
        return
    if message.refused:
        leases.apply(tx, row, machine.Refused(message.refused, message.log_tail))
    else:
        ended = machine.WorkerExited(
            exit_code=message.exit_code if message.HasField("exit_code") else None,
            log_tail=message.log_tail,
            xids=tuple(message.xids),
            gpu_failed=gpus.is_fatal(message),
            out_of_memory=message.out_of_memory,
        )
        leases.apply(tx, row, ended)
        if not row["dead"]:  # else it is an old story
            gpus.ended_with(tx, row, message)


def proved_free(tx: Transaction, node_id: str, message: agent_pb2.ProvedFree) -> None:
    """A slot is free, or the agent says why it is not."""
    row = _reported(tx, node_id, message.lease_id, message.epoch) if message.lease_id else None
    if row is not None:
        leases.apply(tx, row, machine.ProvedFree(message.problem))
        return
    here = (_slot.node_id == node_id) & (_slot.slot_key == message.slot_key)
    slot = tx.one(select(tables.slot).where(here))
    if slot is None:
        return
    if message.lease_id and slot["stray_lease_id"] == message.lease_id and not message.problem:
        tx.run(update(tables.slot).where(here).values(stray_lease_id="", stray_epoch=0))
        tx.placement_wanted = True
    elif not message.lease_id and slot["clear_asked"]:
        if message.problem:
            slots.quarantine(tx, message.slot_key, machine.QuarantineKind.PROOF, message.problem)
        else:
            slots.freed(tx, message.slot_key)


def orders(tx: Transaction, node_id: str) -> list[Order]:
    """Return everything the node's agent is to be told now; it follows from the ledger alone."""
    told = [_order(tx, row) for row in _open_leases(tx, node_id)]
    rows = tx.all(select(tables.slot).where(_slot.node_id == node_id, _slot.present))
    for row in rows:
        probe = agent_pb2.Probe(slot_key=row["slot_key"], afresh=row["clear_asked"])
        if row["stray_lease_id"]:
            probe.lease_id, probe.epoch = row["stray_lease_id"], row["stray_epoch"]
        elif not (row["clear_asked"] and row["quarantined"]) or slots.open_lease(tx, row["slot_key"]):
            continue
        key = ("PROBE", row["slot_key"], probe.lease_id)
        told.append(Order(key, agent_pb2.ConnectResponse(term=tx.term, probe=probe), limits.PROBE_AGAIN_SECONDS))
    return [order for order in told if order is not None]


def fence(tx: Transaction, node_id: str, attested_by: str) -> RowMapping:
    """Free a lost node's leases on a person's word. Raises FrazilError for a node that is not lost, or without a name."""
    row = find(tx, node_id)
    if row is None:
        raise FrazilError("NODE_UNKNOWN", f"There is no node {node_id!r}.", kind=ErrorKind.NOT_FOUND)
    if row["state"] != "LOST":
        sentence = f"Node {node_id} is {row['state'].lower()}, not lost: only a lost node can be fenced."
        raise FrazilError("NODE_NOT_LOST", sentence, kind=ErrorKind.CONFLICT)
    if not attested_by.strip():
        raise FrazilError("ATTESTATION_MISSING", "Say in attested_by who attests that the node is dead, and how they know.")
    tx.notice("warning", f"Node {node_id} is fenced; attested by: {attested_by.strip()}.")
    for lease in _open_leases(tx, node_id):
        leases.apply(tx, lease, machine.Fenced())
    tx.changed_nodes[node_id] = "node_fenced"
    return find(tx, node_id) or row


def find(tx: Transaction, node_id: str) -> RowMapping | None:
    """Return a node's row."""
    return tx.one(select(tables.node).where(_node.node_id == node_id))


def _check_hello(message: agent_pb2.Hello) -> None:
    if not message.node_id or not message.boot_id:
        raise FrazilError("HELLO_INVALID", "Hello must name the node and its boot id.")
    kinds = (scheduler_pb2.GpuSlot.KIND_GPU, scheduler_pb2.GpuSlot.KIND_CPU)
    for slot in message.slots:
        if not slot.slot_key or slot.kind not in kinds or slot.memory_mib <= 0:
            raise FrazilError("HELLO_INVALID", f"Slot {slot.slot_key!r} of {message.node_id} lacks a key, kind or memory.")
    for slot in message.slots:
        gpu = slot.slot_key.partition("#")[0]
        shares = sum(one.memory_mib for one in message.slots if one.slot_key.partition("#")[0] == gpu)
        if 0 < slot.gpu_memory_total_mib < shares:
            sentence = (
                f"The slots of GPU {gpu} share {shares:,} MiB, but it has {slot.gpu_memory_total_mib:,} MiB; declare less."
            )
            raise FrazilError("SHARES_TOO_LARGE", sentence)


def _take_slots(tx: Transaction, message: agent_pb2.Hello) -> None:
    here = _slot.node_id == message.node_id
    tx.run(update(tables.slot).where(here).values(present=False))
    known = {row["slot_key"] for row in tx.all(select(_slot.slot_key).where(here))}
    for slot in message.slots:
        values: dict[str, Any] = {
            "kind": scheduler_pb2.GpuSlot.Kind.Name(slot.kind).removeprefix("KIND_"),
            "device_name": slot.device_name,
            "memory_mib": slot.memory_mib,
            "present": True,
            "stray_lease_id": "",
            "stray_epoch": 0,
        }
        if slot.slot_key in known:
            tx.run(update(tables.slot).where(here, _slot.slot_key == slot.slot_key).values(**values))
            continue
        others = slots.find(tx, slot.slot_key)  # another container's agent offers the same slot
        if others:
            values |= {key: others[0][key] for key in (*slots.IN_SERVICE, "drained", "handoff_session_id")}
        tx.run(insert(tables.slot).values(node_id=message.node_id, slot_key=slot.slot_key, **values))


def _reconcile(tx: Transaction, message: agent_pb2.Hello) -> agent_pb2.Welcome:
    welcome = agent_pb2.Welcome()
    held = {slot.slot_key: slot for slot in message.held}
    for row in _open_leases(tx, message.node_id):
        found = held.get(row["slot_key"])
        is_held = found is not None and (found.lease_id, found.epoch) == (row["lease_id"], row["epoch"])
        job = jobs.find(tx, row["job_id"])
        after = leases.apply(tx, row, machine.HelloSeen(message.boot_id, is_held, job["epoch"] if job is not None else 0))
        if is_held:
            (welcome.adopt if machine.adopted(leases.to_lease(after)) else welcome.kill).append(row["lease_id"])
            if after["state"] == "CLOSED":
                _mark_stray(tx, message.node_id, row["slot_key"], row["lease_id"], row["epoch"])
    for slot in message.held:
        row_or_none = leases.find(tx, slot.lease_id)
        if row_or_none is None or row_or_none["state"] == "CLOSED" or row_or_none["epoch"] != slot.epoch:
            if slot.lease_id not in welcome.kill:
                welcome.kill.append(slot.lease_id)
            _mark_stray(tx, message.node_id, slot.slot_key, slot.lease_id, slot.epoch)
    return welcome


def _mark_stray(tx: Transaction, node_id: str, slot_key: str, lease_id: str, epoch: int) -> None:
    here = (_slot.node_id == node_id) & (_slot.slot_key == slot_key)
    tx.run(update(tables.slot).where(here).values(stray_lease_id=lease_id or "unknown", stray_epoch=epoch))


def _reported(tx: Transaction, node_id: str, lease_id: str, epoch: int) -> RowMapping | None:
    row = leases.find(tx, lease_id)
    return row if row is not None and (row["node_id"], row["epoch"]) == (node_id, epoch) else None


def _order(tx: Transaction, row: RowMapping) -> Order | None:
    lease = leases.to_lease(row)
    wanted = machine.wanted(lease)
    response = agent_pb2.ConnectResponse(term=tx.term)
    if wanted is machine.Message.START:
        response.start.CopyFrom(_start(tx, row))
        return Order(("START", lease.lease_id), response, limits.START_AGAIN_SECONDS)
    if wanted is machine.Message.STOP:
        stop = lease.stop or machine.Stop.KILL
        left = max(0.0, row["stop_mono"] - tx.mono)
        response.stop.CopyFrom(
            agent_pb2.Stop(lease_id=lease.lease_id, epoch=lease.epoch, mode=STOP_MODES[stop], deadline_seconds=left)
        )
        return Order(("STOP", lease.lease_id, stop), response, limits.STOP_AGAIN_SECONDS)
    if wanted is machine.Message.PROBE:
        quarantined = lease.state is machine.State.QUARANTINED
        asked = any(slot["clear_asked"] for slot in slots.find(tx, row["slot_key"]))
        again = limits.PROBE_QUARANTINED_SECONDS if quarantined else limits.PROBE_AGAIN_SECONDS
        probe = agent_pb2.Probe(slot_key=row["slot_key"], lease_id=lease.lease_id, epoch=lease.epoch, afresh=asked)
        response.probe.CopyFrom(probe)
        return Order(("PROBE", lease.lease_id, asked), response, again)
    return None


def _start(tx: Transaction, row: RowMapping) -> agent_pb2.Start:
    job = jobs.find(tx, row["job_id"])
    slot = tx.one(select(tables.slot).where(_slot.node_id == row["node_id"], _slot.slot_key == row["slot_key"]))
    return agent_pb2.Start(
        lease_id=row["lease_id"],
        epoch=row["epoch"],
        slot_key=row["slot_key"],
        job_id=row["job_id"],
        job_type=job["job_type"] if job is not None else "",
        program=job["program"] if job is not None else "",
        memory_mib=slot["memory_mib"] if slot is not None else 0,
    )


def _open_leases(tx: Transaction, node_id: str) -> Sequence[RowMapping]:
    return tx.all(select(tables.lease).where(_lease.node_id == node_id, leases.OPEN).order_by(_lease.epoch))


def _set_state(tx: Transaction, node_id: str, state: str, **values: Any) -> None:
    tx.run(update(tables.node).where(_node.node_id == node_id).values(state=state, **values))
    tx.changed_nodes[node_id] = f"node_{state.lower()}"
    tx.placement_wanted = True
    tx.topics.add(f"node:{node_id}")
