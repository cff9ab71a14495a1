"""Gain references: turned as asked, brought to one sense and scale, refused with a hint."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from frazil.io.gain_reference import read_gain
from frazil.io.movies import Rendering
from frazil.model.errors import InputError


@pytest.fixture
def gain() -> npt.NDArray[np.float32]:
    values = np.random.default_rng(0).uniform(0.8, 1.2, (20, 32)).astype(np.float32)
    return values / np.median(values)


def write(path: Path, array: npt.NDArray[np.float32]) -> Path:
    if path.suffix == ".mrc":
        with mrcfile.new(path) as file:
            file.set_data(array)
    else:
        tifffile.imwrite(path, array[::-1])  # rows from the top
    return path


@pytest.mark.parametrize("name", ["gain.mrc", "gain.tif", "gain.gain"])
def test_all_formats_give_the_same_array(tmp_path: Path, gain: npt.NDArray[np.float32], name: str) -> None:
    read = read_gain(write(tmp_path / name, gain * 1.4), expected_shape=(20, 32))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, gain, rtol=1e-5)


def test_zeros_are_defects_and_do_not_move_the_median(tmp_path: Path, gain: npt.NDArray[np.float32]) -> None:
    holed = gain.copy()
    holed[:, :12] = 0.0
    read = read_gain(write(tmp_path / "gain.mrc", holed * 3.0), sense="multiply")
    assert np.median(read[read > 0]) == pytest.approx(1.0)
    assert (read[:, :12] == 0).all()


def test_rotation_is_clockwise_from_the_top_and_comes_first(tmp_path: Path, gain: npt.NDArray[np.float32]) -> None:
    path = write(tmp_path / "gain.mrc", gain)
    once = read_gain(path, rotate=1)
    assert once.shape == (32, 20)
    # clockwise with row 0 on top: the top-left pixel goes to the top right, the bottom-left one to the top left
    np.testing.assert_allclose([once[0, -1], once[0, 0]], [gain[0, 0], gain[-1, 0]], rtol=1e-5)
    np.testing.assert_allclose(read_gain(path, rotate=2), gain[::-1, ::-1], rtol=1e-5)
    np.testing.assert_allclose(read_gain(path, flip="x"), gain[:, ::-1], rtol=1e-5)
    np.testing.assert_allclose(read_gain(path, flip="y"), gain[::-1], rtol=1e-5)
    np.testing.assert_allclose(read_gain(path, rotate=1, flip="y"), once[::-1], rtol=1e-5)
    assert not np.allclose(read_gain(path, rotate=1, flip="y"), np.rot90(gain[::-1], -1))


@pytest.mark.parametrize(
    ("movie", "hint"),
    [
        ((32, 20), "rotate it by 90 degrees"),
        ((10, 16), "it was taken in super-resolution and the movies were not"),
        ((40, 64), "the movies are in super-resolution and it is not"),
        ((33, 20), "another camera"),
    ],
)
def test_shape_mismatch_hints_at_its_cause(
    tmp_path: Path, gain: npt.NDArray[np.float32], movie: tuple[int, int], hint: str
) -> None:
    with pytest.raises(InputError, match=hint) as refused:
        read_gain(write(tmp_path / "gain.mrc", gain), expected_shape=movie)
    assert refused.value.reason == "GAIN_SHAPE"
    assert "gain.mrc is 32 x 20 px but the movies are" in refused.value.sentence


def test_bad_values_are_refused(tmp_path: Path, gain: npt.NDArray[np.float32]) -> None:
    for value, reason in ((np.nan, "GAIN_NOT_FINITE"), (np.inf, "GAIN_NOT_FINITE"), (-1.0, "GAIN_NEGATIVE")):
        spoilt = gain.copy()
        spoilt[3, 4] = value
        with pytest.raises(InputError) as refused:
            read_gain(write(tmp_path / "gain.tif", spoilt))
        assert refused.value.reason == reason
    with pytest.raises(InputError, match="zero everywhere"):
        read_gain(write(tmp_path / "gain.tif", gain * 0))


@pytest.mark.parametrize("name", ["gain.mrc", "gain.tif"])
def test_unreadable_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        read_gain(tmp_path / name)
    (tmp_path / name).write_bytes(b"II*\0 or something like it" * 100)
    with pytest.raises(InputError):
        read_gain(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError):
        read_gain(tmp_path / name)


def test_factors_far_from_one_need_a_word(tmp_path: Path, gain: npt.NDArray[np.float32]) -> None:
    counts = write(tmp_path / "gain.mrc", 800.0 / gain)  # what the camera sees under even light
    with pytest.raises(InputError, match=r"lie around 8\d\d.*say whether it is to multiply or to divide"):
        read_gain(counts)
    np.testing.assert_allclose(read_gain(counts, sense="divide"), gain, rtol=1e-4)
    median = np.median(1.0 / gain)
    np.testing.assert_allclose(read_gain(counts, sense="multiply"), 1.0 / gain / median, rtol=1e-4)


EER = Rendering(frames_per_fraction=10)


def test_the_sense_of_eer_gains_is_that_of_their_kind_of_file(tmp_path: Path, gain: npt.NDArray[np.float32]) -> None:
    """RELION: `.gain` holds factors, any other file is divided by; zeros stay defects. No rows are turned."""
    holed = gain.copy()
    holed[3, 4] = 0.0
    tifffile.imwrite(tmp_path / "a.gain", holed)
    np.testing.assert_allclose(read_gain(tmp_path / "a.gain", rendering=EER), holed, rtol=1e-3)
    write(tmp_path / "b.mrc", np.where(holed > 0, 500.0 / np.where(holed > 0, holed, 1), 0).astype(np.float32))
    np.testing.assert_allclose(read_gain(tmp_path / "b.mrc", rendering=EER), holed, rtol=1e-3)


@pytest.mark.parametrize("up", [2, 4])
def test_eer_gains_are_brought_to_the_grid(tmp_path: Path, gain: npt.NDArray[np.float32], up: int) -> None:
    fine = np.kron(gain, np.ones((up, up), np.float32))
    tifffile.imwrite(tmp_path / "coarse.gain", gain)
    read = read_gain(tmp_path / "coarse.gain", rendering=EER, expected_shape=fine.shape)  # type: ignore[arg-type]
    np.testing.assert_allclose(read, fine, rtol=1e-4)
    fine[0, 0] = 0.0  # one bad sub-pixel of a pixel: the others tell its gain
    tifffile.imwrite(tmp_path / "fine.gain", fine)
    np.testing.assert_allclose(read_gain(tmp_path / "fine.gain", rendering=EER, expected_shape=(20, 32)), gain, rtol=1e-3)
    with pytest.raises(InputError, match="another camera"):
        read_gain(tmp_path / "coarse.gain", rendering=EER, expected_shape=(30, 48))
