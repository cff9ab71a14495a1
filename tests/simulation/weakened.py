"""The protocol with one of its rules left out: a simulation that cannot tell is worth nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lease as machine
from frazil_scheduler.domain import jobs, leases, stalls
from frazil_scheduler.ledger.transaction import Transaction


def _time_frees(lease: machine.Lease) -> machine.Outcome:
    """A silent node's lease expires."""
    lease, effects = machine._release(lease, machine.Cause.NODE_LOST)
    return replace(lease, state=machine.State.CLOSED, dead=True), (*effects, machine.SlotFreed())


def _any_epoch(tx: Transaction, token: Any) -> tuple[Any, Any]:
    """Whoever comes may act."""
    row = leases.find(tx, token.lease_id)
    job = jobs.find(tx, row["job_id"]) if row is not None else None
    if row is None or job is None:
        raise FrazilError("EPOCH_STALE", "There is no such lease.", kind=ErrorKind.CONFLICT)
    return row, job


def _found_held(lease: machine.Lease, job_epoch: int) -> machine.Outcome:
    """A lost lease heals whatever has become of its job."""
    if lease.state is machine.State.LOST:
        return replace(lease, state=machine.State.HELD, released=False), (machine.JobRuns(),)
    return _FOUND_HELD(lease, job_epoch)


def _always_new(_: Transaction, request: Any, reply_type: Any, body: Callable[[], Any], **more: Any) -> Any:
    """A repeated request is done again."""
    return body()


def _watch_nobody(_: Transaction, asked: Any) -> None:
    """A worker that lives is trusted."""


_FOUND_HELD = machine._found_held
RULES: dict[str, Callable[[], Any]] = {
    "time never frees a slot": lambda: mock.patch.object(machine, "_node_silent", _time_frees),
    "only the newest epoch acts": lambda: mock.patch.object(leases, "current", _any_epoch),
    "a lost lease heals only while it is its job's newest": lambda: mock.patch.object(machine, "_found_held", _found_held),
    "a repeated request has one effect": lambda: mock.patch.object(Transaction, "once", _always_new),
    "a worker without progress starts anew": lambda: mock.patch.object(stalls, "watch", _watch_nobody),
}


@contextmanager
def without(rule: str) -> Iterator[None]:
    """Leave out a rule."""
    with RULES[rule]():
        yield
