"""Which files of a folder may be movies, told by their names alone."""

from __future__ import annotations

import re
from functools import cache
from pathlib import PurePosixPath

from frazil.io.movies import is_movie_name

# Formats of movies that this version cannot read; a folder with nothing else deserves a sentence.
_FOREIGN_SUFFIXES = frozenset({".eer", ".dm3", ".dm4", ".bz2", ".gz", ".zst"})
_TEMPORARY = re.compile(r"^[.~]|(\.tmp|\.temp|\.part|\.partial|\.filepart|\.crdownload|~)(\.|$)|downloading", re.IGNORECASE)


def is_temporary_name(name: str) -> bool:
    """Say whether a program that copies or downloads gives such names to unfinished files."""
    return bool(_TEMPORARY.search(name))


def is_candidate(relative_path: str, glob: str = "") -> bool:
    """Say whether a file may be a movie: of a readable format, not temporary, and matched by the session's glob."""
    name = PurePosixPath(relative_path).name
    return (
        is_movie_name(name) and not is_temporary_name(name) and (not glob or _glob(glob).fullmatch(relative_path) is not None)
    )


def is_foreign(name: str) -> bool:
    """Say whether a file looks like a movie of a format that is not read."""
    return PurePosixPath(name).suffix.lower() in _FOREIGN_SUFFIXES and not is_movie_name(name) and not is_temporary_name(name)


@cache
def _glob(glob: str) -> re.Pattern[str]:
    """Translate a glob relative to the movie folder: `**` crosses folders, `*` and `?` do not.

    A glob without a slash is matched against the name at any depth, as people expect of "*_fractions.tiff".
    """
    pattern = "" if "/" in glob else "(?:.*/)?"
    rest = glob.removeprefix("./")
    while rest:
        for token, regex in (("**/", "(?:.*/)?"), ("**", ".*"), ("*", "[^/]*"), ("?", "[^/]")):
            if rest.startswith(token):
                pattern, rest = pattern + regex, rest[len(token) :]
                break
        else:
            letters = re.match(r"\[[!^]?\]?[^\]/]+\]", rest)
            token = letters.group() if letters else rest[0]
            pattern += re.sub(r"^\[!", "[^", token).replace("\\", r"\\") if letters else re.escape(token)
            rest = rest[len(token) :]
    return re.compile(pattern, re.DOTALL)
