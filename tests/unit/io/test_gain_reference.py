"""Gain references and defects: turned as asked, scaled to median 1, refused with a hint."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from frazil.io.gain_reference import read_defects, read_gain
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
    read = read_gain(write(tmp_path / name, gain * 7.0), expected_shape=(20, 32))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, gain, rtol=1e-5)


def test_zeros_are_defects_and_do_not_move_the_median(tmp_path: Path, gain: npt.NDArray[np.float32]) -> None:
    holed = gain.copy()
    holed[:, :12] = 0.0
    read = read_gain(write(tmp_path / "gain.mrc", holed * 3.0))
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


def test_defect_boxes(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("# x y w h\n3 1 2 4\n\n0 0 1 1  # a pixel\n")
    expected = np.zeros((10, 12), bool)
    expected[1:5, 3:5] = True
    expected[0, 0] = True
    np.testing.assert_array_equal(read_defects(tmp_path / "d.txt", (10, 12)), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "Line 1 of d.txt is not a box"),
        ("\n1 2 x 4\n", "Line 2"),
        ("11 0 2 1\n", "reaches beyond"),
        ("-1 0 2 1\n", "beyond"),
    ],
)
def test_broken_defect_files_are_told_by_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_defects(tmp_path / "d.txt", (10, 12))


def test_defect_maps(tmp_path: Path) -> None:
    marked = np.zeros((20, 32), np.float32)
    marked[2, 5:9] = 1.0
    for name in ("d.mrc", "d.tif"):
        np.testing.assert_array_equal(read_defects(write(tmp_path / name, marked), (20, 32)), marked > 0)
    with pytest.raises(InputError, match="rotate it"):
        read_defects(tmp_path / "d.mrc", (32, 20))
    with pytest.raises(InputError, match="cannot be read"):
        read_defects(tmp_path / "absent.txt", (10, 12))
