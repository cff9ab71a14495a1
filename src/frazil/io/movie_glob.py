"""Globs that choose movies, understood alike by the command line's first look and by ingest."""

from __future__ import annotations

import re
from functools import cache


def matches(glob: str, relative_path: str) -> bool:
    """Say whether a path relative to the movie folder is chosen by the glob; an empty one chooses everything."""
    return not glob or _glob(glob).fullmatch(relative_path) is not None


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
