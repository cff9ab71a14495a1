"""PostgreSQL as the ledger: one connection, and an advisory lock that lives and dies with it.

While the connection lives no other scheduler can take the lock. When it is lost, the lock is: `connect` takes it again, and the
store checks the term before it writes.
"""

from __future__ import annotations

import re
import time
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import ColumnElement, Connection, String, cast, create_engine, func, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from frazil.model.errors import ErrorKind, FrazilError

VERSION_MIN = 13  # pg_current_xact_id, pg_xact_status
LOCK_PATIENCE_SECONDS = 3.0  # the server may need a moment to see that a killed scheduler is gone

_DIAL = {  # libpq's parameters, where the URL says nothing else: a dead link is noticed within 15 s
    "application_name": "frazil-scheduler",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "target_session_attrs": "read-write",
}
_SET_UP = """
SELECT set_config(name, wanted, false)
FROM (VALUES
    ('synchronous_commit', 'on'),
    ('statement_timeout', '0'), ('lock_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),
    ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '3'), ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '10000')
) AS ours (name, wanted) JOIN pg_settings USING (name)
WHERE NOT (name = 'synchronous_commit' AND setting = 'remote_apply')
"""
# Advisory locks belong to a database; their second key lets ledgers in different schemas of one database live side by side.
_FRAZIL = 0x6672617A
_SCHEMA = "hashtext(coalesce(current_schema(), ''))"
_TRY_LOCK = text(f"SELECT pg_try_advisory_lock({_FRAZIL}, {_SCHEMA})")
_HOLDER = text(f"""
SELECT pid, backend_start::text, coalesce(host(client_addr), 'the server itself') AS client
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid = {_FRAZIL} AND objid = {_SCHEMA}::oid
""")  # noqa: S608 both are ours
_OWN_SESSION = text("SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()")
_STATUS = text("""
SELECT CASE WHEN CAST(:mark AS xid8) < pg_snapshot_xmax(pg_current_snapshot()) THEN pg_xact_status(CAST(:mark AS xid8)) END
""")  # a standby that took over without the transaction has never heard of it
_TERMINATE = text("SELECT pg_terminate_backend(:pid)")
_FITNESS = text("SELECT current_setting('server_version'), has_schema_privilege(current_schema(), 'CREATE')")

_OWN_THE_DATABASE = "let the user own the database (ALTER DATABASE … OWNER TO …)"
_REMEDIES = (
    (r"database .* does not exist", "create the database once, with createdb"),
    (r"role .* does not exist|authentication failed|no password supplied", "check user and password (PGPASSFILE, PGPASSWORD)"),
    (r"permission denied", _OWN_THE_DATABASE),
)


