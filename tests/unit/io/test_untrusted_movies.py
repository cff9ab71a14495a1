"""Movies that nobody vouches for: whatever is done to their bytes, they are read or refused, at once and in little memory."""

from __future__ import annotations

import bz2
import io
import struct
import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from frazil.io import movies
from frazil.io.movie_check import COMPUTING_MAX_SECONDS
from frazil.io.movies import Rendering
from frazil.model.errors import InputError
from frazil.simulator.eer import EerCodes, encode_eer
from frazil.simulator.encoding import encode_mrc, encode_mrc_4bit

MEMORY_MAX_BYTES = 100e6  # the largest honest one: a rendered frame of a sensor of 8192 x 8192 px
FRAMES = np.random.default_rng(1).poisson(2.0, (3, 24, 40)).astype(np.uint8)


def tiff_bytes(**options: object) -> bytes:
    buffer = io.BytesIO()
    big = bool(options.pop("big", False))
    with tifffile.TiffWriter(buffer, bigtiff=big) as tiff:
        for frame in FRAMES:
            tiff.write(frame, contiguous=False, metadata=None, photometric="minisblack", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def mrc_bytes() -> bytes:
    return encode_mrc(FRAMES, 1.0)


def eer_bytes(codes: EerCodes) -> bytes:
    y, x = np.nonzero(FRAMES[0] > 2)
    return encode_eer([(x << codes.bits[1], y << codes.bits[2])] * 3, FRAMES.shape[1:], codes, total_dose_e_per_px=4.0)


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "mrc": ("movie.mrc", mrc_bytes),
    "mrc-4bit": ("movie.mrc", lambda: encode_mrc_4bit(FRAMES, 1.0)),
    "mrc-bz2": ("movie.mrc.bz2", lambda: bz2.compress(mrc_bytes())),
    "tiff": ("movie.tif", lambda: tiff_bytes(rowsperstrip=7)),
    "tiff-lzw": ("movie.tif", lambda: tiff_bytes(compression="lzw", predictor=True)),
    "tiff-zstd-tiles": ("movie.tif", lambda: tiff_bytes(compression="zstd", tile=(16, 16), big=True)),
    "tiff-deflate": ("movie.tif", lambda: tiff_bytes(compression="deflate")),
    "eer": ("movie.eer", lambda: eer_bytes(EerCodes())),
    "eer-detailed": ("movie.eer", lambda: eer_bytes(EerCodes(compression=65002, run_bits=6))),
}


@cache
def whole_file(kind: str) -> bytes:
    return FILES[kind][1]()


@st.composite
def rotten(draw: st.DrawFn, kind: str) -> bytes:
    """A real file with some of its numbers replaced by tempting ones, pieces cut out, doubled or overwritten."""
    data = bytearray(whole_file(kind))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data) - 1) | st.integers(0, min(300, len(data) - 1)))
        change = draw(st.sampled_from(["bytes", "number", "cut", "double"]))
        if change == "bytes":
            data[place : place + 4] = draw(st.binary(min_size=1, max_size=4))
        elif change == "number":
            tempting = [0, 1, 2, 15, 16, 255, 256, 32_768, 65_535, 2**31 - 1, 2**31, 2**32 - 1, len(data), len(data) - 8]
            width = draw(st.sampled_from([2, 4, 8]))
            value = draw(st.sampled_from(tempting)) % 2 ** (8 * width)
            data[place : place + width] = value.to_bytes(width, "little")
        elif change == "cut":
            del data[place : place + draw(st.integers(1, 200))]
        else:
            data[place:place] = data[place : place + draw(st.integers(1, 200))]
        if not data:
            return b""
    return bytes(data)


def read_or_refuse(path: Path) -> None:
    """Everything that ingest and a worker do with a file."""
    answer = movies.structure_complete(path, opt_in=True)
    assert answer.sentence.endswith(".")
    assert "\n" not in answer.sentence
    try:
        movie = movies.open_movie(path, opt_in=True).rendered(Rendering(frames_per_fraction=2))
        assert answer.complete
        for frame in movie.frames():
            assert frame.shape == (movie.info.height_px, movie.info.width_px)
            assert frame.dtype == movie.info.dtype
    except InputError as refused:
        assert refused.sentence.endswith(".")  # noqa: PT017 reading may succeed as well


@pytest.mark.parametrize("kind", FILES)
def test_whole_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / FILES[kind][0]
    path.write_bytes(whole_file(kind))
    assert movies.structure_complete(path, opt_in=True).complete
    read_or_refuse(path)


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_rotten_files_are_read_or_refused(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / FILES[kind][0]
    path.write_bytes(data.draw(rotten(kind)))
    began = time.process_time()
    tracemalloc.start()
    try:
        read_or_refuse(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_MAX_BYTES
    assert time.process_time() - began < COMPUTING_MAX_SECONDS


@given(noise=st.binary(max_size=3000), kind=st.sampled_from(sorted(FILES)))
@example(noise=b"II*\0\x08\0\0\0", kind="tiff")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_noise_is_refused(tmp_path: Path, noise: bytes, kind: str) -> None:
    path = tmp_path / FILES[kind][0]
    path.write_bytes(whole_file(kind)[:4] + noise)
    read_or_refuse(path)


def test_directories_that_name_one_large_array_again_and_again_are_refused(tmp_path: Path) -> None:
    """20,000 directories of a few bytes, each with a million strips: the same ones."""
    strips, count = 1_000_000, 20_000
    array = struct.pack("<I", 64) * strips
    begin = 8 + len(array)
    pages = bytearray()
    for number in range(count):
        tags = {256: (1, 64), 257: (1, 64), 258: (1, 8), 259: (1, 5), 273: (strips, 8), 279: (strips, 8)}
        pages += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, *value) for tag, value in tags.items())
        pages += struct.pack("<I", begin + len(pages) + 4 if number < count - 1 else 0)
    (tmp_path / "movie.tif").write_bytes(b"II*\0" + struct.pack("<I", begin) + array + pages)
    began = time.process_time()
    with pytest.raises(InputError, match="larger than any movie's"):
        movies.read_info(tmp_path / "movie.tif")
    assert time.process_time() - began < COMPUTING_MAX_SECONDS


def test_a_few_bytes_of_events_cannot_claim_a_large_sensor(tmp_path: Path) -> None:
    data = bytearray(eer_bytes(EerCodes()))
    for tag in (256, 257):
        place = data.find(struct.pack("<HHQ", tag, 4, 1))
        while place >= 0:
            struct.pack_into("<Q", data, place + 12, 8192)
            place = data.find(struct.pack("<HHQ", tag, 4, 1), place + 20)
    (tmp_path / "movie.eer").write_bytes(data)
    assert movies.structure_complete(tmp_path / "movie.eer").sentence == "Raw frame 1 of movie.eer is without its events."
