"""When a finished run may say so without looking further, and what has it take the long way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from frazil.api.exposure.v1.exposure_pb2 import Exposure, MovieFile
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.cli import checks, finished
from frazil.cli.finished import forget_note, look_at, summary_of_finished, write_note

PARAMETERS = SessionParameters(movie_folder="/movies", particle_diameter_angstrom=150.0, voltage_kv=300.0)
SUMMARY = ["  movies  2"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run over two movies, of which the second came while it ran."""
    movies, output = tmp_path / "movies", tmp_path / "out"
    for name in ("movies/square/a.tiff", "movies/square/b.tiff", "out/micrographs/a.mrc", "out/exposures.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    late = (movies / "square" / "b.tiff").stat()
    write_note(
        tmp_path,
        PARAMETERS,
        seen=look_at(movies, [movies / "square" / "a.tiff"]),
        exposures=[
            Exposure(file=MovieFile(relative_path="square/b.tiff", size_bytes=late.st_size, modified_ns=late.st_mtime_ns))
        ],
        results=look_at(output, [output / "micrographs" / "a.mrc", output / "exposures.csv"]),
        summary=SUMMARY,
    )
    return tmp_path


def again(run: Path, parameters: SessionParameters = PARAMETERS) -> list[str] | None:
    movies = look_at(run / "movies", checks.find_movies(run / "movies", ""))
    return summary_of_finished(run, parameters, movies=movies, output=run / "out")


def test_nothing_has_changed(run: Path) -> None:
    assert again(run) == SUMMARY
    (run / "movies" / "square" / "notes.txt").write_text("no movie")
    (run / "movies" / "square" / "a.tiff").unlink()  # moved away since: its results stand
    assert again(run) == SUMMARY


def test_a_movie_behind_a_link_is_new(run: Path) -> None:
    (run / "elsewhere").mkdir()
    (run / "movies" / "linked").symlink_to(run / "elsewhere")
    (run / "movies" / "square" / "loop").symlink_to(run / "movies")
    assert again(run) == SUMMARY
    (run / "elsewhere" / "c.tiff").write_text("new")
    assert again(run) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda run: (run / "movies" / "square" / "c.tiff").write_text("new"),
        lambda run: (run / "movies" / "square" / "a.tiff").write_text("written anew"),
        lambda run: (run / "out" / "micrographs" / "a.mrc").unlink(),
        lambda run: (run / "out" / "exposures.csv").write_text(""),
        lambda run: forget_note(run),
        lambda run: (run / finished.NOTE).write_text('{"version": "torn'),
        lambda run: (run / finished.NOTE).write_text("{}"),
    ],
)
def test_what_has_it_take_the_long_way(run: Path, change: Callable[[Path], object]) -> None:
    change(run)
    assert again(run) is None


def test_other_parameters_or_another_version_take_the_long_way(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SessionParameters()
    other.CopyFrom(PARAMETERS)
    other.voltage_kv = 200.0
    assert again(run, other) is None
    monkeypatch.setattr(finished, "__version__", "99")
    assert again(run) is None
