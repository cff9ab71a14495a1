"""The end of a worker's log becomes one line."""

from __future__ import annotations

import json

import pytest

from frazil_scheduler.domain.last_words import last_words

TRACEBACK = "Traceback (most recent call last):\n  File \"x.py\", line 1, in f\nModuleNotFoundError: No module named 'cupy'"
CRASH = json.dumps({"event": "worker_crashed", "level": "error", "exception": TRACEBACK})


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("\n \n", ""),
        ("Segmentation fault\n\n", "Segmentation fault"),
        (f'{{"event": "worker_attached"}}\n{CRASH}\n', "ModuleNotFoundError: No module named 'cupy'"),
        (CRASH[30:], "ModuleNotFoundError: No module named 'cupy'"),
        ('{"event": "worker_failed", "sentence": "Mount it again."}', "Mount it again."),
        ('{"event": "worker_attached"}', "worker_attached"),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_the_reason_is_found(log: str, words: str) -> None:
    assert last_words(log) == words


def test_a_long_line_keeps_its_end() -> None:
    assert last_words("x" * 5000 + "the end").endswith("the end")
    assert "\n" not in last_words("x" * 5000)
    assert len(last_words("x" * 5000)) < 500
