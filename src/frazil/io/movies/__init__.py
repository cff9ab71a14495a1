"""Movies of every format, by file name: header, completeness, frames.

The folder is the registry: a module here that is not private offers `NAME`, `SUFFIXES`, `read_info`, `check_structure` and
`iterate_frames` (see `MovieFormat`), and nothing else need be told. Importing this package and checking structures needs
no numpy; reading frames does.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from frazil.io.movies._contract import Completeness, Image, MovieFormat, MovieInfo
from frazil.model.errors import InputError

__all__ = [
    "Completeness",
    "Movie",
    "MovieFormat",
    "MovieInfo",
    "formats",
    "is_movie_name",
    "open_movie",
    "read_frames",
    "read_info",
    "read_movie",
    "structure_complete",
]


@cache
def formats() -> dict[str, MovieFormat]:
    """Return the movie formats by file-name suffix (lower case, with the dot)."""
    found: dict[str, MovieFormat] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            movie_format = cast("MovieFormat", importlib.import_module(f"{__name__}.{module.name}"))
            found.update(dict.fromkeys(movie_format.SUFFIXES, movie_format))
    return found


def is_movie_name(path: Path | str) -> bool:
    """Say whether a file's name is that of a movie we can read."""
    return Path(path).suffix.lower() in formats()


def read_info(path: Path | str) -> MovieInfo:
    """Read a movie's header; no pixel is read.

    Raises InputError with a clear sentence when the name is of no known format, or the file is empty, broken, or beyond
    the limits.
    """
    return _format_of(Path(path)).read_info(Path(path))


def structure_complete(path: Path | str) -> Completeness:
    """Say whether a movie file is whole: everything its header promises lies within the file.

    Nothing in the file makes it raise: a file that is empty, cut, growing or malicious is answered as not complete with a
    sentence. Errors of the file system (unreachable, no such file) do raise, as OSError.
    """
    try:
        Path(path).stat()
        return _format_of(Path(path)).check_structure(Path(path))
    except InputError as error:
        return Completeness(complete=False, sentence=error.sentence)


def read_frames(path: Path | str) -> Iterator[Image]:
    """Yield the frames of a movie one by one, `(y, x)`, rows in MRC order, in the file's own dtype."""
    movie = open_movie(path)
    return movie.frames()


def read_movie(path: Path | str) -> Image:
    """Read a whole movie into memory: `(frame, y, x)`, rows in MRC order, in the file's own dtype.

    Raises InputError when the file is not whole or cannot be decoded.
    """
    import numpy as np

    movie = open_movie(path)
    info = movie.info
    frames = np.empty((info.frame_count, info.height_px, info.width_px), dtype=info.dtype)
    for index, frame in enumerate(movie.frames()):
        frames[index] = frame
    return frames


@dataclass(frozen=True, slots=True)
class Movie:
    """A movie on disk that was found whole when it was opened."""

    path: Path
    info: MovieInfo

    def frames(self) -> Iterator[Image]:
        """Yield the frames one by one, `(y, x)`, rows in MRC order."""
        return _format_of(self.path).iterate_frames(self.path, self.info)


def open_movie(path: Path | str) -> Movie:
    """Open a movie: header and structure are checked, no pixel is read yet.

    Raises InputError when the file is not whole.
    """
    movie_path = Path(path)
    info = read_info(movie_path)
    completeness = structure_complete(movie_path)
    if not completeness.complete:
        raise InputError("MOVIE_INCOMPLETE", completeness.sentence)
    return Movie(movie_path, info)


def _format_of(path: Path) -> MovieFormat:
    """Return the format of a file by its name. Raises InputError for an unknown one."""
    known = formats()
    if path.suffix.lower() not in known:
        raise InputError(
            "MOVIE_FORMAT_UNKNOWN",
            f"{path.name} is of no known movie format; known are {', '.join(sorted(known))}.",
        )
    return known[path.suffix.lower()]
