"""Which files of a folder may be movies, told by their names alone."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from frazil.io.movie_glob import matches
from frazil.io.movies import is_movie_name

# Formats of movies that this version cannot read; a folder with nothing else deserves a sentence.
_FOREIGN_SUFFIXES = frozenset({".dm3", ".dm4", ".bz2", ".gz", ".zst"})
_TEMPORARY = re.compile(r"^[.~]|(\.tmp|\.temp|\.part|\.partial|\.filepart|\.crdownload|~)(\.|$)|downloading", re.IGNORECASE)


def is_temporary_name(name: str) -> bool:
    """Say whether a program that copies or downloads gives such names to unfinished files."""
    return bool(_TEMPORARY.search(name))


def is_candidate(relative_path: str, glob: str = "", *, opt_in: bool = False) -> bool:
    """Say whether a file may be a movie: of a readable format, not temporary, and matched by the session's glob.

    `opt_in`: the session also asks for the formats that are read only then.
    """
    name = PurePosixPath(relative_path).name
    return is_movie_name(name, opt_in=opt_in) and not is_temporary_name(name) and matches(glob, relative_path)


def is_foreign(name: str) -> bool:
    """Say whether a file looks like a movie of a format that is not read."""
    return PurePosixPath(name).suffix.lower() in _FOREIGN_SUFFIXES and not is_movie_name(name) and not is_temporary_name(name)
