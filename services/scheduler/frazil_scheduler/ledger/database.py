"""What differs between the databases that can hold the ledger: a SQLite file, or PostgreSQL by URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection
from sqlalchemy.exc import DBAPIError

from frazil.model.errors import FrazilError


class Database(Protocol):
    """A place for one ledger. Everything but its set-up, its lock and its words for failures is portable SQL."""

    name: str  # for people; never holds a password
    mark: ColumnElement[Any]  # names the running transaction, for `has_committed`

    def connect(self) -> Connection:
        """Take the ledger for this process alone and return its one connection.

        Raises FrazilError LEDGER_IN_USE, LEDGER_ON_NETWORK_DISK or LEDGER_UNUSABLE, and DBAPIError.
        """
        ...

    def check(self) -> str:
        """Return what is there, for people, without taking it. Raises FrazilError LEDGER_… and DBAPIError."""
        ...

    def has_committed(self, connection: Connection, mark: str) -> bool:
        """Tell how a transaction ended whose connection was lost while it committed."""
        ...

    def unusable(self, error: DBAPIError) -> FrazilError:
        """Return why the ledger cannot be opened."""
        ...

    def unavailable(self, error: DBAPIError) -> FrazilError:
        """Return why an open ledger cannot be used now."""
        ...

    def close(self) -> None:
        """Give up the lock that outlives the connection, if there is one."""
        ...


def open_database(place: Path | str) -> Database:
    """Return the database at a path or URL; nothing is opened yet. Raises FrazilError LEDGER_URL_INVALID."""
    scheme, has_scheme, _ = str(place).partition("://")
    if not has_scheme:
        from frazil_scheduler.ledger.sqlite import Sqlite

        return Sqlite(Path(place).absolute())
    if scheme not in ("postgresql", "postgres"):
        raise FrazilError("LEDGER_URL_INVALID", "The ledger is the path of a file, or a URL postgresql://user@host/database.")
    from frazil_scheduler.ledger.postgresql import Postgresql

    return Postgresql(str(place))


def check_database(place: Path | str) -> str:
    """Return in a few words which database would be used. Raises FrazilError when it cannot be."""
    database = open_database(place)
    try:
        return database.check()
    except DBAPIError as error:
        raise database.unusable(error) from error
