"""Transactions that wait for the store's thread share one commit: in order, each failing alone, none answered before it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import FrazilError
from frazil.rpc.failpoints import EXIT_CODE
from frazil_scheduler.clock import Clock
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.store import GROUP_MAX, Store
from frazil_scheduler.ledger.transaction import Transaction
from unit.scheduler.groups import together

Body = Callable[[Transaction], Any]
CLOCK = Clock(monotonic=lambda: 1.0, wall_ns=lambda: 10**18)


@pytest.fixture
def store(ledger: str) -> Iterator[Store]:
    store = Store(ledger, CLOCK)
    yield store
    store.close()


def groups_of(store: Store) -> list[list[list[int]]]:
    """Return the list to which every commit from now on adds its transactions' events."""
    groups: list[list[list[int]]] = []
    store.committed = lambda done: groups.append([[event.sequence for event in tx.events] for tx in done])
    return groups


def kept(store: Store) -> list[int]:
    return [row["sequence"] for row in store.read(lambda tx: tx.all(select(tables.event).order_by("sequence")))]


def node(tx: Transaction, node_id: str) -> None:
    tx.run(insert(tables.node), node_id=node_id)


def nodes(tx: Transaction) -> set[str]:
    return {row["node_id"] for row in tx.all(select(tables.node))}


async def test_those_that_wait_share_a_commit_and_come_in_order(store: Store) -> None:
    groups = groups_of(store)
    answers = await together(store, *(lambda tx, n=n: (tx.notice("info", str(n)), tx.head)[1] for n in range(GROUP_MAX + 2)))
    assert answers == list(range(1, GROUP_MAX + 3)) == kept(store)
    assert groups == [[[n] for n in range(1, GROUP_MAX + 1)], [[GROUP_MAX + 1], [GROUP_MAX + 2]]]


async def test_a_failure_undoes_one_transaction_alone(store: Store) -> None:
    groups = groups_of(store)

    def half(tx: Transaction) -> None:
        node(tx, "half")
        tx.notice("info", "of the failed")
        raise ValueError

    def twice(tx: Transaction) -> None:
        node(tx, "once")
        node(tx, "a")

    def last(tx: Transaction) -> set[str]:
        tx.notice("info", "last")
        return nodes(tx)

    first, failed, refused, seen = await together(store, lambda tx: node(tx, "a"), half, twice, last)
    assert first is None
    assert isinstance(failed, ValueError)
    assert isinstance(refused, FrazilError)
    assert refused.reason == "LEDGER_UNAVAILABLE"
    assert seen == {"a"} == store.read(nodes)
    assert groups == [[[], [1]]]
    assert kept(store) == [1]


async def test_where_all_fail_nothing_is_told(store: Store) -> None:
    groups = groups_of(store)

    def fail(tx: Transaction) -> None:
        tx.notice("info", "x")
        raise ValueError

    assert [type(answer) for answer in await together(store, fail, fail)] == [ValueError, ValueError]
    assert (groups, kept(store)) == ([], [])


async def test_who_has_given_up_before_its_turn_gets_nothing_done(store: Store) -> None:
    gate = threading.Event()
    busy = asyncio.ensure_future(store.look(lambda _: gate.wait()))
    asked = [asyncio.ensure_future(store.run(lambda tx, name=name: node(tx, name))) for name in "ab"]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(busy, asked[1])
    assert store.read(nodes) == {"b"}


async def test_a_taken_over_ledger_refuses_the_whole_group(store: Store) -> None:
    store.transact(lambda tx: tx.run(tables.meta.update().values(term=99)))
    answers = await together(store, *(lambda tx: tx.notice("info", "hello") for _ in range(2)))
    assert [answer.reason for answer in answers] == ["TERM_STALE", "TERM_STALE"]
    assert kept(store) == []


async def test_a_full_disk_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    store = Store(tmp_path / "ledger.sqlite", CLOCK)

    def pragma(value: str) -> Any:
        return store.read(lambda tx: tx.scalar(text(f"PRAGMA {value}")))

    pragma(f"max_page_count={pragma('page_count') + 4}")
    large = "x" * 10**6
    answers = await together(
        store,
        lambda tx: tx.notice("info", "small"),
        lambda tx: tx.run(insert(tables.node), node_id="large", programs=large),
        lambda tx: tx.notice("info", "small too"),
    )
    done = [answer is None for answer in answers]
    assert not done[1]
    assert kept(store) == list(range(1, 1 + sum(done)))
    pragma("max_page_count=1000000")
    assert await together(store, lambda tx: tx.notice("info", "with room again")) == [None]
    assert store.read(nodes) == set()
    store.close()


