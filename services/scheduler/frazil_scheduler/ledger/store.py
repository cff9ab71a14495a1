"""The store: one connection, one thread that uses it, and transactions that begin by proving that this scheduler is the newest.

SQLite before 3.51.3 can lose commits in WAL mode when a second connection is open, so there is only one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, create_engine, insert, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.failpoints import failpoint
from frazil_scheduler.clock import Clock
from frazil_scheduler.ledger import guard, tables
from frazil_scheduler.ledger.migrations import migrate
from frazil_scheduler.ledger.transaction import Transaction

Value = TypeVar("Value")


def no_hook(_: Transaction) -> None:
    """Do nothing."""


class Store:
    """The open ledger. `transact` and `read` are for one thread at a time; `run` and `look` bring a coroutine's work there."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        finish: Callable[[Transaction], None] = no_hook,
        committed: Callable[[Transaction], None] = no_hook,
    ) -> None:
        """Open the ledger, bring its tables up to date and begin a new term.

        `finish` runs at the end of every write transaction, within it; `committed` after it, in the store's thread.
        Raises FrazilError LEDGER_IN_USE, LEDGER_ON_NETWORK_DISK, LEDGER_UNUSABLE or LEDGER_TOO_NEW.
        """
        self._clock = clock
        self._finish = finish
        self.committed = committed
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            guard.refuse_network_file_system(path.parent, guard.file_system_magic(path.parent))
            self._lock = guard.take_lock(path.with_name(path.name + ".lock"))
        except OSError as error:
            raise FrazilError("LEDGER_UNUSABLE", f"Cannot use {path} as the ledger: {error.strerror}.") from error
        try:
            self._engine = _open(path)
            self._connection = self._engine.connect()
            migrate(self._connection)
            self.term = self._begin_term()
        except DatabaseError as error:
            os.close(self._lock)
            raise FrazilError("LEDGER_UNUSABLE", f"Cannot use {path} as the ledger: {error.orig}.") from error
        except FrazilError:
            os.close(self._lock)
            raise
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    def transact(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `body` in one durable transaction. Raises what it raises, after undoing it."""
        try:
            with self._connection.begin():
                transaction = self._transaction()
                self._require_newest()
                value = body(transaction)
                self._finish(transaction)
                failpoint("ledger.before_commit")
            failpoint("ledger.after_commit")
        except DatabaseError as error:
            raise _unavailable(error) from error
        self.committed(transaction)
        return value

    def read(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `body`, which only reads, on one consistent state."""
        try:
            with self._connection.begin() as reading:
                value = body(self._transaction())
                reading.rollback()
                return value
        except DatabaseError as error:
            raise _unavailable(error) from error

    async def run(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `transact` in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.transact, body)

    async def look(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `read` in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.read, body)

    def close(self) -> None:
        """Let running work end, close the ledger and give up its lock."""
        self._thread.shutdown(wait=True)
        self._connection.close()
        self._engine.dispose()
        os.close(self._lock)

    def _transaction(self) -> Transaction:
        clock = self._clock
        return Transaction(
            connection=self._connection,
            term=self.term,
            mono=clock.monotonic(),
            wall_ns=clock.wall_ns(),
            token=clock.token,
        )

    def _begin_term(self) -> int:
        with self._connection.begin():
            row = self._connection.execute(select(tables.meta)).mappings().first()
            if row is None:
                self._connection.execute(insert(tables.meta).values(id=1, term=1))
                return 1
            term: int = row["term"] + 1
            self._connection.execute(update(tables.meta).values(term=term))
            return term

    def _require_newest(self) -> None:
        term = self._connection.execute(select(tables.meta.c.term)).scalar()
        if term != self.term:
            raise FrazilError(
                "TERM_STALE",
                f"A newer scheduler (term {term}) has taken over the ledger; this one (term {self.term}) must stop.",
                kind=ErrorKind.UNAVAILABLE,
            )


def _open(path: Path) -> Engine:
    engine = create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": 5.0},
    )

    @sqlalchemy.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-32000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _unavailable(error: DatabaseError) -> FrazilError:
    return FrazilError(
        "LEDGER_UNAVAILABLE",
        f"The ledger cannot be written: {error.orig}; check the free space of its disk. Nothing was changed; try again.",
        kind=ErrorKind.UNAVAILABLE,
    )
