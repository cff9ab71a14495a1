"""A GPU fails while scheduler, agent and the messages between them may fail too: one slot, one job, the real lease machine.

The agent remembers a grave error, says so at once and at every new stream, and proves the slot free for nobody until a person
asks for a fresh look. Each of these is needed: without it a job is granted on a GPU that has failed and that nobody cleared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from frazil_scheduler import lease as machine
from model.explore import Exploration, explore

EPOCHS = 3
GRANTED_ON_A_BROKEN_GPU = "a job is granted on a GPU that is known to have failed"


@dataclass(frozen=True)
class Protocol:
    remembers: bool = True  # the agent keeps a grave error until a person asks
    says_again: bool = True  # at every new stream
    told_of_persons: bool = True  # a probe says whether a person asked for it
    whole_gpu: bool = True  # the slot goes out of service, not only the lease


class World(NamedTuple):
    lease: machine.Lease | None
    epoch: int
    out: bool  # the slot is out of service in the ledger
    cleared: bool  # a person has asked for a fresh look
    broken: bool  # the GPU really is
    reported: bool  # its agent has seen the error since the last clear
    known: bool  # the agent remembers it
    unsaid: bool  # the error waits to be sent
    connected: bool
    alive: bool  # the worker
    bad_grant: bool


START = World(None, 0, False, False, False, False, False, False, True, False, False)


def apply(world: World, event: machine.Event) -> World:
    assert world.lease is not None
    after, effects = machine.step(world.lease, event)
    for effect in effects:
        match effect:
            case machine.SlotQuarantined():
                world = world._replace(out=True, cleared=False)
            case machine.SlotFreed():
                return back(world)._replace(lease=None)
    return world._replace(lease=after)


def back(world: World) -> World:
    """The slot is proven free: one that a person has cleared is in service again."""
    return world._replace(out=False, cleared=False) if world.cleared else world


def moves(world: World, protocol: Protocol) -> Iterator[tuple[str, World]]:
    if not world.broken and world.epoch < EPOCHS:
        seen = world._replace(broken=True, reported=True, known=protocol.remembers, unsaid=True)
        yield "the GPU fails", seen
    if world.broken:
        yield "somebody repairs it", world._replace(broken=False)
    if world.alive:
        yield "the worker dies", world._replace(alive=False)
    if world.connected:
        yield "the stream breaks", world._replace(connected=False, unsaid=False)
        yield from connected_moves(world, protocol)
    else:
        found = world._replace(connected=True, unsaid=world.known and protocol.says_again)
        if world.lease is not None:
            found = apply(found, machine.HelloSeen("boot", world.alive, world.epoch))
        yield "hello", found
    if world.out and not world.cleared:
        yield "a person asks to clear", world._replace(cleared=True)


def connected_moves(world: World, protocol: Protocol) -> Iterator[tuple[str, World]]:
    if world.unsaid:
        told = world._replace(unsaid=False, out=world.out or protocol.whole_gpu, cleared=False)
        if told.lease is not None and told.lease.state in (machine.State.RESERVED, machine.State.HELD):
            told = apply(told, machine.StopAsked(machine.Stop.KILL))
        yield "the fault is heard", told
    if world.lease is None:
        if not world.out and world.epoch < EPOCHS:
            lease = machine.Lease(lease_id="l", epoch=world.epoch + 1, boot_id="boot")
            bad = world.broken and world.reported and not world.unsaid
            yield "grant", world._replace(lease=lease, epoch=world.epoch + 1, bad_grant=bad)
        if world.cleared:
            yield "probe of the empty slot", probed(world, protocol)
        return
    wanted = machine.wanted(world.lease)
    if wanted is machine.Message.START:
        yield "start", apply(world._replace(alive=True), machine.Started())
    if wanted is machine.Message.STOP:
        yield "stop", apply(world._replace(alive=False), machine.WorkerExited(-9))
    if world.lease.state is machine.State.HELD and not world.alive:
        failed = world.known
        yield "exit is heard", apply(world, machine.WorkerExited(1, gpu_failed=failed))
    if wanted is machine.Message.PROBE:
        yield "probe", probed(world, protocol)


def probed(world: World, protocol: Protocol) -> World:
    """The agent looks, as far as it can: only what it remembers tells it of an error that a look does not show."""
    if world.cleared:
        world = world._replace(known=False, reported=False)
    elif not protocol.told_of_persons:
        world = world._replace(known=False)
    problem = "it has failed" if world.known else ""
    if world.lease is not None:
        return apply(world, machine.ProvedFree(problem))
    return world._replace(cleared=False) if problem else back(world)


def violations(world: World) -> Iterator[str]:
    if world.bad_grant:
        yield GRANTED_ON_A_BROKEN_GPU


def check(protocol: Protocol) -> Exploration:
    return explore(START, lambda world: moves(world, protocol), violations, limit=400_000)


def test_the_protocol_gives_no_failed_gpu_to_a_job() -> None:
    found = check(Protocol())
    assert found.complete
    assert found.violations == {}
    assert found.states > 100


@pytest.mark.parametrize(
    "weak",
    [Protocol(remembers=False), Protocol(says_again=False), Protocol(told_of_persons=False), Protocol(whole_gpu=False)],
    ids=["forgets", "says it once", "cannot tell who asks", "takes out the lease alone"],
)
def test_every_weakened_protocol_does(weak: Protocol) -> None:
    assert GRANTED_ON_A_BROKEN_GPU in check(weak).violations
