"""Defect files of every kind mark the same pixels; broken ones are told by line."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from frazil.io.defect_map import read_defects
from frazil.io.movies import Rendering
from frazil.model.errors import InputError


def write(path: Path, array: npt.NDArray[np.float32]) -> Path:
    if path.suffix == ".mrc":
        with mrcfile.new(path) as file:
            file.set_data(array)
    else:
        tifffile.imwrite(path, array[::-1])  # rows from the top
    return path


SERIALEM = """# made by hand after the description of SerialEM's defect files
CameraSizeX 12
CameraSizeY 10
RotationAndFlip 0
WasScaled -1
BadColumns 3 4
BadRows 9
BadPixels 0 0 11 1
PartialBadColumn 7 2 0 4
PartialBadRow 5 1 2 3
UsableArea 0 0 9 10
"""


def serialem_from_the_top() -> npt.NDArray[np.bool_]:
    bad = np.zeros((10, 12), bool)
    bad[:, 3:5] = bad[9, :] = bad[0, 0] = bad[1, 11] = True
    bad[0:5, 7:9] = bad[5, 2:4] = bad[:, 11] = True
    return bad


def test_serialem_lists_count_rows_from_the_top(tmp_path: Path) -> None:
    (tmp_path / "defects.txt").write_text(SERIALEM)
    np.testing.assert_array_equal(read_defects(tmp_path / "defects.txt", (10, 12)), serialem_from_the_top()[::-1])


def test_serialem_lists_follow_super_resolution_both_ways(tmp_path: Path) -> None:
    (tmp_path / "defects.txt").write_text(SERIALEM)
    expected = serialem_from_the_top()[::-1]
    finer = read_defects(tmp_path / "defects.txt", (20, 24))
    np.testing.assert_array_equal(finer, np.kron(expected, np.ones((2, 2), bool)))
    coarser = read_defects(tmp_path / "defects.txt", (5, 6))
    np.testing.assert_array_equal(coarser, expected.reshape(5, 2, 6, 2).any(axis=(1, 3)))
    with pytest.raises(InputError, match="12 x 10 px but the movies are 10 x 12 px: rotate"):
        read_defects(tmp_path / "defects.txt", (12, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BadColumns 3\n", "does not say the size of its camera"),
        ("CameraSizeX 12\nCameraSizeY 10\nBadPixels 1 x\n", "Line 3"),
        ("CameraSizeX 12\nCameraSizeY 10\nBadPixels 12 1\n", "reaches beyond"),
    ],
)
def test_broken_serialem_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_defects(tmp_path / "d.txt", (10, 12))


CAMERA_XML = """<?xml version="1.0"?><defects><row>2</row><col>4-5</col><area>1,6,3,7</area><point>9,0</point></defects>"""


def test_the_xml_of_a_thermo_fisher_camera(tmp_path: Path) -> None:
    (tmp_path / "sensor-defects.xml").write_text(CAMERA_XML)
    expected = np.zeros((10, 12), bool)
    expected[2, :] = expected[:, 4:6] = expected[6:8, 1:4] = expected[0, 9] = True
    np.testing.assert_array_equal(read_defects(tmp_path / "sensor-defects.xml", (10, 12)), expected[::-1])
    as_events = read_defects(tmp_path / "sensor-defects.xml", (20, 24), rendering=Rendering(upsampling=2))
    np.testing.assert_array_equal(as_events, np.kron(expected, np.ones((2, 2), bool)))
    (tmp_path / "sensor-defects.xml").write_text("<defects><row>12</row></defects>")
    with pytest.raises(InputError, match="reaches beyond"):
        read_defects(tmp_path / "sensor-defects.xml", (10, 12))
    (tmp_path / "sensor-defects.xml").write_text("<defects>")
    with pytest.raises(InputError, match="not readable XML"):
        read_defects(tmp_path / "sensor-defects.xml", (10, 12))


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
