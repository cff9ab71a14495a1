"""Crash failpoints: with FRAZIL_FAILPOINT="name:count" the process dies at the count-th passing of a point, as by kill -9.

Tests set the variable; without it a failpoint costs one dictionary look-up. Several points are separated by commas. With
FRAZIL_FAILPOINT_FLAG=PATH the crash happens once only: the file is created at the crash, and while it exists nothing crashes.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

EXIT_CODE = 137  # what a shell reports for SIGKILL

_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die here if FRAZIL_FAILPOINT says so."""
    wanted = os.environ.get("FRAZIL_FAILPOINT")
    if not wanted:
        return
    _passed[name] += 1
    if (name, _passed[name]) in _parse(wanted) and _first_time():
        os._exit(EXIT_CODE)


def _parse(text: str) -> set[tuple[str, int]]:
    points = set()
    for entry in text.split(","):
        name, _, count = entry.strip().partition(":")
        points.add((name, int(count or 1)))
    return points


def _first_time() -> bool:
    flag = os.environ.get("FRAZIL_FAILPOINT_FLAG")
    if not flag:
        return True
    try:
        with Path(flag).open("x"):
            return True
    except FileExistsError:
        return False
