"""EER movies (Falcon 4): the place of every electron, raw frame by raw frame, rendered into frames when read.

A TIFF whose pages hold run-length codes: compression 65000 (8 bits of run, 4 of sub-pixel place; the camera's prototype,
whose longest runs are followed by 4 idle bits), 65001 (7 and 4), 65002 (as its tags say). Rows are not turned: the first row
of the sensor is row 0, as RELION renders it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from frazil.io.movies import _tiff_directory as directory
from frazil.io.movies._contract import (
    FRAMES_MAX,
    Completeness,
    Image,
    MovieInfo,
    Rendering,
    check_limits,
    nonempty_size,
)
from frazil.model.errors import InputError

NAME = "EER"
SUFFIXES = (".eer",)
OPT_IN = False
EVENTS = True

_FIXED_CODES = {65000: (8, 2, 2), 65001: (7, 2, 2)}
_PROTOTYPE, _TAGGED_CODES = 65000, 65002
_RUN_BITS, _HORIZONTAL_BITS, _VERTICAL_BITS, _METADATA = 65007, 65008, 65009, 65001
_RUN_BITS_MAX, _SUBPIXEL_BITS_MAX = 15, 4
_SENSOR_MAX_PX = 8192  # a side; sensors have 4096 or 2048
_SUM_COMPRESSION = 1  # TIA writes the uncompressed sum of all frames first
_TAIL_BYTES = 256  # events never leave so many zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFrame:
    """One raw frame: how its codes are built, and where they lie. `run_bits` is 0 for a page that holds no events."""

    width_px: int
    height_px: int
    run_bits: int
    horizontal_bits: int
    vertical_bits: int
    padded: bool  # the bits of a place also follow a longest run
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]
    total_dose_e_per_px: float | None
    announced_frames: int | None  # raw frames of the whole movie, where the page says so

    @property
    def end(self) -> int:
        """Byte just behind the last strip."""
        return max(o + n for o, n in zip(self.offsets, self.byte_counts, strict=True))

    @property
    def enough(self) -> bool:
        """Whether there are bytes enough for the longest runs to reach over the sensor: a few bytes cannot claim gigabytes."""
        runs = self.width_px * self.height_px // ((1 << self.run_bits) - 1)
        return min(self.byte_counts) > 0 and min(self.offsets) > 0 and 8 * sum(self.byte_counts) >= runs * self.run_bits

    @property
    def upsampling_max(self) -> int:
        """Finest grid that the sub-pixel places can be told apart on."""
        return int(2 ** min(self.horizontal_bits, self.vertical_bits))


def read_info(path: Path) -> MovieInfo:
    """Read the directories. Raises InputError for a file that is no EER movie, is cut, or exceeds the limits."""
    return _info(path, _event_frames(_read(path), path.name))


def check_structure(path: Path) -> Completeness:
    """Say whether the chain of directories ends, all events lie within the file, and no raw frame is missing."""
    chain = _read(path)
    frames = _event_frames(chain, path.name)
    info = _info(path, frames)
    sentence = _defect(path, chain, frames)
    return Completeness(complete=not sentence, sentence=sentence or f"{path.name} is complete.", info=info)


def iterate_frames(path: Path, info: MovieInfo) -> Iterator[Image]:
    """Yield the rendered frames `(y, x)`, several threads rendering a few frames ahead.

    Raises InputError when the file tells sub-pixel places less finely than `info.rendering` asks for.
    """
    from frazil.io.movies import _eer_pixels

    frames = _event_frames(_read(path), path.name)
    rendering = info.rendering or Rendering()
    finest = frames[0].upsampling_max
    if rendering.upsampling > finest:
        raise InputError(
            "EER_UPSAMPLING",
            f"{path.name} tells the place of an electron to 1/{finest} px: upsampling can be at most {finest}.",
        )
    return _eer_pixels.render(path, frames, rendering, info.frame_count, info.dtype)


def _read(path: Path) -> directory.Chain[EventFrame]:
    return directory.read_pages(path, _event_frame)


def _event_frame(tags: directory.Directory) -> EventFrame:
    """Read one page. Raises InputError for a compression that is not EER's, or codes that cannot be."""
    compression = tags.one(directory.COMPRESSION, _SUM_COMPRESSION)
    if compression in _FIXED_CODES:
        codes = _FIXED_CODES[compression]
    elif compression == _TAGGED_CODES:
        codes = (tags.one(_RUN_BITS, 7), tags.one(_HORIZONTAL_BITS, 2), tags.one(_VERTICAL_BITS, 2))
    elif compression == _SUM_COMPRESSION and tags.number == 1:
        codes = (0, 0, 0)
    else:
        raise InputError("EER_COMPRESSION", f"{tags.file.name} holds no electron events but compression {compression}.")
    if codes[0] > _RUN_BITS_MAX or max(codes[1:]) > _SUBPIXEL_BITS_MAX or (compression != _SUM_COMPRESSION and codes[0] < 1):
        raise InputError("EER_CODES", f"{tags.file.name} has codes of {codes[0]}, {codes[1]} and {codes[2]} bits: none can be.")
    offsets, byte_counts = tags.strips()
    metadata = tags.raw(_METADATA).decode("utf-8", errors="replace") if tags.number <= 2 else ""
    announced = _announced(metadata, "numberOfFrames")
    return EventFrame(
        width_px=tags.one(directory.WIDTH, 0),
        height_px=tags.one(directory.HEIGHT, 0),
        run_bits=codes[0],
        horizontal_bits=codes[1],
        vertical_bits=codes[2],
        padded=compression == _PROTOTYPE,
        offsets=offsets,
        byte_counts=byte_counts,
        total_dose_e_per_px=_announced(metadata, "totalDose"),
        announced_frames=int(announced) if announced is not None and announced < FRAMES_MAX else None,
    )


