"""A PostgreSQL server of the tests' own: made when first asked for, in a folder of its own, without durability."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

DATABASE = "postgres"  # initdb makes it
VERSION_MIN = 15  # the first whose text sorts by the rules of a language, whatever the machine has installed
START_SECONDS = 30.0
MEMORY_FOLDER = Path("/dev/shm")
MEMORY_BYTES = 2 * 1024**3  # a container may have 64 MiB there
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "jit": "off",
    "log_min_messages": "fatal",
}


def find_programs() -> Path | None:
    """Return the folder of initdb and postgres, newest version first; Debian keeps them off the PATH."""
    on_path = shutil.which("initdb")
    found = [*([Path(on_path).resolve().parent] if on_path else []), *Path("/usr/lib/postgresql").glob("*/bin")]
    by_version = {_major(folder): folder for folder in found if (folder / "initdb").exists()}
    newest = max(by_version, default=0)
    return by_version[newest] if newest >= VERSION_MIN else None


def _major(folder: Path) -> int:
    said = subprocess.run([folder / "initdb", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[2].split(".")[0])  # "initdb (PostgreSQL) 15.18 (Debian …)"


class Server:
    """A running server, reached by a socket in its folder or at a port; its text sorts as English, as it may at a site."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self._programs = programs
        self.folder = folder
        self.port = port
        self._names = (f"ledger{number}" for number in itertools.count(1))
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # the server refuses root
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as_user = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
        make = ["initdb", "-D", "data", "-U", "frazil", "-A", "trust", "-E", "UTF8", "--no-sync"]
        locale = ["--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en"]
        done = subprocess.run(self._command(*make, *locale), cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.start()

    def _command(self, program: str, *arguments: str) -> list[str]:
        dies_with_us = ["--pdeathsig", "INT"] if program == "postgres" else []
        return ["setpriv", *self._as_user, *dies_with_us, str(self._programs / program), *arguments]

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {**SETTINGS, "unix_socket_directories": str(self.folder), "port": str(self.port)}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(self._command("postgres", "-D", "data", *flags), cwd=self.folder, stderr=log)
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self._admin = psycopg.connect(self.url(), autocommit=True)
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server at once, as a crash does."""
        self._admin.close()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def url(self, database: str = DATABASE, *, schema: str = "") -> str:
        """Return the URL of a database, perhaps of a schema in it."""
        options = f"&options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql://frazil@/{database}?host={self.folder}&port={self.port}{options}"

    def new_ledger(self) -> str:
        """Return the URL of an empty ledger: a schema of its own, which costs a hundredth of a database."""
        name = next(self._names)
        self.execute(f"CREATE SCHEMA {name}")
        return self.url(schema=name)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as the server's owner."""
        cursor = self._admin.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def serving(programs: Path, port: int) -> Iterator[Server]:
    """Yield a server; stop it and remove its folder at the end."""
    roomy = MEMORY_FOLDER.is_dir() and shutil.disk_usage(MEMORY_FOLDER).free > MEMORY_BYTES
    folder = Path(tempfile.mkdtemp(prefix="frazil-pg-", dir=MEMORY_FOLDER if roomy else None))
    try:
        server = Server(programs, folder, port)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
