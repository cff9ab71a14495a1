"""The store: one connection, one thread that uses it, transactions that begin by proving that this scheduler is the newest.

Half of a transaction's time is the disk's, at its commit. So those that wait for the thread share one: each is done in a
savepoint, on top of what those before it have done, and undone alone if it fails; none is answered before the commit of all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import DBAPIError

from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.failpoints import failpoint, operation
from frazil_scheduler.clock import Clock
from frazil_scheduler.ledger import statements, tables
from frazil_scheduler.ledger.database import open_database
from frazil_scheduler.ledger.migrations import migrate
from frazil_scheduler.ledger.transaction import Transaction

DIAL_AGAIN_SECONDS = 1.0
GROUP_MAX = 16  # transactions that share a commit: the first waits for the last, which takes about as long as the commit

Value = TypeVar("Value")


def no_hook(_: Transaction) -> None:
    """Do nothing."""


def tell_nobody(_: Sequence[Transaction]) -> None:
    """Do nothing."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A write transaction that somebody wants, and what came of it."""

    body: Callable[[Transaction], Any]
    name: str  # of its failpoints
    reply: asyncio.Future[Any] | None = None
    transaction: Transaction | None = None
    value: Any = None
    error: Exception | None = None

    def answer(self) -> None:
        """Tell who asked; on its event loop."""
        if self.reply is None or self.reply.done():
            return
        if self.error is not None:
            self.reply.set_exception(self.error)
        else:
            self.reply.set_result(self.value)


