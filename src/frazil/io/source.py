"""Reading the microscope's files under a guard: what was read is what ingest registered, or an error says why not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from frazil.model.errors import ErrorKind, FrazilError, InputError


class SourceChangedError(FrazilError):
    """The movie is not the one that was registered, or cannot be reached now; never the exposure's fault (INFRA)."""


@contextlib.contextmanager
def unchanged_source(path: Path | str, size_bytes: int, modified_ns: int, *, root: Path | str | None = None) -> Iterator[Path]:
    """Guard the reading of a movie: size and modification time must be those registered, before and after the block.

    Device and inode are not compared: they differ between the machines that mount one file system.

    Raises SourceChangedError (do not count the attempt) when the file differs from what was registered or its folder
    `root` cannot be reached, and InputError SOURCE_GONE when the folder is there and the file is not. An OSError of the block
    becomes one of these when the file has changed or gone meanwhile.
    """
    movie = Path(path)
    folder = Path(root) if root is not None else movie.parent
    _compare(movie, size_bytes, modified_ns, folder)
    try:
        yield movie
    except (OSError, InputError, ValueError):
        _compare(movie, size_bytes, modified_ns, folder)
        raise
    _compare(movie, size_bytes, modified_ns, folder)


def _compare(movie: Path, size_bytes: int, modified_ns: int, root: Path) -> None:
    try:
        found = movie.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(movie, root) from error
    except OSError as error:
        raise _unreachable(root, error.strerror or str(error)) from error
    if (found.st_size, found.st_mtime_ns) != (size_bytes, modified_ns):
        raise SourceChangedError(
            "SOURCE_CHANGED",
            f"{movie.name} has changed since it was registered; it is processed again once it is stable.",
            kind=ErrorKind.UNAVAILABLE,
        )


def _missing(movie: Path, root: Path) -> FrazilError:
    """Tell a deleted movie from an unmounted folder: an empty or absent root proves nothing about the movie."""
    try:
        reachable = any(root.iterdir())
    except OSError as error:
        return _unreachable(root, error.strerror or str(error))
    if not reachable:
        return _unreachable(root, "it is empty")
    return InputError("SOURCE_GONE", f"{movie.name} is no longer in the movie folder: it was moved or deleted.")


def _unreachable(root: Path, why: str) -> SourceChangedError:
    return SourceChangedError(
        "SOURCE_UNREACHABLE", f"The movie folder {root} cannot be read ({why}): check its mount.", kind=ErrorKind.UNAVAILABLE
    )
