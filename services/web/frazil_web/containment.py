"""Reads a file inside a folder, and only inside it: no way up, no symbolic link, no device, no surprise in size."""

from __future__ import annotations

import os
import stat

from frazil.model.errors import ErrorKind, FrazilError

MOST_BYTES = 64 * 2**20
_PATH_BYTES = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a named pipe must not hang us


def read_beneath(folder: str, relative_path: str) -> bytes:
    """Return the bytes of a regular file of at most 64 MiB below `folder`.

    Each component is opened from its parent's descriptor without following links, so that nothing can be swapped between
    check and use. Raises FrazilError PATH_REFUSED for a path that leaves the folder, FILE_NOT_FOUND when it is not there.
    """
    parts = split_relative(relative_path)
    try:
        descriptor = os.open(folder, _DIRECTORY)
        for part in parts[:-1]:
            descriptor = _step(descriptor, part, _DIRECTORY | os.O_NOFOLLOW)
        descriptor = _step(descriptor, parts[-1], _FILE)
    except OSError as error:
        raise _not_found(relative_path) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise _not_found(relative_path)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_BYTES)
    finally:
        os.close(descriptor)


def split_relative(relative_path: str) -> list[str]:
    """Return the components of a clean relative path; raises FrazilError PATH_REFUSED for any other."""
    parts = relative_path.split("/")
    clean = relative_path and "\0" not in relative_path and "\\" not in relative_path
    if not clean or len(os.fsencode(relative_path)) > _PATH_BYTES or any(part in {"", ".", ".."} for part in parts):
        raise FrazilError(
            "PATH_REFUSED", "The record names a file outside its session's folder; it is not shown.", kind=ErrorKind.NOT_FOUND
        )
    return parts


def _step(descriptor: int, part: str, flags: int) -> int:
    """Open a component relative to its parent and close the parent."""
    try:
        return os.open(part, flags, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _not_found(relative_path: str) -> FrazilError:
    name = relative_path.rsplit("/", 1)[-1]
    sentence = f"The file {name} is not in the session's folder; check that this service sees the scheduler's disk."
    return FrazilError("FILE_NOT_FOUND", sentence, kind=ErrorKind.NOT_FOUND)
