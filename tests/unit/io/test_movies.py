"""Movies: twins of all formats read alike; cut, growing and hostile files are told apart from whole ones."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from frazil.io import movies
from frazil.model.errors import InputError

SHAPE = (5, 60, 84)


@pytest.fixture
def frames() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).poisson(2.0, SHAPE).astype(np.uint8)


def write_tiff(path: Path, frames: npt.NDArray[Any], *, big: bool = False, order: str = "<", **options: Any) -> None:
    """An independent writer: rows from the top, as the camera's software does."""
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as tiff:  # type: ignore[arg-type]
        for frame in frames:
            tiff.write(frame[::-1], contiguous=False, metadata=None, photometric="minisblack", **options)


def write_mrc(path: Path, frames: npt.NDArray[Any]) -> None:
    with mrcfile.new(path) as file:
        file.set_data(frames)
        file.set_image_stack()
        file.voxel_size = 1.25


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 7}, {"tile": (32, 48)}], ids=["one-strip", "strips", "tiles"])
@pytest.mark.parametrize("container", [(False, "<"), (True, "<"), (False, ">")], ids=["classic", "big", "motorola"])
def test_tiff_twins(
    tmp_path: Path, frames: npt.NDArray[np.uint8], compression: str | None, options: Any, container: tuple[bool, str]
) -> None:
    path = tmp_path / "movie.tif"
    write_tiff(path, frames, big=container[0], order=container[1], compression=compression, **options)
    np.testing.assert_array_equal(movies.read_movie(path), frames)
    assert movies.structure_complete(path).complete


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("predictor", [False, True])
def test_tiff_dtypes_and_predictors(tmp_path: Path, dtype: str, predictor: bool) -> None:
    frames = np.random.default_rng(2).normal(0.0, 30.0, SHAPE).astype(dtype) if dtype != "uint8" else np.ones(SHAPE, "u1")
    write_tiff(tmp_path / "movie.tiff", frames, order=">", compression="lzw", predictor=predictor)
    read = movies.read_movie(tmp_path / "movie.tiff")
    assert read.dtype == dtype
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, frames)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_mrc_modes_and_byte_orders(tmp_path: Path, dtype: str, order: str) -> None:
    frames = np.random.default_rng(3).normal(0.0, 30.0, SHAPE).astype(dtype)
    write_mrc(tmp_path / "movie.mrc", frames.astype(frames.dtype.newbyteorder(order)))  # type: ignore[arg-type]
    info = movies.read_info(tmp_path / "movie.mrc")
    assert (info.frame_count, info.height_px, info.width_px, info.dtype) == (*SHAPE, dtype)
    assert info.pixel_size_angstrom == pytest.approx(1.25)
    read = movies.read_movie(tmp_path / "movie.mrc")
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, frames)


