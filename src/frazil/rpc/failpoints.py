"""Crash failpoints: with FRAZIL_FAILPOINT="name:count" the process dies at the count-th passing of a point, as by kill -9.

Tests set the variable; without it a failpoint costs one dictionary look-up. Several points are separated by commas, and a name
may be a pattern ("scheduler.*"). With FRAZIL_FAILPOINT_FLAG=PATH the crash happens once only: the file is created at the crash,
and while it exists nothing crashes. If PATH is a folder, every point has its own file there and crashes once.

There is a point before and after every durable step: `<program>.<what is done>.before` and `.after`.
"""

from __future__ import annotations

import os
from collections import Counter
from contextvars import ContextVar
from fnmatch import fnmatchcase
from pathlib import Path

EXIT_CODE = 137  # what a shell reports for SIGKILL

operation: ContextVar[str] = ContextVar("operation", default="Background")
"""What a server is doing: the name of the call or message that it answers."""

_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die here if FRAZIL_FAILPOINT says so."""
    wanted = os.environ.get("FRAZIL_FAILPOINT")
    if not wanted:
        return
    _passed[name] += 1
    if any(fnmatchcase(name, pattern) and _passed[name] == count for pattern, count in _parse(wanted)) and _first_time(name):
        os._exit(EXIT_CODE)


def _parse(text: str) -> list[tuple[str, int]]:
    entries = (entry.strip().partition(":") for entry in text.split(","))
    return [(pattern, int(count or 1)) for pattern, _, count in entries]


def _first_time(name: str) -> bool:
    flag = os.environ.get("FRAZIL_FAILPOINT_FLAG")
    if not flag:
        return True
    path = Path(flag) / name if Path(flag).is_dir() else Path(flag)
    try:
        with path.open("x"):
            return True
    except FileExistsError:
        return False
