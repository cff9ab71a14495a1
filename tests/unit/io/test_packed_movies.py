"""Pixels of four bits, in MRC (mode 101) and TIFF, and MRC files compressed as a whole."""

from __future__ import annotations

import bz2
import io
import struct
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from frazil.io import movies
from frazil.io.mrc import read_mrc
from frazil.model.errors import InputError
from frazil.simulator.encoding import encode_mrc_4bit, encode_tiff_4bit


@pytest.fixture(params=[84, 85], ids=["even", "odd"])
def counts(request: pytest.FixtureRequest) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 16, (5, 60, request.param)).astype(np.uint8)


def test_mode_101(tmp_path: Path, counts: npt.NDArray[np.uint8]) -> None:
    path = tmp_path / "movie.mrc"
    path.write_bytes(encode_mrc_4bit(counts, 0.5))
    assert path.stat().st_size == 1024 + 5 * 60 * -(-counts.shape[2] // 2)
    np.testing.assert_array_equal(movies.read_movie(path), counts)
    np.testing.assert_array_equal(read_mrc(path)[0], counts)
    with mrcfile.open(path, permissive=True, header_only=True) as file:
        assert (file.header.mode, file.header.nx) == (101, counts.shape[2])
        assert file.voxel_size.x == pytest.approx(0.5)
    path.write_bytes(path.read_bytes()[:-1])
    assert not movies.structure_complete(path).complete


def test_the_low_half_of_a_byte_is_the_left_pixel(tmp_path: Path) -> None:
    path = tmp_path / "movie.mrc"
    header = bytearray(encode_mrc_4bit(np.zeros((1, 16, 16), np.uint8), 1.0)[:1024])
    path.write_bytes(header + bytes([0x21]) + bytes(126) + bytes([0xF0]))
    frame = movies.read_movie(path)[0]
    assert (frame[0, 0], frame[0, 1], frame[15, 14], frame[15, 15]) == (1, 2, 0, 15)


@pytest.mark.parametrize("rows", [60, 7])
def test_tiff_that_says_it_has_four_bits(tmp_path: Path, counts: npt.NDArray[np.uint8], rows: int) -> None:
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as tiff:
        for frame in counts:
            tiff.write(frame[::-1], bitspersample=4, rowsperstrip=rows, metadata=None, contiguous=False)
    assert movies.read_info(path).width_px == counts.shape[2]
    assert movies.structure_complete(path).complete
    np.testing.assert_array_equal(movies.read_movie(path), counts)


@pytest.mark.parametrize("shape", [(7676, 7420), (8184, 11520)], ids=["K2, rotated", "K3"])
def test_tiff_that_hides_it(tmp_path: Path, shape: tuple[int, int]) -> None:
    """SerialEM's super-resolution frames: two pixels to a byte, told by the size alone."""
    frame = np.zeros(shape, np.uint8)
    frame[::13, ::17] = np.random.default_rng(2).integers(1, 16, frame[::13, ::17].shape)
    path = tmp_path / "movie.tif"
    path.write_bytes(encode_tiff_4bit(frame[None]))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].shape == (shape[0], shape[1] // 2)
    info = movies.read_info(path)
    assert (info.height_px, info.width_px, info.dtype) == (*shape, "uint8")
    np.testing.assert_array_equal(movies.read_movie(path)[0], frame)


def test_more_than_four_bits_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="15"):
        encode_mrc_4bit(np.full((1, 16, 16), 16, np.uint8), 1.0)


def plain_mrc(frames: npt.NDArray[np.int16], folder: Path) -> bytes:
    with mrcfile.new(folder / "plain.mrc") as file:
        file.set_data(frames)
    return (folder / "plain.mrc").read_bytes()


def test_bzip2_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    frames = np.random.default_rng(3).poisson(3.0, (4, 200, 300)).astype(np.int16)
    path = tmp_path / "movie.mrc.bz2"
    path.write_bytes(bz2.compress(plain_mrc(frames, tmp_path)))
    assert not movies.is_movie_name(path)
    assert movies.is_movie_name(path, opt_in=True)
    for refused in (movies.read_info, movies.open_movie):
        with pytest.raises(InputError, match="only where the session says so"):
            refused(path)
    np.testing.assert_array_equal(movies.open_movie(path, opt_in=True).read(), frames)


def test_cut_and_rotten_bzip2_is_noticed(tmp_path: Path) -> None:
    frames = np.random.default_rng(3).poisson(3.0, (16, 200, 300)).astype(np.int16)
    path = tmp_path / "movie.mrc.bz2"
    whole = bz2.compress(plain_mrc(frames, tmp_path))
    for length in [0, 3, 20, *range(100, len(whole), 7001), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert not movies.structure_complete(path, opt_in=True).complete, length
    spoilt = bytearray(whole)
    spoilt[-1000] ^= 255  # in its last block
    path.write_bytes(spoilt)
    with pytest.raises(InputError, match="cannot be decompressed"):
        movies.open_movie(path, opt_in=True).read()


def test_a_bzip2_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    header = bytearray(plain_mrc(np.zeros((1, 16, 16), np.int16), tmp_path)[:1024])
    struct.pack_into("<3i", header, 0, 8192, 8192, 400)
    packer, bomb = bz2.BZ2Compressor(), io.BytesIO()
    bomb.write(packer.compress(bytes(header)))
    for _ in range(20):
        bomb.write(packer.compress(bytes(2**20)))
    bomb.write(packer.flush())
    (tmp_path / "movie.mrc.bz2").write_bytes(bomb.getvalue())
    with pytest.raises(InputError, match="not to be believed"):
        movies.open_movie(tmp_path / "movie.mrc.bz2", opt_in=True)