class Store:
    """The open ledger. `transact` and `read` are for one thread at a time; `run` and `look` bring a coroutine's work there."""

    def __init__(
        self,
        place: Path | str,
        clock: Clock,
        *,
        finish: Callable[[Transaction], None] = no_hook,
        committed: Callable[[Sequence[Transaction]], None] = tell_nobody,
    ) -> None:
        """Open the ledger at a path or URL, bring its tables up to date and begin a new term.

        `finish` runs at the end of every write transaction, within it; `committed` after the commit, in the store's thread.
        Raises FrazilError LEDGER_IN_USE, LEDGER_ON_NETWORK_DISK, LEDGER_UNUSABLE, LEDGER_URL_INVALID or LEDGER_TOO_NEW.
        """
        self._clock = clock
        self._finish = finish
        self.committed = committed
        self._database = open_database(place)
        self.name = self._database.name
        self._guard = select(tables.meta.c.term, self._database.mark).with_for_update(of=tables.meta)
        self._connection: Connection | None = None
        self._doubt: tuple[str, list[Transaction]] | None = None  # the mark of transactions that may have committed
        self._waiting: deque[_Asked] = deque()
        self._dial_at = 0.0
        try:
            self._connection = self._database.connect()
            migrate(self._connection)
            self.term = _begin_term(self._connection)
        except DBAPIError as error:
            self._disconnect()
            raise self._database.unusable(error) from error
        except FrazilError:
            self._disconnect()
            raise
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    def transact(self, body: Callable[[Transaction], Value], name: str = "Start") -> Value:
        """Do `body` in one durable transaction; `name` is that of its failpoints. Raises what it raises, after undoing it.

        Raises FrazilError TERM_STALE, or LEDGER_UNAVAILABLE; where the connection was lost, what was done may be durable
        all the same, as after a crash: the request's id tells.
        """
        asked = _Asked(body, name)
        self._commit([asked])
        if asked.error is not None:
            raise asked.error
        value: Value = asked.value
        return value

    def read(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `body`, which only reads, on one consistent state. Raises FrazilError TERM_STALE or LEDGER_UNAVAILABLE."""
        connection = self._reach()
        try:
            with connection.begin() as reading:
                value = body(self._transaction(connection))
                reading.rollback()
                return value
        except DBAPIError as error:
            raise self._failed(error) from error

    async def run(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `transact` in the store's thread, together with what else waits for it."""
        reply: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(body, operation.get(), reply))
        self._thread.submit(self._commit_waiting)  # finds nothing left to do if it was taken along by one before
        return await reply

    async def look(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `read` in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.read, body)

    def close(self) -> None:
        """Let running work end, close the ledger and give up its lock."""
        self._thread.shutdown(wait=True)
        self._disconnect()

    def _commit_waiting(self) -> None:
        group: list[_Asked] = []
        while self._waiting and len(group) < GROUP_MAX:
            asked = self._waiting.popleft()
            if asked.reply is not None and not asked.reply.cancelled():
                group.append(asked)
        if group and group[0].reply is not None:
            try:
                self._commit(group)
            finally:
                group[0].reply.get_loop().call_soon_threadsafe(_answer, group)

    def _commit(self, group: Sequence[_Asked]) -> None:
        """Do transactions in order and make them durable by one commit, or say in each why it is not."""
        done: list[Transaction] = []
        doubt: tuple[str, list[Transaction]] | None = None
        try:
            connection = self._reach()
            with connection.begin() as together:
                doubt = (self._require_newest(connection), done)
                for asked in group:
                    self._attempt(connection, asked, done)
                if not done:
                    together.rollback()
            for asked in group:
                if asked.error is None:
                    failpoint(f"scheduler.{asked.name}.after")
        except Exception as error:  # noqa: BLE001 whatever it was, it is told to everyone who waits
            reason = self._failed(error, doubt) if isinstance(error, DBAPIError) else error
            for asked in group:
                asked.error = asked.error or reason
        else:
            if done:
                self.committed(done)

    def _attempt(self, connection: Connection, asked: _Asked, done: list[Transaction]) -> None:
        """Do one transaction of a group. Its failure is its own; raises DBAPIError when that of the database is everyone's."""
        transaction = self._transaction(connection)
        transaction.head = done[-1].head if done else None
        connection.execute(statements.SAVEPOINT)
        try:
            asked.value = asked.body(transaction)
            self._finish(transaction)
            transaction.write_events()
            failpoint(f"scheduler.{asked.name}.before")
            connection.execute(statements.RELEASE)
        except Exception as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise
            connection.execute(statements.ROLLBACK)  # raises where everything is undone already, as by SQLite on a full disk
            asked.error = self._failed(error) if isinstance(error, DBAPIError) else error
        else:
            done.append(transaction)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._database.close()

    def _transaction(self, connection: Connection) -> Transaction:
        clock = self._clock
        return Transaction(
            connection=connection,
            term=self.term,
            mono=clock.monotonic(),
            wall_ns=clock.wall_ns(),
            token=clock.token,
        )

    def _require_newest(self, connection: Connection) -> str:
        """Return the transaction's mark. The row stays locked, so that a newer scheduler's start waits for its end."""
        term, mark = connection.execute(self._guard).one()
        if term != self.term:
            raise _taken_over(
                f"A newer scheduler (term {term}) has taken over the ledger; this one (term {self.term}) must stop."
            )
        return str(mark)

    def _failed(self, error: DBAPIError, doubt: tuple[str, list[Transaction]] | None = None) -> FrazilError:
        """Note a lost connection, and what it leaves in doubt; return what to raise."""
        if error.connection_invalidated and self._connection is not None:
            structlog.get_logger().warning("ledger_lost", ledger=self.name)
            self._connection.close()
            self._connection, self._doubt = None, doubt
        failure = self._database.unavailable(error)
        failure.__cause__ = error
        return failure

    def _reach(self) -> Connection:
        """Return the connection; one that was lost is dialled again, at most once a second."""
        if self._connection is not None:
            return self._connection
        if self._clock.monotonic() < self._dial_at:
            sentence = f"The ledger {self.name} cannot be reached for now; try again."
            raise FrazilError("LEDGER_UNAVAILABLE", sentence, kind=ErrorKind.UNAVAILABLE)
        try:
            connection = self._database.connect()
            settled = self._take_up(connection)
        except DBAPIError as error:
            self._dial_at = self._clock.monotonic() + DIAL_AGAIN_SECONDS
            raise self._database.unavailable(error) from error
        except FrazilError as error:
            if error.reason != "LEDGER_IN_USE":
                raise
            raise _taken_over(f"While the ledger was out of reach, it was taken: {error.sentence}") from error
        self._connection, self._doubt = connection, None
        structlog.get_logger().info("ledger_reached_again", ledger=self.name)
        if settled:
            self.committed(settled)
        return connection

    def _take_up(self, connection: Connection) -> list[Transaction]:
        """Check that nobody has begun a newer term; return the transactions in doubt if they did commit."""
        try:
            with connection.begin():
                self._require_newest(connection)
                if self._doubt is None or not self._database.has_committed(connection, self._doubt[0]):
                    return []
                return self._doubt[1]
        except BaseException:
            connection.close()
            raise


def _answer(group: Sequence[_Asked]) -> None:
    for asked in group:
        asked.answer()


def _begin_term(connection: Connection) -> int:
    with connection.begin():
        row = connection.execute(select(tables.meta)).mappings().first()
        if row is None:
            connection.execute(insert(tables.meta).values(id=1, term=1))
            return 1
        term: int = row["term"] + 1
        connection.execute(update(tables.meta).values(term=term))
        return term


def _taken_over(sentence: str) -> FrazilError:
    return FrazilError("TERM_STALE", sentence, kind=ErrorKind.UNAVAILABLE)
