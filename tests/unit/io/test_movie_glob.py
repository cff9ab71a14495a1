"""What a glob chooses."""

from __future__ import annotations

import pytest

from frazil.io.movie_glob import matches


@pytest.mark.parametrize(
    ("glob", "path", "chosen"),
    [
        ("", "a/b.tif", True),
        ("*.tif", "a/b.tif", True),
        ("*.tif", "a/b.mrc", False),
        ("a/*.tif", "a/b.tif", True),
        ("a/*.tif", "a/c/b.tif", False),
        ("a/**/*.tif", "a/c/d/b.tif", True),
        ("**b.tif", "a/b.tif", True),
        ("/abs/*", "abs/b.tif", False),
        ("../*", "b.tif", False),
        ("[ab].tif", "c.tif", False),
    ],
)
def test_globs_choose_as_people_expect(glob: str, path: str, chosen: bool) -> None:
    assert matches(glob, path) is chosen