class Postgresql:
    """See `Database`. The URL is libpq's: what it leaves out comes from PGHOST, PGPASSFILE and the like."""

    mark: ColumnElement[Any] = cast(func.pg_current_xact_id(), String)

    def __init__(self, url: str) -> None:
        parameters = parse_url(url)
        self.name = name_of(parameters)
        self._parameters = {**_DIAL, **parameters}
        self._engine = create_engine("postgresql+psycopg://", creator=self._dial, poolclass=NullPool, use_native_hstore=False)
        self._session: tuple[int, str] | None = None  # the server's process for our newest connection

    def connect(self) -> Connection:
        """Dial the server and take the advisory lock."""
        connection = self._engine.connect()
        try:
            self._take_lock(connection)
            with connection.begin():
                pid, started = connection.execute(_OWN_SESSION).one()
        except BaseException:
            connection.close()
            raise
        self._session = (pid, started)
        return connection

    def check(self) -> str:
        """Dial the server."""
        with self._engine.connect() as connection:
            version, may_create = connection.execute(_FITNESS).one()
            holder = connection.execute(_HOLDER).first()
        if not may_create:
            raise FrazilError("LEDGER_UNUSABLE", f"Cannot make tables in {self.name}: {_OWN_THE_DATABASE}.")
        return f"PostgreSQL {version} at {self.name}" + (f", held by {_who(holder)}" if holder is not None else "")

    def has_committed(self, connection: Connection, mark: str) -> bool:
        """Ask the server, which knows: with our lock it has seen the end of the session that ran the transaction."""
        return bool(connection.execute(_STATUS, {"mark": mark}).scalar() == "committed")

    def unusable(self, error: DBAPIError) -> FrazilError:
        """Say why the database cannot be opened."""
        cause = _one_line(error)
        remedy = next(
            (remedy for pattern, remedy in _REMEDIES if re.search(pattern, cause)), "is the server up, the URL right?"
        )
        return FrazilError("LEDGER_UNUSABLE", f"Cannot use {self.name} as the ledger: {cause}; {remedy}.")

    def unavailable(self, error: DBAPIError) -> FrazilError:
        """Say why the database cannot be used now."""
        sentence = f"The ledger {self.name} cannot be used: {_one_line(error)}; try again, the scheduler dials it again too."
        return FrazilError("LEDGER_UNAVAILABLE", sentence, kind=ErrorKind.UNAVAILABLE)

    def close(self) -> None:
        """Do nothing: the lock ends with the connection."""

    def _dial(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(**self._parameters)
        try:
            _require_fit(connection.info, self.name)
            connection.adapters.register_dumper(str, _WithoutNul)
            connection.execute(_SET_UP)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _take_lock(self, connection: Connection) -> None:
        give_up_at = time.monotonic() + LOCK_PATIENCE_SECONDS
        while True:
            with connection.begin():
                if connection.execute(_TRY_LOCK).scalar():
                    return
                holder = connection.execute(_HOLDER).first()
                if holder is not None and (holder.pid, holder.backend_start) == self._session:
                    connection.execute(_TERMINATE, {"pid": holder.pid})  # our own, whose end the server has not noticed
            if time.monotonic() >= give_up_at:
                who = _who(holder) if holder is not None else "unknown"
                raise FrazilError(
                    "LEDGER_IN_USE",
                    f"Another scheduler ({who}) holds {self.name}; stop it first, or give this one another database.",
                    kind=ErrorKind.CONFLICT,
                )
            time.sleep(0.05)


class _WithoutNul(StrDumperUnknown):
    """PostgreSQL's text cannot hold NUL, which a dying worker's last words may; SQLite's can."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


def parse_url(url: str) -> dict[str, Any]:
    """Return libpq's connection parameters.

    Raises FrazilError LEDGER_URL_INVALID, also for what libpq would read otherwise than it was meant and then show in an error:
    an unencoded password.
    """
    authority, _, rest = url.partition("://")[2].partition("/")
    *user_info, hosts = authority.split("@")
    if len(user_info) > 1 or "@" in rest:
        raise _invalid("write @, / and : in a user's name or password as %40, %2F and %3A")
    if not all(re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d*)?", host) for host in hosts.partition("?")[0].split(",")):
        raise _invalid("a port is a number")
    try:
        return conninfo_to_dict(url)
    except psycopg.Error:
        raise _invalid("see “Connection URIs” in PostgreSQL's manual") from None  # its message may hold the password


def name_of(parameters: dict[str, Any]) -> str:
    """Return a URL for people, without password."""
    user = f"{parameters['user']}@" if parameters.get("user") else ""
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"postgresql://{user}{parameters.get('host', '')}{port}/{parameters.get('dbname', '')}"


def _invalid(remedy: str) -> FrazilError:
    return FrazilError("LEDGER_URL_INVALID", f"The ledger's URL is not postgresql://user@host/database: {remedy}.")


def _require_fit(server: psycopg.ConnectionInfo, name: str) -> None:
    major = server.server_version // 10_000
    if major < VERSION_MIN:
        raise FrazilError("LEDGER_UNUSABLE", f"{name} is PostgreSQL {major}; the ledger needs {VERSION_MIN} or newer.")
    encoding = server.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise FrazilError(
            "LEDGER_UNUSABLE", f"{name} stores text as {encoding}; make the database anew with createdb --encoding UTF8."
        )


def _who(holder: Any) -> str:
    return f"process {holder.pid} of the server, for {holder.client}"


def _one_line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split()).removesuffix(".")