def test_mrc_and_tiff_twins_agree(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    write_tiff(tmp_path / "a.tif", frames, compression="lzw")
    write_mrc(tmp_path / "b.mrc", frames.astype(np.int8))
    np.testing.assert_array_equal(movies.read_movie(tmp_path / "a.tif"), movies.read_movie(tmp_path / "b.mrc"))


def test_mrc_extended_header_and_imod_unsigned_bytes(tmp_path: Path) -> None:
    frames = np.random.default_rng(4).integers(0, 256, SHAPE).astype(np.uint8)
    path = tmp_path / "movie.mrc"
    write_mrc(path, frames.view(np.int8))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<i", raw, 92, 512)
    struct.pack_into("<2i", raw, 152, 1146047817, 0)
    path.write_bytes(raw[:1024] + b"x" * 512 + raw[1024:])
    np.testing.assert_array_equal(movies.read_movie(path), frames)


def test_frames_come_one_by_one_in_order(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    write_tiff(tmp_path / "movie.tif", frames, compression="lzw")
    iterator = movies.read_frames(tmp_path / "movie.tif")
    np.testing.assert_array_equal(next(iterator), frames[0])
    np.testing.assert_array_equal(next(iterator), frames[1])
    del iterator  # an unfinished iterator leaves no thread and no open file behind: warnings are errors here


@pytest.mark.parametrize("suffix", [".tif", ".mrc"])
def test_a_file_cut_while_it_is_read_ends_in_an_input_error(tmp_path: Path, frames: npt.NDArray[np.uint8], suffix: str) -> None:
    path = tmp_path / f"movie{suffix}"
    many = np.concatenate([frames] * 12)
    write_tiff(path, many, compression="lzw") if suffix == ".tif" else write_mrc(path, many.astype(np.int8))
    iterator = movies.read_frames(path)
    next(iterator)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(InputError, match="copy the movie again"):
        list(iterator)


@pytest.mark.parametrize("suffix", [".tif", ".mrc"])
def test_every_cut_is_noticed(tmp_path: Path, frames: npt.NDArray[np.uint8], suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    write_tiff(whole, frames, compression="lzw") if suffix == ".tif" else write_mrc(whole, frames.astype(np.int8))
    data = whole.read_bytes()
    assert movies.structure_complete(whole).complete
    cut = tmp_path / f"cut{suffix}"
    for length in [*range(0, 64), *range(64, len(data), 211), *range(len(data) - 8, len(data))]:
        cut.write_bytes(data[:length])
        answer = movies.structure_complete(cut)
        assert not answer.complete, f"{length} of {len(data)} bytes"
        assert answer.sentence.endswith(".")
        with pytest.raises(InputError):
            movies.open_movie(cut)


def test_a_cut_tiff_says_how_many_frames_are_whole(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    path = tmp_path / "movie.tif"
    write_tiff(path, frames, compression="lzw")
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        ends = [page.dataoffsets[0] + page.databytecounts[0] for page in tiff.pages]
    known = {0: "none of its frames is whole", 1: "only its first frame is whole", 3: "only its first 3 frames are whole"}
    for whole, said in known.items():
        path.write_bytes(data[: ends[whole] - 1])
        sentence = movies.structure_complete(path).sentence
        assert f"ends after {ends[whole] - 1:,} bytes" in sentence
        assert said in sentence
        assert "does not say how many are lost" in sentence
    path.write_bytes(data[: ends[4] - 1])  # every directory is there: what is lost is known
    sizes = f"{len(data) - 1:,} of {len(data):,} bytes"
    assert movies.structure_complete(path).sentence == f"movie.tif is truncated: {sizes}; 4 of 5 frames are whole."


@pytest.mark.parametrize("suffix", [".tif", ".mrc"])
def test_a_preallocated_file_is_not_complete(tmp_path: Path, frames: npt.NDArray[np.uint8], suffix: str) -> None:
    path = tmp_path / f"movie{suffix}"
    write_tiff(path, frames, compression="lzw") if suffix == ".tif" else write_mrc(path, frames.astype(np.int8))
    data = path.read_bytes()
    for written in range(0, len(data) - (2500 if suffix == ".tif" else 6000), 151):
        path.write_bytes(data[:written] + bytes(len(data) - written))
        assert not movies.structure_complete(path).complete, f"{written} of {len(data)} bytes"


def test_sentences_name_the_sizes(tmp_path: Path) -> None:
    path = tmp_path / "movie.mrc"
    header = mrc_header(nx=4096, ny=4096, nz=60)
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(812_000_000)  # sparse: takes no room
    assert movies.structure_complete(path).sentence == "movie.mrc is truncated: 812 of 1,006 MB."
    with path.open("r+b") as file:
        file.truncate(1024 + 4096 * 4096 * 60 + 5)
    assert "longer than its header says" in movies.structure_complete(path).sentence


def mrc_header(*, nx: int = 64, ny: int = 64, nz: int = 3, mode: int = 0, extended: int = 0) -> bytes:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, nx, ny, nz, mode)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    struct.pack_into("<i", header, 92, extended)
    header[208:214] = b"MAP DD"
    return bytes(header)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"nx": 2_000_000_000, "ny": 2_000_000_000, "nz": 2_000_000_000}, "MOVIE_DIMENSIONS"),
        ({"nx": 8}, "MOVIE_DIMENSIONS"),
        ({"nx": -5}, "MRC_HEADER"),
        ({"nz": 0}, "MRC_HEADER"),
        ({"nz": 20_001}, "MOVIE_FRAME_COUNT"),
        ({"nx": 32_768, "ny": 32_768, "nz": 20_000}, "MOVIE_TOO_LARGE"),
        ({"extended": 2_000_000_000}, "MRC_EXTENDED_HEADER"),
        ({"extended": -1}, "MRC_EXTENDED_HEADER"),
        ({"mode": 3}, "MRC_MODE"),
        ({"mode": 99_999}, "MRC_HEADER"),
    ],
)
def test_hostile_mrc_headers_are_refused_at_once(tmp_path: Path, header: dict[str, int], reason: str) -> None:
    path = tmp_path / "movie.mrc"
    path.write_bytes(mrc_header(**header) + bytes(5000))
    began = time.perf_counter()
    with pytest.raises(InputError) as refused:
        movies.read_info(path)
    assert refused.value.reason == reason
    assert not movies.structure_complete(path).complete
    assert time.perf_counter() - began < 0.5


