"""Files that appear whole or not at all: temporary name in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from frazil.model.errors import DiskFullError, ErrorKind

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well the file written there becomes `path`.

    When the block raises, the temporary file is removed and `path` is as it was. A full disk or quota becomes
    `DiskFullError`.
    """
    target = Path(path)
    stem = os.fsdecode(os.fsencode(target.name)[:200])  # names have at most 255 bytes
    temporary = target.with_name(f".{stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with disk_full_named(target):
            yield temporary
            flush(temporary)
            temporary.replace(target)
            flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Turn "no space left", "quota exceeded" and "file too large" into `DiskFullError`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            "DISK_FULL",
            f"No room to write {path.name} in {path.parent}: free some disk space or raise the quota.",
            kind=ErrorKind.EXHAUSTED,
            metadata={"path": str(path)},
        ) from error


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write a whole UTF-8 file atomically."""
    write_bytes(path, text.encode())


def flush(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
