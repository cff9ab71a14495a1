"""What only PostgreSQL brings: connections that are lost, commits in doubt, locks on a server, URLs, faults in one sentence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest
from sqlalchemy import select, text

from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.clock import Clock
from frazil_scheduler.ledger import postgresql, store, tables
from frazil_scheduler.ledger.database import check_database, open_database
from frazil_scheduler.ledger.store import Store
from frazil_scheduler.ledger.transaction import Transaction
from postgresql import Server
from relay import COMMIT, COMMITTED, Relay
from unit.scheduler.groups import together

SECRET = "s3cr3t"


@dataclass
class Linked:
    """A store that reaches its server by a link that a test cuts."""

    url: str
    relay: Relay
    store: Store
    told: list[int] = field(default_factory=list)  # the events of which the watchers heard
    seconds: float = 0.0

    def note(self, sentence: str = "hello") -> None:
        self.store.transact(lambda tx: tx.notice("info", sentence))

    def kept(self) -> list[int]:
        """Return the numbers of the events in the ledger."""
        return self.store.read(lambda tx: [row["sequence"] for row in tx.all(select(tables.event).order_by("sequence"))])

    def fails(self, reason: str = "LEDGER_UNAVAILABLE") -> str:
        with pytest.raises(FrazilError) as caught:
            self.note()
        assert (caught.value.reason, caught.value.kind) == (reason, ErrorKind.UNAVAILABLE)
        return caught.value.sentence


@pytest.fixture
def linked(postgresql_server: Server) -> Iterator[Linked]:
    url = postgresql_server.new_ledger()
    with Relay(postgresql_server.port) as relay:
        linked = Linked(
            url, relay, Store(f"{url}&hostaddr=127.0.0.1&port={relay.port}", Clock(monotonic=lambda: linked.seconds))
        )
        linked.store.committed = lambda done: linked.told.extend(event.sequence for tx in done for event in tx.events)
        yield linked
        linked.store.close()


@contextlib.contextmanager
def opened(place: str) -> Iterator[Store]:
    store = Store(place, Clock())
    try:
        yield store
    finally:
        store.close()


def refusal(place: str) -> FrazilError:
    with pytest.raises(FrazilError) as caught:
        Store(place, Clock())
    assert "\n" not in caught.value.sentence
    return caught.value


# ------------------------------------------------------------------------------------------------------------ connections
def test_a_lost_connection_costs_one_transaction(linked: Linked) -> None:
    term = linked.store.term
    linked.note()
    linked.relay.cut()
    assert "cannot be used" in linked.fails()
    linked.note()
    assert linked.kept() == linked.told == [1, 2]
    assert linked.store.term == term


def test_a_connection_lost_within_a_transaction_leaves_nothing_of_it(linked: Linked) -> None:
    def half(tx: Transaction) -> None:
        tx.notice("info", "first")
        linked.relay.cut()
        tx.notice("info", "second")

    with pytest.raises(FrazilError, match="cannot be used"):
        linked.store.transact(half)
    linked.note()
    assert linked.kept() == linked.told == [1]


def test_a_commit_whose_answer_was_lost_is_told_once_it_is_known(linked: Linked) -> None:
    linked.note()
    linked.relay.swallow = COMMITTED
    linked.fails()
    assert linked.told == [1]
    assert linked.kept() == linked.told == [1, 2]  # it is durable, and the watchers' log has no gap
    linked.note()
    assert linked.kept() == linked.told == [1, 2, 3]


@pytest.mark.parametrize(("swallow", "durable"), [(COMMIT, []), (COMMITTED, [1, 2])])
async def test_transactions_that_share_a_commit_share_its_fate(linked: Linked, swallow: bytes, durable: list[int]) -> None:
    linked.relay.swallow = swallow
    failures = await together(linked.store, *(lambda tx: tx.notice("info", "hello") for _ in range(2)))
    assert [failure.reason for failure in failures] == ["LEDGER_UNAVAILABLE", "LEDGER_UNAVAILABLE"]
    assert linked.kept() == linked.told == durable


def test_a_commit_that_was_lost_on_its_way_leaves_nothing(linked: Linked) -> None:
    linked.note()
    linked.relay.swallow = COMMIT
    linked.fails()
    linked.note()
    assert linked.kept() == linked.told == [1, 2]


def test_a_commit_that_a_failover_forgot_has_not_happened(postgresql_server: Server) -> None:
    database = open_database(postgresql_server.new_ledger())
    with database.connect() as connection:
        assert not database.has_committed(connection, str(2**40))


def test_a_connection_that_only_the_server_believes_in_is_ended(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "LOCK_PATIENCE_SECONDS", 30.0)
    linked.note()
    linked.relay.forget()  # the server keeps the session, and with it the lock
    linked.fails()
    linked.note()
    assert linked.kept() == [1, 2]


def test_a_scheduler_that_was_replaced_while_it_was_cut_off_writes_nothing_more(
    linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LOCK_PATIENCE_SECONDS", 0.5)
    linked.relay.cut()
    linked.fails()
    with opened(linked.url) as newer:
        assert "was taken: Another scheduler" in linked.fails("TERM_STALE")
    assert f"A newer scheduler (term {newer.term})" in linked.fails("TERM_STALE")


def test_a_server_that_is_away_is_dialled_once_a_second(postgresql_server: Server, linked: Linked) -> None:
    linked.note()
    postgresql_server.stop()
    try:
        linked.fails()
        assert "connection" in linked.fails()
    finally:
        postgresql_server.start()
    assert "for now" in linked.fails()
    linked.seconds += store.DIAL_AGAIN_SECONDS
    linked.note()
    assert linked.kept() == linked.told == [1, 2]


def test_a_newer_scheduler_waits_for_the_end_of_an_older_ones_transaction(postgresql_server: Server) -> None:
    """Even where a pooler makes the advisory lock worthless."""
    url = postgresql_server.new_ledger()

    def begin_meanwhile(_: Transaction) -> None:
        with psycopg.connect(url) as newer:
            newer.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                newer.execute("UPDATE meta SET term = term + 1")

    with opened(url) as older:
        older.transact(begin_meanwhile)


def test_what_is_acknowledged_is_on_disk_whatever_the_default(postgresql_server: Server) -> None:
    url = postgresql_server.new_ledger()
    for given, used in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        with opened(url.replace("options=", f"options=-csynchronous_commit%3D{given}%20")) as ours:
            assert ours.read(lambda tx: tx.scalar(text("SHOW synchronous_commit"))) == used


def test_ledgers_in_two_schemas_do_not_hinder_each_other(postgresql_server: Server) -> None:
    with opened(postgresql_server.new_ledger()) as one, opened(postgresql_server.new_ledger()) as other:
        one.transact(lambda tx: tx.notice("info", "hello"))
        assert other.read(lambda tx: tx.all(select(tables.event))) == []


def test_text_with_nul_is_kept_but_for_the_nul(ledger: str) -> None:
    with opened(ledger) as ours:
        ours.transact(lambda tx: tx.run(tables.node.insert().values(node_id="n", state="it died:\0\0Å µ")))
        (row,) = ours.read(lambda tx: tx.all(select(tables.node)))
    assert (
        row["state"].replace("\0", "\N{REPLACEMENT CHARACTER}")
        == "it died:\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}Å µ"
    )


# ----------------------------------------------------------------------------------------------------------------- faults
def test_a_second_scheduler_is_told_who_holds_the_ledger(postgresql_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "LOCK_PATIENCE_SECONDS", 0.0)
    url = postgresql_server.new_ledger()
    with opened(url) as first:
        holder = first.read(lambda tx: tx.scalar(text("SELECT pg_backend_pid()")))
        error = refusal(url)
    assert (error.reason, error.kind) == ("LEDGER_IN_USE", ErrorKind.CONFLICT)
    assert f"Another scheduler (process {holder} of the server, for the server itself) holds postgresql://" in error.sentence


def test_a_check_takes_nothing_and_says_who_holds_the_ledger(postgresql_server: Server) -> None:
    url = postgresql_server.new_ledger()
    assert re.fullmatch(r"PostgreSQL \d+\.\d+ .*at postgresql://frazil@.*/postgres", check_database(url))
    with opened(url):
        assert check_database(url).endswith(", for the server itself")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda url: url.replace("/postgres?", "/nowhere?"), 'database "nowhere" does not exist; create the database once'),
        (lambda url: url.replace("frazil@", "nobody@"), 'role "nobody" does not exist; check user and password'),
        (lambda _: "postgresql://frazil@127.0.0.1:1/ledger", "Connection refused"),
        (lambda url: url.replace("search_path%3D", "search_path%3Dno_"), "no schema has been selected"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence(
    postgresql_server: Server, change: Callable[[str], str], sentence: str
) -> None:
    error = refusal(change(postgresql_server.new_ledger()))
    assert error.reason == "LEDGER_UNUSABLE"
    assert error.sentence.startswith("Cannot use postgresql://")
    assert sentence in error.sentence


def test_a_user_who_may_not_make_tables_is_told_what_to_do(postgresql_server: Server) -> None:
    postgresql_server.execute("CREATE ROLE guest LOGIN")
    url = postgresql_server.url().replace("frazil@", "guest@")
    assert "permission denied" in refusal(url).sentence
    assert "let the user own the database" in refusal(url).sentence
    with pytest.raises(FrazilError, match="let the user own the database"):
        check_database(url)


def test_an_old_server_is_refused(postgresql_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "VERSION_MIN", 99)
    assert "the ledger needs 99 or newer" in refusal(postgresql_server.new_ledger()).sentence


def test_a_database_that_cannot_hold_every_text_is_refused(postgresql_server: Server) -> None:
    postgresql_server.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc")
    assert "stores text as LATIN1" in refusal(postgresql_server.url("latin")).sentence


# ------------------------------------------------------------------------------------------------------------------- URLs
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://frazil:{SECRET}@rest@host/ledger",
        f"postgresql://frazil:{SECRET}/rest@host/ledger",
        f"postgresql://frazil:{SECRET}:rest/ledger",
        f"postgresql://frazil:{SECRET}",
        f"postgresql://frazil:{SECRET}@host:port/ledger",
        f"postgresql://frazil:{SECRET}@host/ledger?{SECRET}",
        f"postgresql://frazil:{SECRET}%zz@host/ledger",
        f"mysql://frazil:{SECRET}@host/ledger",
    ],
)
def test_a_wrong_url_is_refused_without_repeating_it(url: str) -> None:
    error = refusal(url)
    assert error.reason == "LEDGER_URL_INVALID"
    assert SECRET not in error.sentence


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (f"postgresql://frazil:{SECRET}@db:5433/ledger?sslmode=require", "postgresql://frazil@db:5433/ledger"),
        (f"postgres://frazil:{SECRET}%40%2F@[::1]/ledger", "postgresql://frazil@::1/ledger"),
        (f"postgresql://db1:5432,db2:5433/ledger?user=me&password={SECRET}", "postgresql://me@db1,db2:5432,5433/ledger"),
        ("postgresql:///ledger", "postgresql:///ledger"),
        ("postgresql://db:5433?dbname=ledger", "postgresql://db:5433/ledger"),
    ],
)
def test_people_see_a_url_without_its_password(url: str, name: str) -> None:
    assert open_database(url).name == name


def test_a_password_is_in_no_failure(postgresql_server: Server) -> None:
    for host in ("127.0.0.1:1", "nowhere.invalid"):
        assert SECRET not in refusal(f"postgresql://frazil:{SECRET}@{host}/ledger").sentence
