"""A SQLite file as the ledger: on a local disk, one connection, a lock file against a second scheduler.

SQLite before 3.51.3 can lose commits in WAL mode when a second connection is open, so there is only one.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, create_engine, literal
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.ledger import guard

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-32000", "temp_store=MEMORY")


class Sqlite:
    """See `Database`."""

    mark: ColumnElement[Any] = literal("")  # its connection is never lost

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._lock: int | None = None
        self._engine = create_engine(
            sqlalchemy.URL.create("sqlite", database=str(path)),
            poolclass=StaticPool,
            connect_args={"check_same_thread": False, "timeout": 5.0},
        )

        @sqlalchemy.event.listens_for(self._engine, "connect")
        def _set_up(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we say BEGIN ourselves
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")

        @sqlalchemy.event.listens_for(self._engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def connect(self) -> Connection:
        """Take the lock file, then open the file."""
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            guard.refuse_network_file_system(folder, guard.file_system_magic(folder))
            self._lock = guard.take_lock(self._path.with_name(self._path.name + ".lock"))
        except OSError as error:
            raise FrazilError("LEDGER_UNUSABLE", f"Cannot use {self.name} as the ledger: {error.strerror}.") from error
        return self._engine.connect()

    def check(self) -> str:
        """Look at the disk."""
        folder = next(parent for parent in self._path.parents if parent.exists())
        guard.refuse_network_file_system(folder, guard.file_system_magic(folder))
        return f"SQLite {sqlite3.sqlite_version} at {self.name}"

    def has_committed(self, connection: Connection, mark: str) -> bool:  # noqa: ARG002 see Database
        """Return False: its connection is never lost."""
        return False

    def unusable(self, error: DBAPIError) -> FrazilError:
        """Say why the file cannot be opened."""
        return FrazilError("LEDGER_UNUSABLE", f"Cannot use {self.name} as the ledger: {error.orig}.")

    def unavailable(self, error: DBAPIError) -> FrazilError:
        """Say why the file cannot be used now."""
        return FrazilError(
            "LEDGER_UNAVAILABLE",
            f"The ledger cannot be written: {error.orig}; check the free space of its disk. Nothing was changed; try again.",
            kind=ErrorKind.UNAVAILABLE,
        )

    def close(self) -> None:
        """Close the file and give up the lock."""
        self._engine.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
