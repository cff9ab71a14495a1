"""Where a SQLite ledger may lie: on a local disk, opened by one scheduler at a time."""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path

from frazil.model.errors import ErrorKind, FrazilError

_NETWORK_FILE_SYSTEMS = {  # statfs(2), linux/magic.h
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x01161970: "GFS2",
}


def file_system_magic(folder: Path) -> int:
    """Return the number by which the kernel knows the folder's file system."""
    buffer = ctypes.create_string_buffer(512)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(folder), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF  # f_type is the first word


def refuse_network_file_system(folder: Path, magic: int) -> None:
    """Raise FrazilError LEDGER_ON_NETWORK_DISK when `magic` is that of a network file system."""
    name = _NETWORK_FILE_SYSTEMS.get(magic)
    if name is not None:
        raise FrazilError(
            "LEDGER_ON_NETWORK_DISK",
            f"The ledger cannot lie in {folder}: it is on {name}, where SQLite loses data; put `ledger` on a local disk.",
        )


def take_lock(path: Path) -> int:
    """Take the ledger's lock for the life of this process and return its file descriptor.

    Raises FrazilError LEDGER_IN_USE when another scheduler holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise FrazilError(
            "LEDGER_IN_USE",
            f"Another scheduler (process {holder}) holds {path}; stop it first, or give this one another data_dir.",
            kind=ErrorKind.CONFLICT,
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
