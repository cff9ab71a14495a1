"""What every metadata format offers, and how a movie's companion file is found. No numpy here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from frazil.model.optics import MovieMetadata

COMPANION_MAX_BYTES = 16 * 2**20


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
    """Yield the folders in which the companion may lie: beside the movie, then in the parallel tree, then at its top."""
    yield movie.parent
    if metadata_root is None:
        return
    if movie_root is not None and movie.is_relative_to(movie_root):
        yield metadata_root / movie.parent.relative_to(movie_root)
    yield metadata_root


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
