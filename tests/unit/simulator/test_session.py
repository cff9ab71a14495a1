"""Sessions on disk: what is written reads back, arrives as from a camera, and its truth stays apart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frazil.io.defect_map import read_defects
from frazil.io.gain_reference import read_gain
from frazil.io.metadata import read_metadata
from frazil.io.movies import Rendering, read_info, read_movie, structure_complete
from frazil.io.mrc import read_mrc
from frazil.io.star import read_star
from frazil.model.errors import InputError
from frazil.simulator import (
    DEFECTS_NAME,
    GAIN_NAME,
    GAIN_TIFF_NAME,
    BadMovie,
    DeliveredMovie,
    Delivery,
    SimulationParameters,
    session_camera,
    simulate_movie,
    write_session,
)
from frazil.simulator.session import EER_RAW_FRAMES, write_in_pieces

TINY = SimulationParameters(
    movie_count=4, width_px=192, height_px=160, frame_count=3, particles_per_movie=3, particle="chain",
    pixel_size_angstrom=2.0, hot_pixel_count=2, dead_pixel_count=3,
)  # fmt: skip


@dataclass
class Clock:
    """A clock that moves only when somebody sleeps, and remembers what lay in a folder meanwhile."""

    now: float = 100.0
    watched: Path | None = None
    seen: list[dict[str, int]] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.watched is not None:
            self.seen.append({path.name: path.stat().st_size for path in self.watched.iterdir()})


@pytest.mark.parametrize("layout", ["epu", "serialem"])
@pytest.mark.parametrize("movie_format", ["tiff", "mrc"])
def test_a_session_reads_back(tmp_path: Path, layout: Any, movie_format: Any) -> None:
    delivered = write_session(
        TINY, tmp_path / "camera", tmp_path / "truth", delivery=Delivery(layout=layout, movie_format=movie_format)
    )
    assert [movie.index for movie in delivered] == [0, 1, 2, 3]
    for movie in delivered:
        assert structure_complete(movie.path).complete
        np.testing.assert_array_equal(read_movie(movie.path), simulate_movie(TINY, movie.index).frames)
        metadata = read_metadata(movie.path)
        assert metadata.pixel_size_angstrom == pytest.approx(2.0)
        assert metadata.voltage_kv == pytest.approx(300.0)
        assert metadata.dose_per_frame_e_per_angstrom2 == pytest.approx(1.25)
        assert metadata.frame_count == 3
    groups = {(m.beam_shift_x, m.beam_shift_y) for m in (read_metadata(d.path) for d in delivered)}
    assert len(groups) == 3  # three shots a hole: three optics groups
    gain = read_gain(tmp_path / "camera" / GAIN_NAME, expected_shape=(160, 192))
    np.testing.assert_allclose(gain, session_camera(TINY).gain, rtol=1e-5)
    np.testing.assert_allclose(read_gain(tmp_path / "camera" / GAIN_TIFF_NAME), gain, rtol=1e-6)
    defects = read_defects(tmp_path / "camera" / DEFECTS_NAME, (160, 192))
    assert defects.any(axis=0).sum() == TINY.defect_column_count
    assert (read_movie(delivered[0].path)[:, defects].sum(axis=0) <= 200).all()


def test_the_two_formats_hold_the_same_movie(tmp_path: Path) -> None:
    one = replace(TINY, movie_count=1)
    formats: tuple[Any, ...] = ("tiff", "mrc")
    twins = [write_session(one, tmp_path / name, delivery=Delivery(movie_format=name))[0].path for name in formats]
    np.testing.assert_array_equal(read_movie(twins[0]), read_movie(twins[1]))


def test_epu_names(tmp_path: Path) -> None:
    path = write_session(replace(TINY, movie_count=1), tmp_path)[0].path
    assert path.relative_to(tmp_path).parts[0] == "Images-Disc1"
    assert path.parent.name == "Data"
    assert path.name == "FoilHole_21746001_Data_21744880_21745100_20260105_090000_fractions.tiff"
    assert (path.parent / path.name.replace("_fractions.tiff", ".xml")).is_file()
    assert read_metadata(path).grid_square == "21740312"


def test_truth(tmp_path: Path) -> None:
    delivered = write_session(TINY, tmp_path / "camera", tmp_path / "truth")
    micrographs: Any = read_star(tmp_path / "truth" / "micrographs.star")["micrographs"]
    particles: Any = read_star(tmp_path / "truth" / "particles.star")["particles"]
    names = [str(movie.path.relative_to(tmp_path / "camera")) for movie in delivered]
    assert micrographs["rlnMicrographName"] == names
    start = 0
    for row, movie in enumerate(delivered):
        truth = simulate_movie(TINY, movie.index)
        assert micrographs["rlnDefocusU"][row] == pytest.approx(truth.ctf.defocus_u_angstrom, abs=1e-3)
        count = len(truth.particles)
        mine = slice(start, start + count)
        assert set(particles["rlnMicrographName"][mine]) <= {names[row]}
        np.testing.assert_allclose(particles["rlnCoordinateX"][mine], truth.particles["coordinate_x_px"], atol=1e-5)
        np.testing.assert_allclose(particles["rlnAngleTilt"][mine], truth.particles["tilt_degrees"], atol=1e-5)
        start += count
        motion: Any = read_star(tmp_path / "truth" / "motion" / f"{movie.path.stem}.star")
        np.testing.assert_allclose(motion["global_shift"]["rlnMicrographShiftX"], truth.motion.shift_x_px, atol=1e-5)
        local = motion["local_shift"]["rlnMicrographShiftY"].reshape(TINY.frame_count, count)
        np.testing.assert_allclose(local, truth.local_shift_px[..., 1], atol=1e-5)
    volume, pixel_size = read_mrc(tmp_path / "truth" / "volume.mrc")
    assert volume.ndim == 3
    assert pixel_size == pytest.approx(2.0)


def test_truth_is_not_laid_into_the_microscopes_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="beside it"):
        write_session(TINY, tmp_path / "camera", tmp_path / "camera" / "truth")
    assert not (tmp_path / "camera").exists()


def test_movies_keep_their_rate(tmp_path: Path) -> None:
    clock, times = Clock(), []
    write_session(
        TINY,
        tmp_path,
        delivery=Delivery(interval_seconds=10.0, write_seconds=4.0),
        clock=clock,
        sleep=clock.sleep,
        on_movie=lambda _: times.append(clock.now),
    )
    assert times == pytest.approx([104.0, 114.0, 124.0, 134.0])


def test_a_movie_grows_and_is_incomplete_until_it_is_whole(tmp_path: Path) -> None:
    path = write_session(replace(TINY, movie_count=1), tmp_path / "camera")[0].path
    data = path.read_bytes()
    for delivery in (Delivery(write_seconds=7.0), Delivery(write_seconds=7.0, preallocate=True)):
        folder = tmp_path / f"grow-{delivery.preallocate}"
        folder.mkdir()
        answers: list[bool] = []

        def look(_: float, folder: Path = folder, answers: list[bool] = answers) -> None:
            answers.append(structure_complete(folder / "movie.tiff").complete)

        write_in_pieces(folder / "movie.tiff", data, delivery, look)
        assert answers == [False] * 7
        assert (folder / "movie.tiff").read_bytes() == data
        assert structure_complete(folder / "movie.tiff").complete


def test_pieces_temporary_names_and_reserved_space(tmp_path: Path) -> None:
    data = bytes(range(200))
    clock = Clock(watched=tmp_path)
    write_in_pieces(tmp_path / "m.mrc", data, Delivery(piece_count=4, write_seconds=3.0), clock.sleep)
    assert [seen["m.mrc"] for seen in clock.seen] == [50, 100, 150]
    assert clock.now == pytest.approx(103.0)
    (tmp_path / "m.mrc").unlink()
    clock.seen.clear()
    reserved = Delivery(piece_count=2, write_seconds=1.0, temporary_name=True, preallocate=True)
    write_in_pieces(tmp_path / "m.mrc", data, reserved, clock.sleep)
    assert clock.seen == [{"m.mrc.part": 200}]
    assert (tmp_path / "m.mrc").read_bytes() == data


def test_bad_movies(tmp_path: Path) -> None:
    bad = (
        BadMovie(index=0, kind="empty"),
        BadMovie(index=1, kind="truncated"),
        BadMovie(index=2, kind="other_shape"),
        BadMovie(index=3, kind="garbage"),
    )
    delivered = write_session(
        replace(TINY, movie_count=5), tmp_path / "camera", tmp_path / "truth", delivery=Delivery(bad_movies=bad)
    )
    assert [movie.bad for movie in delivered] == ["empty", "truncated", "other_shape", "garbage", None]
    assert [structure_complete(movie.path).complete for movie in delivered] == [False, False, True, False, True]
    assert read_info(delivered[2].path).width_px < TINY.width_px
    assert "truncated" in structure_complete(delivered[1].path).sentence
    table: Any = read_star(tmp_path / "truth" / "bad_movies.star")["bad_movies"]
    assert table["frazilKind"] == ["empty", "truncated", "other_shape", "garbage"]
    good: Any = read_star(tmp_path / "truth" / "micrographs.star")["micrographs"]
    assert len(good["rlnMicrographName"]) == 1


@pytest.mark.parametrize(("width", "height"), [(64, 64), (131, 97)])
def test_small_and_odd_frames(tmp_path: Path, width: int, height: int) -> None:
    odd = replace(TINY, movie_count=1, width_px=width, height_px=height)
    assert read_movie(write_session(odd, tmp_path)[0].path).shape == (3, height, width)


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(InputError, match="at least 64 px"):
        replace(TINY, width_px=32)
    with pytest.raises(InputError, match="do not fit a counting camera"):
        replace(TINY, dose_per_frame_e_per_angstrom2=40.0)
    with pytest.raises(InputError, match="do not fit a counting camera"):
        replace(TINY, dose_per_frame_e_per_angstrom2=0.0)


def test_stopping_the_session(tmp_path: Path) -> None:
    def stop(movie: DeliveredMovie) -> None:
        if movie.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_session(TINY, tmp_path, on_movie=stop)
    assert len(list(tmp_path.rglob("*_fractions.tiff"))) == 2


@pytest.mark.parametrize("movie_format", ["mrc-4bit", "eer"])
@pytest.mark.parametrize("layout", ["epu", "serialem"])
def test_other_cameras_deliver_the_same_counts(tmp_path: Path, movie_format: Any, layout: Any) -> None:
    """The movie and its gain, read back as they came, are those of the TIFF session."""
    parameters = replace(TINY, movie_count=1)
    (delivered,) = write_session(parameters, tmp_path, delivery=Delivery(layout=layout, movie_format=movie_format))
    frames = simulate_movie(parameters, 0).frames
    gain = session_camera(parameters).gain
    assert structure_complete(delivered.path).complete
    assert read_metadata(delivered.path).voltage_kv == pytest.approx(300.0)
    if movie_format == "eer":
        rendering = Rendering(frames_per_fraction=EER_RAW_FRAMES)
        np.testing.assert_array_equal(read_movie(delivered.path, rendering), np.minimum(frames, EER_RAW_FRAMES))
        for name in (GAIN_NAME, GAIN_TIFF_NAME):
            np.testing.assert_allclose(read_gain(tmp_path / name, rendering=rendering), gain, rtol=1e-4)
    else:
        np.testing.assert_array_equal(read_movie(delivered.path), np.minimum(frames, 15))
        np.testing.assert_allclose(read_gain(tmp_path / GAIN_NAME), gain, rtol=1e-4)
