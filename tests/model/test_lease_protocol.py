"""The lease protocol, every interleaving: one slot, two jobs, crashes, partitions, late and repeated messages, frozen workers.

The scheduler's side is the real machine, `frazil_scheduler.lease.step`; the agent, the network and the workers are modelled.
The chosen protocol must have no violation, and each weakened one must have one: else the model proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from frazil_scheduler import lease as machine
from model.explore import explore

EPOCHS = 3
BOOT = "boot"

TWO_ON_ONE_SLOT = "two live workers on one slot"
FREE_BUT_USED = "the ledger says free while a worker lives"
STALE_RESULT = "a stale epoch's result counts"
JOB_LOST = "a job is lost or doubled"


@dataclass(frozen=True)
class Protocol:
    """The ingredients; leaving one out must break something."""

    proof: bool = True  # else: a silent node's lease is freed by time
    epoch_check: bool = True  # at commit
    kernel_lock: bool = True  # else: the agent knows its workers from memory only
    refuse_old_starts: bool = True  # the newest epoch seen is kept in the lock file
    ledger_first: bool = True  # the start is sent only after the lease is in the ledger


class World(NamedTuple):
    lease: machine.Lease | None  # the open lease of the slot
    holder: str
    epoch: int  # newest given
    queue: tuple[str, ...]
    linked: bool
    scheduler_up: bool
    agent_up: bool
    connected: bool  # Hello was said on this connection
    known: frozenset[int]  # epochs that the agent believes to run
    seen: int  # newest epoch the agent has started or proved free
    workers: frozenset[tuple[int, bool]]  # live: epoch, frozen
    starts: frozenset[int]  # Start messages in flight: each may arrive any number of times
    commits: frozenset[int]  # commits in flight, by the sender's epoch
    counted: frozenset[tuple[int, int]]  # sender's epoch, newest epoch at that moment


START = World(
    lease=None,
    holder="",
    epoch=0,
    queue=("A", "B"),
    linked=True,
    scheduler_up=True,
    agent_up=True,
    connected=False,
    known=frozenset(),
    seen=0,
    workers=frozenset(),
    starts=frozenset(),
    commits=frozenset(),
    counted=frozenset(),
)


def apply(world: World, event: machine.Event) -> World:
    """Let the real machine take a step and follow its effects as the ledger does."""
    assert world.lease is not None
    lease, effects = machine.step(world.lease, event)
    for effect in effects:
        match effect:
            case machine.JobReleased():
                world = world._replace(queue=(*world.queue, world.holder))
            case machine.JobRuns() if world.holder in world.queue:  # it heals
                world = world._replace(queue=tuple(job for job in world.queue if job != world.holder))
            case machine.SlotFreed():
                return world._replace(lease=None, holder="")
    return world._replace(lease=lease)


def moves(world: World, protocol: Protocol) -> Iterator[tuple[str, World]]:
    if world.scheduler_up:
        yield from scheduler_moves(world, protocol)
        yield "scheduler_crash", world._replace(scheduler_up=False, connected=False)
    else:
        yield "scheduler_restart", world._replace(scheduler_up=True)
    if world.agent_up:
        yield from agent_moves(world, protocol)
    else:
        # With the kernel's lock a restarted agent finds whoever holds it; without, it has forgotten its children.
        found = frozenset(epoch for epoch, _ in world.workers) if protocol.kernel_lock else frozenset()
        yield "agent_restart", world._replace(agent_up=True, known=found)
    yield (
        ("link_down", world._replace(linked=False, connected=False))
        if world.linked
        else ("link_up", world._replace(linked=True))
    )
    for worker in world.workers:
        yield from worker_moves(world, worker)


def scheduler_moves(world: World, protocol: Protocol) -> Iterator[tuple[str, World]]:
    lease = world.lease
    if lease is None:
        yield from grant(world, protocol)
    else:
        if machine.wanted(lease) is machine.Message.START:
            yield "order_start", world._replace(starts=world.starts | {lease.epoch})
        if lease.state in (machine.State.RESERVED, machine.State.HELD) and not lease.stop:
            yield "ask_stop", apply(world, machine.StopAsked(machine.Stop.DRAIN))
        if not world.connected and machine.step(lease, machine.NodeSilent())[0] != lease:
            yield "node_silent", apply(world, machine.NodeSilent())
        if lease.state is machine.State.RELEASING:
            yield "proof_overdue", apply(world, machine.ProofOverdue())
        if lease.state is machine.State.LOST and not protocol.proof:
            yield "free_by_time", world._replace(lease=None, holder="")
    for sender in world.commits:
        if world.linked and (not protocol.epoch_check or may_commit(world, sender)):
            yield f"commit_{sender}", world._replace(counted=world.counted | {(sender, world.epoch)})


def may_commit(world: World, sender: int) -> bool:
    return world.lease is not None and not world.lease.released and sender == world.lease.epoch == world.epoch


def grant(world: World, protocol: Protocol) -> Iterator[tuple[str, World]]:
    epoch = world.epoch + 1
    if not world.queue or epoch > EPOCHS:
        return
    reserved = world._replace(
        lease=machine.Lease(lease_id=str(epoch), epoch=epoch, boot_id=BOOT),
        holder=world.queue[0],
        queue=world.queue[1:],
        epoch=epoch,
    )
    if protocol.ledger_first:
        yield "grant", reserved
    elif epoch in world.starts:
        yield "grant_after_start", reserved
    else:
        yield "start_before_grant", world._replace(starts=world.starts | {epoch})


def agent_moves(world: World, protocol: Protocol) -> Iterator[tuple[str, World]]:
    for epoch in world.starts:
        busy = world.workers if protocol.kernel_lock else world.known
        old = epoch <= world.seen if protocol.refuse_old_starts else epoch in world.known
        if world.linked and not busy and not old:
            yield (
                f"agent_starts_{epoch}",
                world._replace(
                    workers=world.workers | {(epoch, False)}, known=world.known | {epoch}, seen=max(world.seen, epoch)
                ),
            )
    for epoch in world.known:
        if all(worker != epoch for worker, _ in world.workers):
            yield f"agent_reaps_{epoch}", world._replace(known=world.known - {epoch})
    yield "agent_crash", world._replace(agent_up=False, connected=False, known=frozenset())
    if world.linked and world.scheduler_up:
        yield from reports(world, protocol)


def reports(world: World, protocol: Protocol) -> Iterator[tuple[str, World]]:
    """What the agent tells the scheduler, and what it does because it was told."""
    lease = world.lease
    held = {epoch for epoch, _ in world.workers} if protocol.kernel_lock else set(world.known)
    if not world.connected:
        said = world._replace(connected=True)
        if lease is not None:
            said = apply(said, machine.HelloSeen(BOOT, lease.epoch in held, world.epoch))
        yield "hello", said
        return
    if lease is None:
        return
    if lease.epoch in world.known:
        yield "started", apply(world, machine.Started())
    elif lease.epoch <= world.seen:
        yield "exited", apply(world, machine.WorkerExited(1))
    elif machine.wanted(lease) is machine.Message.STOP:
        yield "exited_never_started", apply(world, machine.WorkerExited(None))
    visible = {worker for worker in world.workers if protocol.kernel_lock or worker[0] in world.known}
    if machine.wanted(lease) is machine.Message.STOP and visible:
        yield "agent_kills", world._replace(workers=world.workers - visible)
    if machine.wanted(lease) is machine.Message.PROBE and not visible:
        proved = world._replace(known=frozenset(), seen=max(world.seen, lease.epoch))
        yield "proved_free", apply(proved, machine.ProvedFree())
    if machine.wanted(lease) is machine.Message.PROBE and visible:
        yield "not_free", apply(world, machine.ProvedFree("the lock is held"))


def worker_moves(world: World, worker: tuple[int, bool]) -> Iterator[tuple[str, World]]:
    epoch, frozen = worker
    others = world.workers - {worker}
    yield f"worker_{epoch}_dies", world._replace(workers=others)
    yield f"worker_{epoch}_{'wakes' if frozen else 'freezes'}", world._replace(workers=others | {(epoch, not frozen)})
    if not frozen:
        yield f"worker_{epoch}_commits", world._replace(commits=world.commits | {epoch})


def violations(world: World) -> Iterator[str]:
    if len(world.workers) > 1:
        yield TWO_ON_ONE_SLOT
    if world.lease is None and world.workers:
        yield FREE_BUT_USED
    if any(sender < newest for sender, newest in world.counted):
        yield STALE_RESULT
    bound = [world.holder] if world.lease is not None and not world.lease.released else []
    if sorted([*world.queue, *bound]) != ["A", "B"]:
        yield JOB_LOST


def test_the_chosen_protocol_has_no_violation() -> None:
    found = explore(START, lambda world: moves(world, Protocol()), violations)
    assert found.complete
    assert found.violations == {}
    assert found.states > 20_000


@pytest.mark.parametrize(
    ("weakened", "expected"),
    [
        (Protocol(proof=False), FREE_BUT_USED),
        (Protocol(kernel_lock=False), FREE_BUT_USED),
        (Protocol(refuse_old_starts=False), FREE_BUT_USED),
        (Protocol(epoch_check=False), STALE_RESULT),
        (Protocol(ledger_first=False), FREE_BUT_USED),
    ],
    ids=["freed by time", "no kernel lock", "old starts accepted", "no epoch check at commit", "start before the ledger"],
)
def test_each_weakened_protocol_breaks(weakened: Protocol, expected: str) -> None:
    found = explore(START, lambda world: moves(world, weakened), violations, stop_at_first=True)
    assert expected in found.violations
