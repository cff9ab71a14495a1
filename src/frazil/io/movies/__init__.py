"""Movies of every format, by file name: header, completeness, frames.

The folder is the registry: a module here that is not private offers `NAME`, `SUFFIXES`, `OPT_IN`, `EVENTS`,
`read_info`, `check_structure` and `iterate_frames` (see `MovieFormat`), and nothing else need be told. Importing this
package and checking structures needs no numpy; reading frames does.

Frames come in the dtype they are stored in (4-bit pixels as uint8, events as counts): conversion is left to the device.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

from frazil.io.movies._contract import Completeness, Image, MovieFormat, MovieInfo, Rendering, rendered
from frazil.model.errors import InputError

__all__ = [
    "Completeness",
    "Movie",
    "MovieFormat",
    "MovieInfo",
    "Rendering",
    "formats",
    "holds_events",
    "is_movie_name",
    "open_movie",
    "read_frames",
    "read_info",
    "read_movie",
    "structure_complete",
]


@cache
def formats() -> dict[str, MovieFormat]:
    """Return the movie formats by the end of the file name (lower case, with its first dot)."""
    found: dict[str, MovieFormat] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            movie_format = cast("MovieFormat", importlib.import_module(f"{__name__}.{module.name}"))
            found.update(dict.fromkeys(movie_format.SUFFIXES, movie_format))
    return found


def is_movie_name(path: Path | str, *, opt_in: bool = False) -> bool:
    """Say whether a file's name is that of a movie we can read; `opt_in`: also of those read only where asked for."""
    found = _format_named(Path(path).name)
    return found is not None and (opt_in or not found.OPT_IN)


def holds_events(path: Path | str) -> bool:
    """Say whether a file's name is that of a movie of electron events (EER)."""
    found = _format_named(Path(path).name)
    return found is not None and found.EVENTS


def read_info(path: Path | str, *, opt_in: bool = False) -> MovieInfo:
    """Read a movie's header; no pixel is read.

    Raises InputError with a clear sentence when the name is of no known format, or the file is empty, broken, or beyond
    the limits.
    """
    return _format_of(Path(path), opt_in).read_info(Path(path))


def structure_complete(path: Path | str, *, opt_in: bool = False) -> Completeness:
    """Say whether a movie file is whole: everything its header promises lies within the file.

    Nothing in the file makes it raise: a file that is empty, cut, growing or malicious is answered as not complete with a
    sentence. Errors of the file system (unreachable, no such file) do raise, as OSError.
    """
    try:
        Path(path).stat()
        return _format_of(Path(path), opt_in).check_structure(Path(path))
    except InputError as error:
        return Completeness(complete=False, sentence=error.sentence)


def read_frames(path: Path | str) -> Iterator[Image]:
    """Yield the frames of a movie one by one, `(y, x)`, rows in MRC order, in the file's own dtype."""
    return open_movie(path).frames()


def read_movie(path: Path | str, rendering: Rendering | None = None) -> Image:
    """Read a whole movie into memory: `(frame, y, x)`, rows in MRC order, in the file's own dtype.

    A movie of events is rendered as said, else every raw frame by itself. Raises InputError when the file is not whole or
    cannot be decoded.
    """
    movie = open_movie(path)
    return (movie.rendered(rendering) if rendering is not None else movie).read()


@dataclass(frozen=True, slots=True)
class Movie:
    """A movie on disk that was found whole when it was opened."""

    path: Path
    info: MovieInfo

    def rendered(self, rendering: Rendering) -> Movie:
        """Return the movie with its events rendered so; a movie that is stored as frames is returned as it is.

        Raises InputError when it has too few raw frames, or would take too much memory.
        """
        return self if self.info.rendering is None else replace(self, info=rendered(self.info, rendering))

    def frames(self) -> Iterator[Image]:
        """Yield the frames one by one, `(y, x)`, rows in MRC order."""
        return _format_of(self.path, opt_in=True).iterate_frames(self.path, self.info)

    def read(self) -> Image:
        """Return all frames: `(frame, y, x)`. Raises InputError when one cannot be decoded."""
        import numpy as np

        frames = np.empty((self.info.frame_count, self.info.height_px, self.info.width_px), dtype=self.info.dtype)
        for index, frame in enumerate(self.frames()):
            frames[index] = frame
        return frames


def open_movie(path: Path | str, *, opt_in: bool = False) -> Movie:
    """Open a movie: header and structure are checked, no pixel is read yet.

    Raises InputError when the file is not whole.
    """
    movie_path = Path(path)
    info = read_info(movie_path, opt_in=opt_in)
    completeness = structure_complete(movie_path, opt_in=opt_in)
    if not completeness.complete:
        raise InputError("MOVIE_INCOMPLETE", completeness.sentence)
    return Movie(movie_path, info)


def _format_of(path: Path, opt_in: bool) -> MovieFormat:
    """Return the format of a file by its name. Raises InputError for one that is unknown or not asked for."""
    found = _format_named(path.name)
    if found is None:
        known = sorted(suffix for suffix, one in formats().items() if not one.OPT_IN)
        raise InputError("MOVIE_FORMAT_UNKNOWN", f"{path.name} is of no known movie format; known are {', '.join(known)}.")
    if found.OPT_IN and not opt_in:
        raise InputError(
            "MOVIE_FORMAT_OFF", f"{path.name} is compressed as a whole; such movies are read only where the session says so."
        )
    return found


def _format_named(name: str) -> MovieFormat | None:
    """Return the format with the longest suffix that a name ends in."""
    known = formats()
    fitting = [suffix for suffix in known if name.lower().endswith(suffix)]
    return known[max(fitting, key=len)] if fitting else None
