"""DigitalMicrograph files, from a writer of our own after the published layout; cut and hostile ones are refused."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frazil.io.dm4 import read_dm4
from frazil.io.gain_reference import read_gain
from frazil.model.errors import InputError

_KINDS = {"float32": (2, 6), "uint8": (6, 10), "int16": (1, 2), "float64": (12, 7)}  # of the image, of its tag


class Writer:
    """DM4 has 8-byte lengths where DM3 has 4, and says how many bytes a tag takes."""

    def __init__(self, version: int) -> None:
        self.version, self.long = version, ">Q" if version == 4 else ">I"

    def number(self, value: int) -> bytes:
        return struct.pack(self.long, value)

    def tag(self, kind: int, name: str, body: bytes) -> bytes:
        size = self.number(len(body)) if self.version == 4 else b""
        return struct.pack(">BH", kind, len(name)) + name.encode() + size + body

    def data(self, name: str, info: list[int], value: bytes) -> bytes:
        return self.tag(21, name, b"%%%%" + self.number(len(info)) + b"".join(map(self.number, info)) + value)

    def directory(self, name: str, tags: list[bytes]) -> bytes:
        return self.tag(20, name, b"\1\0" + self.number(len(tags)) + b"".join(tags))

    def file(self, tags: list[bytes]) -> bytes:
        body = b"\1\0" + self.number(len(tags)) + b"".join(tags)
        return struct.pack(">I", self.version) + self.number(len(body)) + struct.pack(">I", 1) + body + bytes(8)

    def image(self, array: npt.NDArray[Any]) -> bytes:
        kind, tag_kind = _KINDS[array.dtype.name]
        sides = [self.data("", [5], struct.pack("<I", side)) for side in reversed(array.shape)]
        data = [
            self.directory("Calibrations", [self.data("Origin", [6], struct.pack("<f", 0.5))]),
            self.data("Data", [20, tag_kind, array.size], array.astype(array.dtype.newbyteorder("<")).tobytes()),
            self.data("DataType", [5], struct.pack("<I", kind)),
            self.directory("Dimensions", sides),
            self.data("Units", [20, 4, 2], "nm".encode("utf-16-le")),
        ]
        return self.directory("", [self.directory("ImageData", data), self.data("Name", [18, 2], "ab".encode("utf-16-le"))])


def dm_file(version: int, *images: npt.NDArray[Any]) -> bytes:
    writer = Writer(version)
    rectangle = writer.data("Rectangle", [15, 0, 2, 0, 3, 0, 3], struct.pack("<2i", 1, 2))
    points = writer.data("Points", [20, 15, 0, 2, 0, 3, 0, 3, 3], bytes(24))
    listed = writer.directory("ImageList", [writer.image(image) for image in images])
    return writer.file([writer.directory("DocumentObjectList", [rectangle, points]), listed])


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", list(_KINDS))
def test_the_largest_image_is_read(tmp_path: Path, version: int, dtype: str) -> None:
    image = np.random.default_rng(1).uniform(1, 100, (20, 32)).astype(dtype)
    path = tmp_path / "gain.dm4"
    path.write_bytes(dm_file(version, np.zeros((4, 4), np.uint8), image))  # a thumbnail comes first
    read = read_dm4(path)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, image)


def test_as_a_gain_its_rows_are_turned_like_those_of_tiff(tmp_path: Path) -> None:
    gain = np.random.default_rng(2).uniform(0.9, 1.1, (20, 32)).astype(np.float32)
    (tmp_path / "gain.dm4").write_bytes(dm_file(4, gain))
    np.testing.assert_allclose(read_gain(tmp_path / "gain.dm4"), gain[::-1] / np.median(gain), rtol=1e-6)


def test_every_cut_is_refused(tmp_path: Path) -> None:
    data = dm_file(4, np.ones((20, 32), np.float32))[:-8]
    path = tmp_path / "gain.dm4"
    for length in range(0, len(data) - 1, 23):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            read_dm4(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 700), rot=st.binary(min_size=1, max_size=9))
def test_rotten_files_are_read_or_refused(tmp_path: Path, place: int, rot: bytes) -> None:
    data = bytearray(dm_file(4, np.ones((4, 8), np.float32)))
    data[place : place + len(rot)] = rot
    path = tmp_path / "gain.dm4"
    path.write_bytes(data)
    with contextlib.suppress(InputError):  # nothing else is raised, and nothing larger than the file is allocated
        assert read_dm4(path).nbytes <= len(data)
