"""The store: one scheduler at a time, durable or not at all, the tables that the migrations make."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, select, text

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.clock import Clock
from frazil_scheduler.ledger import guard, postgresql, tables
from frazil_scheduler.ledger.store import Store
from frazil_scheduler.ledger.transaction import Transaction


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_a_ledger_of_an_unfinished_version_is_refused_in_one_sentence(ledger: str) -> None:
    store = Store(ledger, Clock())
    store.transact(lambda tx: tx.connection.execute(text("ALTER TABLE session DROP COLUMN claims")))
    store.close()
    with pytest.raises(FrazilError, match="empty data_dir") as caught:
        Store(ledger, Clock())
    assert caught.value.reason == "LEDGER_UNUSABLE"


def test_the_migrations_make_exactly_the_tables(ledger: str) -> None:
    store = Store(ledger, Clock())
    assert store.read(lambda tx: compare_metadata(MigrationContext.configure(tx.connection), tables.metadata)) == []
    store.close()


def test_a_file_is_set_up_to_survive_power_loss(path: Path) -> None:
    store = Store(path, Clock())
    asked = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    for name, wanted in asked.items():
        assert store.read(lambda tx, name=name: tx.scalar(text(f"PRAGMA {name}"))) == wanted
    store.close()


def test_every_start_is_a_new_term(ledger: str) -> None:
    terms = []
    for _ in range(3):
        store = Store(ledger, Clock())
        terms.append(store.term)
        store.close()
    assert terms == [1, 2, 3]


def test_a_second_store_is_refused_while_the_first_lives(ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "LOCK_PATIENCE_SECONDS", 0.0)
    first = Store(ledger, Clock())
    with pytest.raises(FrazilError) as caught:
        Store(ledger, Clock())
    assert (caught.value.reason, caught.value.kind) == ("LEDGER_IN_USE", ErrorKind.CONFLICT)
    first.close()
    Store(ledger, Clock()).close()


def test_a_copy_that_was_taken_over_can_write_nothing(ledger: str) -> None:
    store = Store(ledger, Clock())
    store.transact(lambda tx: tx.run(tables.meta.update().values(term=99)))
    with pytest.raises(FrazilError) as caught:
        store.transact(lambda tx: tx.notice("info", "hello"))
    assert caught.value.reason == "TERM_STALE"
    store.close()


def test_what_fails_leaves_nothing_and_takes_no_event_number(ledger: str) -> None:
    store = Store(ledger, Clock())

    def half(tx: Transaction) -> None:
        tx.notice("info", "first")
        raise ValueError

    store.transact(lambda tx: tx.notice("info", "one"))
    with pytest.raises(ValueError):
        store.transact(half)
    store.transact(lambda tx: tx.notice("info", "two"))
    assert store.read(lambda tx: [row["sequence"] for row in tx.all(select(tables.event))]) == [1, 2]
    store.close()


def test_a_read_leaves_nothing(ledger: str) -> None:
    store = Store(ledger, Clock())
    store.read(lambda tx: tx.run(insert(tables.node).values(node_id="x")))
    assert store.read(lambda tx: tx.all(select(tables.node))) == []
    store.close()


def test_commits_are_told_after_they_are_made(ledger: str) -> None:
    told: list[list[int]] = []
    store = Store(ledger, Clock(), committed=lambda done: told.extend([event.sequence for event in tx.events] for tx in done))
    store.transact(lambda tx: tx.notice("info", "one"))
    store.transact(lambda tx: [tx.notice("info", "two"), tx.notice("info", "three")])
    assert told == [[1], [2, 3]]
    store.close()


def test_a_repeated_request_returns_the_first_reply(ledger: str) -> None:
    store = Store(ledger, Clock())
    done: list[int] = []

    def ask(request_id: str, session: str = "s") -> session_pb2.Session:
        request = session_pb2.StartSessionRequest(request_id=request_id, session=session)

        def body() -> session_pb2.Session:
            done.append(1)
            return session_pb2.Session(name=f"reply {len(done)}")

        return store.transact(lambda tx: tx.once(request, session_pb2.Session, body))

    assert [ask("a").name, ask("a").name, ask("b").name] == ["reply 1", "reply 1", "reply 2"]
    for request_id, reason in (("a", "REQUEST_ID_REUSED"), ("", "REQUEST_ID_MISSING")):
        with pytest.raises(FrazilError) as caught:
            ask(request_id, "other")
        assert caught.value.reason == reason
    assert len(done) == 2
    store.close()


@pytest.mark.parametrize(("magic", "name"), [(0x6969, "NFS"), (0xFF534D42, "CIFS"), (0x0BD00BD0, "Lustre")])
def test_a_network_disk_is_refused(magic: int, name: str) -> None:
    with pytest.raises(FrazilError, match=name):
        guard.refuse_network_file_system(Path("/ledger"), magic)


def test_a_local_disk_is_not_refused(tmp_path: Path) -> None:
    ext4 = 0xEF53
    guard.refuse_network_file_system(tmp_path, ext4)
    proc = 0x9FA0  # statfs(2)
    assert guard.file_system_magic(Path("/proc")) == proc


def test_a_ledger_of_a_newer_version_is_refused(ledger: str) -> None:
    store = Store(ledger, Clock())
    store.transact(lambda tx: tx.run(text("UPDATE alembic_version SET version_num = 'r9999'")))
    store.close()
    with pytest.raises(FrazilError) as caught:
        Store(ledger, Clock())
    assert caught.value.reason == "LEDGER_TOO_NEW"


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.write_text("this is not a database, this is a text " * 50)
    with pytest.raises(FrazilError) as caught:
        Store(path, Clock())
    assert caught.value.reason == "LEDGER_UNUSABLE"


def test_the_database_itself_refuses_a_double_grant(ledger: str) -> None:
    store = Store(ledger, Clock())

    def two_leases(tx: Transaction) -> None:
        tx.run(insert(tables.session).values(session_id="s", number=1, name="s"))
        for number in (1, 2):
            tx.run(insert(tables.job).values(job_id=f"j{number}", sequence=number, session_id="s"))
            lease = {"lease_id": f"l{number}", "epoch": number, "slot_key": "GPU#0", "job_id": f"j{number}"}
            tx.run(insert(tables.lease).values(**lease, state="HELD"))

    with pytest.raises(FrazilError, match=r"UNIQUE constraint failed: lease\.slot_key|unique constraint \"lease_one_open\""):
        store.transact(two_leases)
    store.close()
