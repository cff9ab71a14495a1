"""A job moves while its node is lost: two nodes with one slot each, one job, links that flap, commits in flight.

The machine is the real one. Moving without proof is safe given the epoch check at commit and the heal guard; without either
it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest

from frazil_scheduler import lease as machine
from model.explore import explore

EPOCHS = 3
BOOT = "boot"

TWO_ON_ONE_SLOT = "two live workers on one slot"
FREE_BUT_USED = "the ledger says free while a worker lives"
STALE_RESULT = "a stale epoch's result counts"
TWO_LEASES = "two leases bind the job"
JOB_LOST = "the job neither waits nor has a lease"


@dataclass(frozen=True)
class Protocol:
    epoch_check: bool = True
    heal_guard: bool = True  # a lost lease heals only while its epoch is the job's newest


class World(NamedTuple):
    leases: tuple[machine.Lease | None, machine.Lease | None]
    waiting: bool
    epoch: int  # newest of the job
    linked: tuple[bool, bool]
    connected: tuple[bool, bool]
    workers: frozenset[tuple[int, int]]  # live: slot, epoch
    seen: tuple[int, int]  # newest epoch per agent
    commits: frozenset[int]
    stale: bool


START = World((None, None), True, 0, (True, True), (True, True), frozenset(), (0, 0), frozenset(), False)


def put(pair: tuple, slot: int, value: object) -> tuple:
    return (value, pair[1]) if slot == 0 else (pair[0], value)


def apply(world: World, slot: int, event: machine.Event) -> World:
    lease = world.leases[slot]
    assert lease is not None
    after, effects = machine.step(lease, event)
    for effect in effects:
        match effect:
            case machine.JobReleased() if lease.epoch == world.epoch:
                world = world._replace(waiting=True)
            case machine.JobRuns():
                world = world._replace(waiting=False)
            case machine.SlotFreed():
                return world._replace(leases=put(world.leases, slot, None))
    return world._replace(leases=put(world.leases, slot, after))


def moves(world: World, protocol: Protocol) -> Iterator[tuple[str, World]]:
    for slot in (0, 1):
        yield from slot_moves(world, slot, protocol)
    for slot, epoch in world.workers:
        yield f"worker_{epoch}_dies", world._replace(workers=world.workers - {(slot, epoch)})
        yield f"worker_{epoch}_commits", world._replace(commits=world.commits | {epoch})
    for sender in world.commits:
        bound = any(lease is not None and not lease.released and lease.epoch == sender for lease in world.leases)
        if not protocol.epoch_check or (bound and sender == world.epoch):
            yield f"commit_{sender}", world._replace(stale=world.stale or sender != world.epoch)


def slot_moves(world: World, slot: int, protocol: Protocol) -> Iterator[tuple[str, World]]:
    lease = world.leases[slot]
    running = {epoch for place, epoch in world.workers if place == slot}
    if world.linked[slot]:
        yield (
            f"link_{slot}_down",
            world._replace(linked=put(world.linked, slot, False), connected=put(world.connected, slot, False)),
        )
    else:
        yield f"link_{slot}_up", world._replace(linked=put(world.linked, slot, True))
    if lease is None:
        if world.waiting and world.epoch < EPOCHS and world.connected[slot]:
            granted = machine.Lease(lease_id=str(world.epoch + 1), epoch=world.epoch + 1, boot_id=BOOT)
            yield (
                f"grant_on_{slot}",
                world._replace(leases=put(world.leases, slot, granted), waiting=False, epoch=world.epoch + 1),
            )
        if not world.connected[slot] and world.linked[slot]:
            yield f"hello_{slot}", world._replace(connected=put(world.connected, slot, True))
        return
    if not world.connected[slot]:
        if machine.step(lease, machine.NodeSilent())[0] != lease:
            yield f"node_{slot}_silent", apply(world, slot, machine.NodeSilent())
        if world.linked[slot]:
            newest = world.epoch if protocol.heal_guard else lease.epoch
            said = world._replace(connected=put(world.connected, slot, True))
            yield f"hello_{slot}", apply(said, slot, machine.HelloSeen(BOOT, lease.epoch in running, newest))
        return
    yield from orders(world, slot, lease, running)


def orders(world: World, slot: int, lease: machine.Lease, running: set[int]) -> Iterator[tuple[str, World]]:
    seen = put(world.seen, slot, max(world.seen[slot], lease.epoch))
    match machine.wanted(lease):
        case machine.Message.START:
            if lease.epoch > world.seen[slot] and not running:
                started = world._replace(workers=world.workers | {(slot, lease.epoch)}, seen=seen)
                yield f"started_{slot}", apply(started, slot, machine.Started())
            elif lease.epoch not in running:
                yield f"refused_{slot}", apply(world, slot, machine.Refused("STALE_EPOCH"))
        case machine.Message.STOP:
            dead = world._replace(workers=frozenset(w for w in world.workers if w[0] != slot), seen=seen)
            yield f"exited_{slot}", apply(dead, slot, machine.WorkerExited(-9))
        case machine.Message.PROBE if not running:
            yield f"proved_free_{slot}", apply(world._replace(seen=seen), slot, machine.ProvedFree())
        case None if lease.state is machine.State.HELD and lease.epoch not in running:
            yield f"exited_{slot}", apply(world, slot, machine.WorkerExited(1))


def violations(world: World) -> Iterator[str]:
    for slot in (0, 1):
        running = [epoch for place, epoch in world.workers if place == slot]
        if len(running) > 1:
            yield TWO_ON_ONE_SLOT
        if running and world.leases[slot] is None:
            yield FREE_BUT_USED
    binding = [lease for lease in world.leases if lease is not None and not lease.released]
    if len(binding) > 1:
        yield TWO_LEASES
    if not binding and not world.waiting:
        yield JOB_LOST
    if world.stale:
        yield STALE_RESULT


def test_a_job_may_move_from_a_lost_node_without_proof() -> None:
    found = explore(START, lambda world: moves(world, Protocol()), violations)
    assert found.complete
    assert found.violations == {}
    assert found.states > 20_000


@pytest.mark.parametrize(
    ("weakened", "expected"),
    [(replace(Protocol(), heal_guard=False), TWO_LEASES), (replace(Protocol(), epoch_check=False), STALE_RESULT)],
    ids=["no heal guard", "no epoch check at commit"],
)
def test_each_weakened_protocol_breaks(weakened: Protocol, expected: str) -> None:
    found = explore(START, lambda world: moves(world, weakened), violations, stop_at_first=True)
    assert expected in found.violations
