"""A movie that changes, goes, or cannot be reached while it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from frazil.io.source import SourceChangedError, unchanged_source
from frazil.model.errors import ErrorKind, InputError


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    path = tmp_path / "movies" / "sub" / "a.mrc"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 100)
    (tmp_path / "movies" / "other.mrc").touch()
    return path


def registered(movie: Path) -> tuple[int, int]:
    status = movie.stat()
    return status.st_size, status.st_mtime_ns


def test_unchanged_movie_is_read(movie: Path) -> None:
    with unchanged_source(movie, *registered(movie), root=movie.parents[1]) as path:
        assert path.read_bytes() == b"x" * 100


@pytest.mark.parametrize("when", ["before", "during"])
@pytest.mark.parametrize("change", ["size", "time", "replaced"])
def test_change_is_noticed(movie: Path, when: str, change: str) -> None:
    size, modified = registered(movie)

    def alter() -> None:
        if change == "size":
            movie.write_bytes(b"x" * 99)
            os.utime(movie, ns=(modified, modified))
        elif change == "time":
            os.utime(movie, ns=(modified, modified + 1000))
        else:
            other = movie.with_name("b")
            other.write_bytes(b"y" * 100)
            os.utime(other, ns=(modified, modified + 1000))
            other.replace(movie)

    if when == "before":
        alter()
    with pytest.raises(SourceChangedError) as error, unchanged_source(movie, size, modified, root=movie.parents[1]):
        alter()
    assert (error.value.reason, error.value.kind) == ("SOURCE_CHANGED", ErrorKind.UNAVAILABLE)


def test_what_a_reader_trips_over_in_a_changing_file_is_no_bad_input(movie: Path) -> None:
    size, modified = registered(movie)

    def read() -> None:
        with unchanged_source(movie, size, modified, root=movie.parents[1]):
            movie.write_bytes(b"")
            raise InputError("MOVIE_EMPTY", "a.mrc is empty.")

    with pytest.raises(SourceChangedError):
        read()


def test_bad_input_in_an_unchanged_file_stays_what_it_is(movie: Path) -> None:
    with pytest.raises(InputError, match="truncated"), unchanged_source(movie, *registered(movie), root=movie.parents[1]):
        raise InputError("MOVIE_TRUNCATED", "a.mrc is truncated.")


def test_deleted_movie_is_bad_input(movie: Path) -> None:
    size, modified = registered(movie)
    movie.unlink()
    with pytest.raises(InputError, match="moved or deleted"), unchanged_source(movie, size, modified, root=movie.parents[1]):
        pass


@pytest.mark.parametrize("left", ["nothing", "mount point"])
def test_unmounted_folder_says_nothing_about_the_movie(movie: Path, left: str) -> None:
    size, modified = registered(movie)
    root = movie.parents[1]
    root.rename(root.with_name("aside"))
    if left == "mount point":
        root.mkdir()
    with pytest.raises(SourceChangedError, match="check its mount"), unchanged_source(movie, size, modified, root=root):
        pass
