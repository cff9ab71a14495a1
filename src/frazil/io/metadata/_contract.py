"""What every metadata format offers, and how a movie's companion file is found. No numpy here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

from frazil.model.optics import MovieMetadata

COMPANION_MAX_BYTES = 16 * 2**20
_SUBFOLDERS_MAX = 64  # sessions at a time in one tree, and discs of one
_LEVELS_UP = 5  # EPU puts the gain reference at the top of a session


class MetadataFormat(Protocol):
    """The functions that a module of this folder offers; adding a format is adding such a module."""

    NAME: str

    def companion_names(self, movie_name: str) -> tuple[str, ...]:
        """Return the names that the companion of a movie may have, likeliest first."""
        ...

    def parse(self, companion: Path, movie: Path) -> MovieMetadata:
        """Read the companion. Never raises for what the file holds: what cannot be read is None, with a note."""
        ...


def candidate_folders(movie: Path, metadata_root: Path | None, movie_root: Path | None) -> Iterator[Path]:
    """Yield the folders in which the companion may lie: beside the movie, in the parallel tree, at the tree's top.

    The parallel tree may begin at the movie's disc or grid square, and may lie under a session's folder of its own, as where
    several grids are taken at once: `<metadata_root>/metadata_<session>/Images-Disc1/GridSquare_7/Data`.
    """
    yield movie.parent
    if metadata_root is None:
        return
    tails = list(_tails(movie, movie_root))
    yield from (metadata_root / tail for tail in tails)
    yield metadata_root
    sessions = [metadata_root, *_subfolders(metadata_root, "")]
    for session in sessions:
        for base in (session, *_subfolders(session, "Images-Disc")):
            if base != metadata_root:
                yield from (base / tail for tail in tails)


def _tails(movie: Path, movie_root: Path | None) -> Iterator[Path]:
    """Yield what a movie's folder may be called in the other tree: all of it, or from its disc or grid square on."""
    folder = movie.parent
    if movie_root is not None and movie.is_relative_to(movie_root):
        folder = folder.relative_to(movie_root)
        yield folder
    for name in ("Images-Disc", "GridSquare_"):
        begins = [place for place, part in enumerate(folder.parts) if part.startswith(name)]
        if begins and begins[-1] > 0:
            yield Path(*folder.parts[begins[-1] :])


def _subfolders(folder: Path, prefix: str) -> list[Path]:
    """Return the subfolders whose names begin so, in order; none where the folder cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.name.startswith(prefix) and entry.is_dir())
    except OSError:
        return []
    return [folder / name for name in found[:_SUBFOLDERS_MAX]]


def path_part(pattern: re.Pattern[str], movie: Path, companion: Path) -> tuple[str | None, str]:
    """Return the last match of a pattern in the movie's path, else in its companion's, and which of them it was."""
    for path, source in ((movie, "file path"), (companion, "companion's path")):
        matches = pattern.findall(str(path))
        if matches:
            return str(matches[-1]), source
    return None, ""


def beside_or_above(movie: Path, stated: str | None) -> str | None:
    """Return where a file that the microscope names lies: beside the movie, or in a folder above it; else beside it.

    The folder that the microscope gives is one of its own and is dropped.
    """
    name = PureWindowsPath(PurePosixPath(stated or "").name).name
    if name in ("", ".", ".."):
        return None
    for folder in list(movie.parents)[:_LEVELS_UP]:
        try:
            if (folder / name).is_file():
                return str(folder / name)
        except OSError:
            break
    return str(movie.parent / name)


def number(text: str | None, *, scale: float = 1.0) -> float | None:
    """Return a finite number times `scale`, or None for anything else."""
    try:
        value = float(text) * scale if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def positive(text: str | None, *, scale: float = 1.0) -> float | None:
    """Return a finite number above 0 times `scale`, or None for anything else."""
    value = number(text, scale=scale)
    return value if value is not None and value > 0 else None


def count(text: str | None) -> int | None:
    """Return a whole number above 0, or None for anything else."""
    value = positive(text)
    return int(value) if value is not None and value == int(value) and value < 2**31 else None