def _announced(metadata: str, name: str) -> float | None:
    """Return a number from the camera's XML, `<item name="totalDose" unit="e/pixel">31.2</item>`, or None."""
    found = re.search(rf'<item name="{name}"[^<>]{{0,80}}>\s*(\d{{1,9}}(?:\.\d{{0,18}})?)\s*</item>', metadata)
    return float(found.group(1)) or None if found else None


def _event_frames(chain: directory.Chain[EventFrame], name: str) -> tuple[EventFrame, ...]:
    """Leave out a first page that is the sum. Raises InputError when nothing else is there."""
    frames = tuple(page for page in chain.pages if page.run_bits)
    if not frames:
        raise InputError("EER_COMPRESSION", f"{name} holds no electron events, only a summed image.")
    return frames


def _info(path: Path, frames: tuple[EventFrame, ...]) -> MovieInfo:
    first = frames[0]
    info = MovieInfo(
        frame_count=len(frames),
        height_px=first.height_px,
        width_px=first.width_px,
        dtype="uint8",
        pixel_size_angstrom=None,
        format=NAME,
        rendering=Rendering(),
        total_dose_e_per_px=first.total_dose_e_per_px,
    )
    check_limits(info, nonempty_size(path), path.name)
    if max(info.height_px, info.width_px) > _SENSOR_MAX_PX:
        raise InputError(
            "MOVIE_DIMENSIONS", f"{path.name} says its sensor is {info.width_px:,} x {info.height_px:,} px: none is."
        )
    return info


def _defect(path: Path, chain: directory.Chain[EventFrame], frames: tuple[EventFrame, ...]) -> str:
    """Return what is wrong with the structure; empty when nothing is."""
    name, size, first = path.name, nonempty_size(path), frames[0]
    if chain.end > size:
        return directory.cut_pages(frames, size, chain.end, name)
    for number, frame in enumerate(frames, start=1):
        if (frame.width_px, frame.height_px) != (first.width_px, first.height_px):
            return (
                f"Raw frame {number} of {name} is {frame.width_px:,} x {frame.height_px:,} px, "
                f"but the first one is {first.width_px:,} x {first.height_px:,} px."
            )
        if not frame.enough:
            return f"Raw frame {number} of {name} is without its events."
    announced = next((page.announced_frames for page in chain.pages if page.announced_frames), None)
    if announced is not None and len(frames) < announced:
        return f"{name} is truncated: it holds {len(frames):,} of {announced:,} raw frames."
    begin, end = (chain.end, size) if size > chain.end else (max(0, chain.end - _TAIL_BYTES), chain.end)
    with path.open("rb") as file:
        file.seek(begin)
        tail = file.read(min(end - begin, 65_536))
    if len(tail) >= _TAIL_BYTES and not tail.strip(b"\0"):
        return f"The end of {name} is all zeros: it looks preallocated and not yet filled."
    return ""