def tiff_of(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """A classic TIFF with one directory at byte 8; entries are (tag, type, count, value)."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


PLAIN = {256: 64, 257: 64, 258: 8, 259: 1, 273: 8, 277: 1, 278: 64, 279: 4096}


def plain_entries(**changes: int) -> list[tuple[int, int, int, int]]:
    tags = PLAIN | {int(tag.removeprefix("t")): value for tag, value in changes.items()}
    return [(tag, 4, 1, value) for tag, value in sorted(tags.items())]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "MOVIE_EMPTY"),
        (b"not a TIFF file at all", "TIFF_HEADER"),
        (b"II*\0\0\0\0\0" + bytes(100), "MOVIE_TRUNCATED"),
        (tiff_of(plain_entries(), following=8), "TIFF_LOOP"),
        (tiff_of(plain_entries(), following=4_000_000_000), "MOVIE_TRUNCATED"),
        (tiff_of(plain_entries(t256=60_000, t257=60_000)), "MOVIE_DIMENSIONS"),
        (tiff_of(plain_entries(t256=32_000, t257=32_000)), "MOVIE_TOO_LARGE"),
        (tiff_of(plain_entries(t277=3)), "TIFF_PIXELS"),
        (tiff_of(plain_entries(t258=12)), "TIFF_PIXELS"),
        (tiff_of(plain_entries(t259=7)), "TIFF_COMPRESSION"),
        (tiff_of([(256, 4, 2_000_000_000, 0)]), "TIFF_TAG"),
        (tiff_of([(256, 77, 1, 64)]), "TIFF_TAG"),
        (tiff_of([e for e in plain_entries() if e[0] != 273]), "TIFF_STRIPS"),
        (tiff_of([]) + bytes(50), "TIFF_DIRECTORY"),
    ],
)
def test_hostile_tiff_files_are_refused_at_once(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "movie.tif"
    path.write_bytes(data)
    began = time.perf_counter()
    with pytest.raises(InputError) as refused:
        movies.read_info(path)
    assert refused.value.reason == reason
    answer = movies.structure_complete(path)
    assert not answer.complete
    assert answer.sentence == refused.value.sentence
    assert time.perf_counter() - began < 0.5


def test_many_directories_end_at_the_limit(tmp_path: Path) -> None:
    one = struct.calcsize("<H") + 8 * 12 + 4
    parts = [b"II*\0" + struct.pack("<I", 8)]
    parts += [tiff_of(plain_entries(), following=8 + (i + 1) * one)[8:] for i in range(20_050)]
    (tmp_path / "movie.tif").write_bytes(b"".join(parts))
    with pytest.raises(InputError, match="more than 20,000 frames"):
        movies.read_info(tmp_path / "movie.tif")


def test_strips_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "movie.tif"
    path.write_bytes(tiff_of(plain_entries(t279=100)) + bytes(5000))
    assert "without their pixels" in movies.structure_complete(path).sentence
    path.write_bytes(tiff_of(plain_entries(t278=10)) + bytes(5000))
    assert not movies.structure_complete(path).complete


def test_frames_of_two_sizes_are_told(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "movie.tif") as tiff:
        tiff.write(np.ones((64, 80), np.uint8), metadata=None)
        tiff.write(np.ones((64, 96), np.uint8), metadata=None)
    assert "96 x 64 px uint8, but the first frame is 80 x 64" in movies.structure_complete(tmp_path / "movie.tif").sentence


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd"])
def test_rotten_pixels_are_told_by_frame(tmp_path: Path, frames: npt.NDArray[np.uint8], compression: str) -> None:
    path = tmp_path / "movie.tif"
    write_tiff(path, frames, compression=compression)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[2].dataoffsets[0], tiff.pages[2].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\xff" * count
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"Frame 3 of movie\.tif cannot be decoded"):
        movies.read_movie(path)


def test_names_decide_the_format(tmp_path: Path) -> None:
    assert movies.is_movie_name("x/FoilHole_1_Fractions.MRC")
    assert not movies.is_movie_name("x/FoilHole_1.xml")
    with pytest.raises(InputError, match=r"notes\.txt is of no known movie format; known are \.eer, \.mrc, "):
        movies.read_info(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="does not exist"):
        movies.read_info(tmp_path / "absent.mrc")
    with pytest.raises(FileNotFoundError):
        movies.structure_complete(tmp_path / "absent.mrc")
    (tmp_path / "folder.mrc").mkdir()
    assert "not a regular file" in movies.structure_complete(tmp_path / "folder.mrc").sentence


def test_reading_leaves_the_source_as_it_was(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    write_tiff(tmp_path / "a.tif", frames, compression="lzw")
    write_mrc(tmp_path / "b.mrc", frames.astype(np.int8))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    for path in before:
        path.chmod(0o444)
        movies.read_movie(path)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_structure_and_metadata_need_no_numpy(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    write_tiff(tmp_path / "a.tif", frames)
    write_mrc(tmp_path / "b.mrc", frames.astype(np.int8))
    program = (
        "import sys\n"
        "for name in ('numpy', 'tifffile', 'mrcfile', 'imagecodecs'): sys.modules[name] = None\n"
        "from frazil.io.movies import structure_complete\n"
        "from frazil.io.metadata import read_metadata\n"
        "for path in sys.argv[1:]:\n"
        "    assert structure_complete(path).complete\n"
        "    read_metadata(path)\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.tif", tmp_path / "b.mrc"], check=True, timeout=60)