CRASH = """
import asyncio, sys, threading
from frazil.rpc.failpoints import operation
from frazil_scheduler.clock import Clock
from frazil_scheduler.ledger.store import Store

async def one(store, name):
    operation.set(name)
    await store.run(lambda tx: tx.notice("info", name))
    print(name, flush=True)

async def main():
    store = Store(sys.argv[1], Clock())
    await one(store, "First")
    gate = threading.Event()
    busy = asyncio.create_task(store.look(lambda _: gate.wait()))
    group = [asyncio.create_task(one(store, name)) for name in ("Second", "Third", "Fourth")]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(busy, *group)

asyncio.run(main())
"""


@pytest.mark.parametrize(("point", "durable"), [("scheduler.Third.before", [1]), ("scheduler.Third.after", [1, 2, 3, 4])])
def test_a_crash_within_a_group_loses_nothing_that_was_answered(ledger: str, point: str, durable: list[int]) -> None:
    process = subprocess.run(
        [sys.executable, "-c", CRASH, ledger], env={**os.environ, "FRAZIL_FAILPOINT": point}, capture_output=True, text=True
    )
    assert (process.returncode, process.stdout.split()) == (EXIT_CODE, ["First"]), process.stderr
    store = Store(ledger, CLOCK)
    assert kept(store) == durable
    store.close()


# ------------------------------------------------------------------------------------------------ grouped equals serial
NAMES = st.sampled_from("abc")
STEPS = st.one_of(
    st.tuples(st.just("insert"), NAMES),  # a second one is refused by the database
    st.tuples(st.just("append"), NAMES),
    st.tuples(st.just("once"), NAMES),  # a repeat gets the first reply
    st.tuples(st.just("notice"), NAMES),
    st.tuples(st.just("fail"), NAMES),
)
PROGRAMS = st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=1, max_size=8)


def body_of(steps: Sequence[tuple[str, str]]) -> Body:
    """Return a transaction that does the steps and returns what it has seen."""

    def body(tx: Transaction) -> list[Any]:
        seen: list[Any] = []
        for kind, name in steps:
            mine = tables.node.c.node_id == name
            if kind == "insert":
                node(tx, name)
            elif kind == "append":
                row = tx.one(select(tables.node.c.programs).where(mine))
                seen.append(row and row["programs"])
                tx.run(update(tables.node).where(mine).values(programs=tables.node.c.programs + name))
            elif kind == "once":
                request = session_pb2.StartSessionRequest(request_id=name)
                fresh = session_pb2.Session(name=f"{name} of {len(nodes(tx))}")
                reply = tx.once(request, session_pb2.Session, lambda fresh=fresh: fresh)
                seen.append(reply.name)
            elif kind == "notice":
                tx.notice("info", name)
                seen.append(tx.head)
            else:
                raise ValueError(name)
        return seen

    return body


def wiped(tx: Transaction) -> None:
    for table in (tables.node, tables.request, tables.event):
        tx.run(delete(table))


def state_of(store: Store) -> list[list[dict[str, Any]]]:
    keys = (tables.node.c.node_id, tables.request.c.request_id, tables.event.c.sequence)
    ignored = {"sequence"}  # of a request: a number that only orders them
    rows = [store.read(lambda tx, key=key: tx.all(select(key.table).order_by(key))) for key in keys]
    requests = [{name: value for name, value in row.items() if name not in ignored} for row in rows[1]]
    return [[dict(row) for row in rows[0]], requests, [dict(row) for row in rows[2]]]


def words(answers: Sequence[Any]) -> list[Any]:
    return [(type(answer), getattr(answer, "reason", "")) if isinstance(answer, Exception) else answer for answer in answers]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs=PROGRAMS)
def test_grouped_equals_one_after_the_other(
    new_ledger: Callable[[], str], stores: list[Store], programs: list[list[tuple[str, str]]]
) -> None:
    while len(stores) < 2:
        stores.append(Store(new_ledger(), CLOCK))
    serial, grouped = stores
    bodies = [body_of(steps) for steps in programs]
    told = []
    for store in stores:
        store.transact(wiped)
        told.append(heard := [])
        store.committed = lambda done, heard=heard: heard.extend(event.sequence for tx in done for event in tx.events)

    async def run() -> tuple[list[Any], list[Any]]:
        one_by_one = [await asyncio.gather(serial.run(body), return_exceptions=True) for body in bodies]
        return [answer for (answer,) in one_by_one], await together(grouped, *bodies)

    expected, answers = asyncio.run(run())
    assert words(answers) == words(expected)
    assert state_of(grouped) == state_of(serial)
    assert told[1] == told[0] == [row["sequence"] for row in state_of(grouped)[2]]


@pytest.fixture
def stores() -> Iterator[list[Store]]:
    """Stores for all examples of a property: opening one takes longer than an example."""
    stores: list[Store] = []
    yield stores
    for store in stores:
        store.close()
