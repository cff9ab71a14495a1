"""What a worker writes to its standard error: a file, not a pipe, since the worker outlives its agent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LIMIT_BYTES = 4 * 2**20
_KEPT_BYTES = 64 * 2**10
_TAIL_BYTES = 16 * 2**10
_KEPT_FILES = 50


def _to_stderr(raw: bytes) -> None:
    sys.stderr.buffer.write(raw)
    sys.stderr.buffer.flush()


class WorkerLog:
    """A worker's log file, kept below a size and copied line by line to the agent's own standard error."""

    def __init__(self, path: Path, *, write: Callable[[bytes], None] = _to_stderr) -> None:
        self.path = path
        self._write = write
        self._position = path.stat().st_size if path.exists() else 0

    def open(self) -> int:
        """Return a descriptor for the worker to append to; the oldest files of other workers are deleted."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        logs = sorted(self.path.parent.glob("*.log"), key=_modified)
        for old in logs[:-_KEPT_FILES]:
            old.unlink(missing_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def forward(self) -> None:
        """Copy the lines that are new, and cut the file to its end when it has grown too long."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(self._position)
            raw = file.read(_LIMIT_BYTES)
            whole = raw[: raw.rfind(b"\n") + 1] or (raw if len(raw) == _LIMIT_BYTES else b"")
            if whole:
                self._write(whole)
                self._position += len(whole)
            if self._position > _LIMIT_BYTES:
                self._cut()

    def tail(self) -> str:
        """Return the end of the file."""
        try:
            return _end_of(self.path, _TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def _cut(self) -> None:
        """Keep the end only. The worker appends, so it goes on at the new end by itself."""
        kept = _end_of(self.path, _KEPT_BYTES)
        os.truncate(self.path, 0)
        with self.path.open("ab") as file:
            file.write(kept)
        self._position = self.path.stat().st_size


def _end_of(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - count))
        return file.read(count)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
