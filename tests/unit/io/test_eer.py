"""EER: events land where they were, in RELION's, imagecodecs' and our own eyes; broken streams are told by raw frame."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from frazil.io import movies
from frazil.io.movies import Rendering
from frazil.model.errors import InputError
from frazil.simulator.eer import EerCodes, Places, encode_eer

SHAPE = (48, 80)
PROTOTYPE, USUAL = EerCodes(compression=65000), EerCodes(compression=65001)
DETAILED = EerCodes(compression=65002, run_bits=6, horizontal_bits=3, vertical_bits=2)
COARSE = EerCodes(compression=65002, run_bits=7, horizontal_bits=1, vertical_bits=1)


def draw_events(
    count: int, codes: EerCodes, shape: tuple[int, int] = SHAPE, rate: float = 0.05, seed: int = 3
) -> list[tuple[Places, Places]]:
    """Electrons on every raw frame; the last two frames have none and one in the very last pixel."""
    rng = np.random.default_rng(seed)
    _, x_bits, y_bits = codes.bits
    frames = []
    for number in range(count):
        chosen = rng.random(shape) < rate if number < count - 2 else np.zeros(shape, bool)
        chosen[-1, -1] = number == count - 1
        y, x = np.nonzero(chosen)
        frames.append((x << x_bits | rng.integers(0, 1 << x_bits, x.size), y << y_bits | rng.integers(0, 1 << y_bits, y.size)))
    return frames


def add_up(
    frames: list[tuple[Places, Places]], codes: EerCodes, rendering: Rendering, shape: tuple[int, int] = SHAPE
) -> npt.NDArray[np.int64]:
    """The definition: electrons counted on a grid `upsampling` times finer, raw frames left over dropped."""
    _, x_bits, y_bits = codes.bits
    shift = rendering.upsampling.bit_length() - 1
    count = len(frames) // rendering.frames_per_fraction
    counts = np.zeros((count, shape[0] << shift, shape[1] << shift), np.int64)
    for number, (x, y) in enumerate(frames[: count * rendering.frames_per_fraction]):
        np.add.at(counts[number // rendering.frames_per_fraction], (y >> (y_bits - shift), x >> (x_bits - shift)), 1)
    return counts


@pytest.mark.parametrize("codes", [PROTOTYPE, USUAL, DETAILED, COARSE], ids=["65000", "65001", "65002", "65002-coarse"])
@pytest.mark.parametrize("rate", [0.9, 0.05, 0.001])
def test_events_land_on_every_grid(tmp_path: Path, codes: EerCodes, rate: float) -> None:
    frames = draw_events(11, codes, rate=rate)
    path = tmp_path / "movie.eer"
    path.write_bytes(encode_eer(frames, SHAPE, codes))
    info = movies.read_info(path)
    assert (info.frame_count, info.height_px, info.width_px) == (11, *SHAPE)
    assert movies.structure_complete(path).complete
    for upsampling in (1, 2, 4)[: min(codes.bits[1:]) + 1]:
        for group in (1, 4, 11):
            rendering = Rendering(frames_per_fraction=group, upsampling=upsampling)
            read = movies.read_movie(path, rendering)
            assert read.dtype == np.uint8
            np.testing.assert_array_equal(read, add_up(frames, codes, rendering))


@pytest.mark.parametrize("codes", [USUAL, EerCodes(compression=65002, run_bits=6), COARSE])
def test_imagecodecs_sees_the_same(tmp_path: Path, codes: EerCodes) -> None:
    (tmp_path / "movie.eer").write_bytes(encode_eer(draw_events(3, codes), SHAPE, codes))
    with tifffile.TiffFile(tmp_path / "movie.eer") as tiff:
        assert tiff.is_eer
        assert tiff.eer_metadata == {"numberOfFrames": 3}
        page = tiff.pages[0]
        tiff.filehandle.seek(page.dataoffsets[0])
        stream = tiff.filehandle.read(page.databytecounts[0])
    upsampling = 1 << min(2, min(codes.bits[1:]))
    shape = (SHAPE[0] * upsampling, SHAPE[1] * upsampling)
    expected = imagecodecs.eer_decode(stream, shape, *codes.bits, superres=upsampling.bit_length() - 1)
    np.testing.assert_array_equal(movies.read_movie(tmp_path / "movie.eer", Rendering(upsampling=upsampling))[0], expected)


@pytest.mark.skipif(shutil.which("relion_convert_to_tiff") is None, reason="RELION is not installed")
@pytest.mark.parametrize("codes", [PROTOTYPE, USUAL], ids=["65000", "65001"])
def test_relion_renders_the_same(tmp_path: Path, codes: EerCodes) -> None:
    sensor = (4096, 4096)  # the only one it takes
    frames = draw_events(4, codes, sensor, rate=0.002)
    (tmp_path / "movie.eer").write_bytes(encode_eer(frames, sensor, codes))
    command = ["relion_convert_to_tiff", "--i", "movie.eer", "--o", "out/", "--compression", "none"]
    options = ["--eer_grouping", "3", "--eer_upsampling", "2"]
    subprocess.run([*command, *options], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    expected = tifffile.imread(tmp_path / "out" / "movie.tif", key=slice(None))[::-1]  # RELION turns the rows of TIFF files
    read = movies.read_movie(tmp_path / "movie.eer", Rendering(frames_per_fraction=3, upsampling=2))
    np.testing.assert_array_equal(read, expected[None])


def test_many_raw_frames_in_a_fraction_do_not_overflow(tmp_path: Path) -> None:
    every = np.mgrid[: SHAPE[0], : SHAPE[1]].reshape(2, -1) * 4
    (tmp_path / "movie.eer").write_bytes(encode_eer([(every[1], every[0])] * 300, SHAPE))
    assert (movies.read_movie(tmp_path / "movie.eer", Rendering(frames_per_fraction=300)) == 300).all()


def test_the_sum_that_tia_writes_first_is_left_out(tmp_path: Path) -> None:
    frames = draw_events(4, USUAL)
    pages = encode_eer(frames, SHAPE)
    summed = add_up(frames, USUAL, Rendering(frames_per_fraction=4))[0].astype(np.uint8)
    (tmp_path / "movie.eer").write_bytes(with_first_page(pages, summed))
    np.testing.assert_array_equal(movies.read_movie(tmp_path / "movie.eer"), add_up(frames, USUAL, Rendering()))
    assert movies.structure_complete(tmp_path / "movie.eer").complete


def with_first_page(eer: bytes, image: npt.NDArray[np.uint8]) -> bytes:
    """Put an uncompressed page before the others: its directory and pixels come last in the file, the chain begins there."""
    place = len(eer)
    tags = {256: image.shape[1], 257: image.shape[0], 258: 8, 259: 1, 273: place, 277: 1, 278: image.shape[0], 279: image.size}
    entries = b"".join(struct.pack("<HHQQ", tag, 16, 1, value) for tag, value in tags.items())
    directory = struct.pack("<Q", len(tags)) + entries + eer[8:16]
    return eer[:8] + struct.pack("<Q", place + image.size) + eer[16:] + image.tobytes() + directory


def test_the_cameras_own_figures_are_read(tmp_path: Path) -> None:
    path = tmp_path / "movie.eer"
    data = encode_eer(draw_events(5, USUAL), SHAPE, total_dose_e_per_px=31.25)
    path.write_bytes(data)
    assert movies.read_info(path).total_dose_e_per_px == pytest.approx(31.25)
    path.write_bytes(data.replace(b'"numberOfFrames">5<', b'"numberOfFrames">9<'))
    answer = movies.structure_complete(path)
    assert (answer.complete, answer.sentence) == (False, "movie.eer is truncated: it holds 5 of 9 raw frames.")


def test_every_cut_and_blank_end_is_noticed(tmp_path: Path) -> None:
    data = encode_eer(draw_events(6, USUAL), SHAPE)
    path = tmp_path / "movie.eer"
    for length in [*range(0, 40), *range(40, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        assert not movies.structure_complete(path).complete, f"{length} of {len(data)} bytes"
    for length in range(0, len(data) - 300, 97):
        path.write_bytes(data[:length] + bytes(len(data) - length))
        assert not movies.structure_complete(path).complete, f"{length} of {len(data)} bytes"


def test_rotten_events_are_told_by_raw_frame(tmp_path: Path) -> None:
    path = tmp_path / "movie.eer"
    path.write_bytes(encode_eer(draw_events(6, USUAL), SHAPE))
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[2].dataoffsets[0], tiff.pages[2].databytecounts[0]
    data = path.read_bytes()
    for rotten in (bytes(count), b"\xff" * count):
        path.write_bytes(data[:offset] + rotten + data[offset + count :])
        with pytest.raises(InputError, match=r"Raw frame 3 of movie\.eer cannot be decoded"):
            movies.read_movie(path, Rendering(frames_per_fraction=2))


def test_what_cannot_be_rendered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "movie.eer"
    path.write_bytes(encode_eer(draw_events(5, COARSE), SHAPE, COARSE))
    with pytest.raises(InputError, match="5 raw frames, fewer than the 6 of one fraction"):
        movies.read_movie(path, Rendering(frames_per_fraction=6))
    with pytest.raises(InputError, match="upsampling can be at most 2"):
        movies.read_movie(path, Rendering(upsampling=4))
    path.write_bytes(encode_eer(draw_events(5, USUAL), SHAPE, EerCodes(compression=65002, run_bits=16)))
    with pytest.raises(InputError, match="codes of 16, 2 and 2 bits"):
        movies.read_info(path)


def test_no_more_frames_than_asked_for(tmp_path: Path) -> None:
    frames = draw_events(11, USUAL)
    (tmp_path / "movie.eer").write_bytes(encode_eer(frames, SHAPE))
    read = movies.read_movie(tmp_path / "movie.eer", Rendering(frames_per_fraction=2, fractions_max=4))
    np.testing.assert_array_equal(read, add_up(frames, USUAL, Rendering(frames_per_fraction=2))[:4])
