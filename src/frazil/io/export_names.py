"""Names of an export: its folders and tables, and names for movies in flat folders.

The latter are unique, stable while a session grows, safe in STAR files and shells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

# What an export writes into its folder.
FOLDERS = ("micrographs", "thumbnails", "motion", "picks", "particles", "class2d", "refine3d", "abinitio")
TABLES = ("micrographs.star", "particles.star", "particles.cs", "exposures.csv", "session.json", "report.html")

_UNSAFE = re.compile(r"[^\w.+-]+")
_NAME_MAX_BYTES = 200  # the file system's 255 less suffixes and temporary names


def flat_names(relative_paths: Iterable[str]) -> list[str]:
    """Return one name per movie, in order of registration.

    The first movie with a stem gets it; a later one of the same stem in another folder gets its folders' names in front;
    what still collides gets its place in the order behind. A name depends only on movies before it, so that it never
    changes when more arrive.
    """
    taken: set[str] = set()
    names = []
    for number, path in enumerate(relative_paths, start=1):
        parts = PurePosixPath(path).with_suffix("").parts
        candidates = (_safe(parts[-1]), _safe("_".join(parts)), f"{_safe(parts[-1])}-{number}")
        name = next((candidate for candidate in candidates if candidate not in taken), f"movie-{number}")
        taken.add(name)
        names.append(name)
    return names


def exported_files(output: Path) -> list[Path]:
    """Return the files of an export that are there."""
    tables = [output / name for name in TABLES]
    images = [path for name in FOLDERS for path in (output / name).glob("*")]
    return [path for path in tables + images if path.is_file()]


def _safe(text: str) -> str:
    """Replace what RELION, a shell or a STAR file cannot hold, and keep the end of what is too long (it tells movies apart)."""
    name = _UNSAFE.sub("_", text).lstrip(".-") or "movie"
    while len(name.encode()) > _NAME_MAX_BYTES:
        name = name[1:]
    return name
