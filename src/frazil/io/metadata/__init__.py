"""What the microscope's software wrote beside a movie: EPU's XML, SerialEM's mdoc.

The folder is the registry: a module here that is not private offers `NAME`, `companion_names` and `parse`. No numpy.
"""

from __future__ import annotations

import errno
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import cast

from frazil.io.metadata._contract import MetadataFormat, candidate_folders
from frazil.io.metadata._fit import fit_to_movie
from frazil.model.optics import MovieMetadata

__all__ = ["MetadataFormat", "find_companion", "fit_to_movie", "formats", "read_metadata"]


@cache
def formats() -> tuple[MetadataFormat, ...]:
    """Return the metadata formats in alphabetical order of their modules."""
    return tuple(
        cast("MetadataFormat", importlib.import_module(f"{__name__}.{module.name}"))
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    )


def read_metadata(
    movie_path: Path | str, *, metadata_root: Path | str | None = None, movie_root: Path | str | None = None
) -> MovieMetadata:
    """Read what the companion file of a movie says about it.

    The companion is sought beside the movie; with `metadata_root` (a session's metadata may lie in another tree than its
    movies) also at the same place relative to `movie_root`, at the top of `metadata_root`, and in the sessions below it (see
    `candidate_folders`). Without a companion, or with
    one that cannot be understood, every value is None and `provenance` says why under "companion"; nothing raises but the
    file system.
    """
    movie = Path(movie_path)
    roots = tuple(Path(root) if root is not None else None for root in (metadata_root, movie_root))
    found = find_companion(movie, metadata_root=roots[0], movie_root=roots[1])
    if found is None:
        return MovieMetadata(provenance=(("companion", "none found"),))
    metadata_format, companion = found
    return metadata_format.parse(companion, movie)


def find_companion(
    movie: Path, *, metadata_root: Path | None = None, movie_root: Path | None = None
) -> tuple[MetadataFormat, Path] | None:
    """Return the companion file of a movie and its format, or None."""
    for folder in candidate_folders(movie, metadata_root, movie_root):
        for metadata_format in formats():
            for name in metadata_format.companion_names(movie.name):
                if _is_file(folder / name):
                    return metadata_format, folder / name
    return None


def _is_file(path: Path) -> bool:
    """Say whether a file is there; a movie's name may be so long that no file can have that of its companion."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise
