"""Listing a growing folder cheaply: a folder whose modification time stands still is not read again."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import structlog

_HOT_LISTINGS = 2  # a time stamp is coarse: a file made in the same tick as our listing shows one listing later
# The file system itself fails: nothing it says about what is there can be believed.
_UNREACHABLE = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH})


class UnreachableError(Exception):
    """The folder cannot be read as a whole; the text is a sentence for people."""


@dataclass(slots=True)
class _Folder:
    modified_ns: int = -1
    hot: int = 0
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # to folders


@dataclass(slots=True)
class FolderWalk:
    """Lists every file below `root`, by path relative to it. Links to folders are followed, each folder once."""

    root: Path
    unreadable: dict[str, str] = field(default_factory=dict)  # subfolders of the last listing, and why
    _known: dict[str, _Folder] = field(default_factory=dict)

    def files(self, *, fresh: bool = False) -> list[str]:
        """Return the files; `fresh` reads every folder again, whatever its time says.

        A subfolder that may not be read is left out and noted in `unreadable`. Raises UnreachableError when the root cannot
        be read or the file system fails.
        """
        visited: set[tuple[int, int]] = set()
        known_unreadable, self.unreadable = self.unreadable, {}
        listed: dict[str, _Folder] = {}
        found: list[str] = []
        real, links = deque([""]), deque[str]()
        while real or links:  # real folders first: where a folder has two names, the link is the one left out
            relative = real.popleft() if real else links.popleft()
            folder = self._list(relative, visited, fresh=fresh)
            if folder is None:
                continue
            listed[relative] = folder
            found.extend(_join(relative, name) for name in folder.files)
            real.extend(_join(relative, name) for name in folder.folders)
            links.extend(_join(relative, name) for name in folder.links)
        self._known = listed
        for relative in self.unreadable.keys() - known_unreadable.keys():
            structlog.get_logger().warning(
                "folder_unreadable", folder=str(self.root / relative), sentence=self.unreadable[relative]
            )
        return found

    def _list(self, relative: str, visited: set[tuple[int, int]], *, fresh: bool) -> _Folder | None:
        path = self.root / relative if relative else self.root
        try:
            status = path.stat()
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                return None
            visited.add(identity)
            known = self._known.get(relative, _Folder())
            changed = known.modified_ns != status.st_mtime_ns
            if not (changed or known.hot or fresh):
                return known
            return _read(path, status.st_mtime_ns, _HOT_LISTINGS if changed else max(0, known.hot - 1))
        except OSError as error:
            if not relative or error.errno in _UNREACHABLE:
                raise UnreachableError(f"The movie folder {path} cannot be read: {error.strerror}.") from error
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.unreadable[relative] = error.strerror or str(error)
            return None


def _read(path: Path, modified_ns: int, hot: int) -> _Folder:
    kinds: dict[str, list[str]] = {"file": [], "folder": [], "link": []}
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            kinds[_kind(entry)].append(entry.name)
    return _Folder(modified_ns, hot, tuple(kinds["file"]), tuple(kinds["folder"]), tuple(kinds["link"]))


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "link" if entry.is_symlink() and entry.is_dir() else "file"
    except OSError:
        return "file"  # whatever is wrong with it shows when it is looked at


def _join(relative: str, name: str) -> str:
    return f"{relative}/{name}" if relative else name
