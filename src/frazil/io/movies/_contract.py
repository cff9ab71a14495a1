"""What every movie format says of itself, and the limits that no file may exceed. No numpy here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from frazil.model.errors import InputError

Image: TypeAlias = Any
"""A numpy array; not named as such, because the ingest service reads headers without numpy."""

ByteOrder: TypeAlias = Literal["<", ">"]

SIDE_MIN_PX, SIDE_MAX_PX = 16, 32_768
FRAMES_MAX = 20_000
EXTENDED_HEADER_MAX_BYTES = 64 * 2**20
DECODED_MAX_BYTES = 64 * 2**30
DECODED_MAX_RATIO = 200  # decoded bytes per byte of file: beyond it the file is a decompression bomb
UINT8_MAX = 255  # a pixel counts at most one electron in a raw frame
DTYPE_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How recorded electron events (EER) become frames.

    `frames_per_fraction` of the camera's raw frames are added up to one frame, to `fractions_max` frames at most; raw frames
    left over at the end are dropped, so that all frames have the same dose (as RELION and Warp do). The grid is `upsampling`
    times finer than the sensor's.
    """

    frames_per_fraction: int = 1
    upsampling: int = 1
    fractions_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieInfo:
    """What the header of a movie says. `pixel_size_angstrom` is often wrong in raw movies: metadata and user come first.

    `rendering` is None for movies that are stored as frames; a movie of events is described as it will be rendered, at
    first with every raw frame by itself. `total_dose_e_per_px` is what the camera itself says of the whole exposure.
    """

    frame_count: int
    height_px: int
    width_px: int
    dtype: str
    pixel_size_angstrom: float | None
    format: str
    rendering: Rendering | None = None
    total_dose_e_per_px: float | None = None

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the whole movie in memory, in its own dtype."""
        return self.frame_count * self.height_px * self.width_px * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """Whether a movie file is whole. `sentence` says what is missing when it is not; `info` is None without a header."""

    complete: bool
    sentence: str
    info: MovieInfo | None = None


class MovieFormat(Protocol):
    """The functions that a module of this folder offers; adding a format is adding such a module."""

    NAME: str
    SUFFIXES: tuple[str, ...]
    OPT_IN: bool  # read only where a session asks for it
    EVENTS: bool  # electrons, to be rendered: the number of raw frames differs a little from movie to movie

    def read_info(self, path: Path) -> MovieInfo:
        """Read the header only. Raises InputError for a file that is not this format or exceeds the limits."""
        ...

    def check_structure(self, path: Path) -> Completeness:
        """Say whether every byte that the header promises is in the file. Raises only what the file system raises."""
        ...

    def iterate_frames(self, path: Path, info: MovieInfo) -> Iterator[Image]:
        """Yield the frames `(y, x)` in MRC row order and in the file's own dtype."""
        ...


def check_limits(info: MovieInfo, file_bytes: int, name: str) -> None:
    """Refuse a movie whose header exceeds the limits (reliability of the reader against hostile or broken files).

    Events are no pixels yet: what they need in memory is held against the limits once it is known (`rendered`).

    Raises InputError with a sentence that names the file.
    """
    check_sides(info, name)
    if not 1 <= info.frame_count <= FRAMES_MAX:
        raise InputError(
            "MOVIE_FRAME_COUNT",
            f"{name} says it has {info.frame_count:,} frames; movies have 1 to {FRAMES_MAX:,}.",
        )
    if info.rendering is None and info.decoded_bytes > min(DECODED_MAX_BYTES, DECODED_MAX_RATIO * max(file_bytes, 1)):
        raise InputError(
            "MOVIE_TOO_LARGE",
            f"{name} would take {info.decoded_bytes / 2**30:,.1f} GiB in memory for {file_bytes / 2**20:,.1f} MiB on disk: "
            "its header is not to be believed.",
        )


def check_sides(info: MovieInfo, name: str) -> None:
    """Raise InputError when a side is too short or too long for a movie."""
    for side, px in (("wide", info.width_px), ("high", info.height_px)):
        if not SIDE_MIN_PX <= px <= SIDE_MAX_PX:
            raise InputError(
                "MOVIE_DIMENSIONS",
                f"{name} says it is {px:,} px {side}; movies are {SIDE_MIN_PX} to {SIDE_MAX_PX:,} px on a side.",
            )


def rendered(info: MovieInfo, rendering: Rendering) -> MovieInfo:
    """Describe a movie of events as it will be rendered. Raises InputError when it has too few raw frames for one fraction.

    Parameters
    ----------
    info: of the raw frames, as `read_info` gives it.
    """
    frames = info.frame_count // rendering.frames_per_fraction
    frames = min(frames, rendering.fractions_max or frames)
    if frames < 1:
        raise InputError(
            "EER_FRACTIONS",
            f"The movie has {info.frame_count:,} raw frames, fewer than the {rendering.frames_per_fraction:,} of one fraction: "
            "ask for more fractions, or for less dose in each.",
        )
    shown = replace(
        info,
        frame_count=frames,
        height_px=info.height_px * rendering.upsampling,
        width_px=info.width_px * rendering.upsampling,
        dtype="uint8" if rendering.frames_per_fraction <= UINT8_MAX else "uint16",
        rendering=rendering,
    )
    check_sides(shown, "The rendered movie")
    if shown.decoded_bytes > DECODED_MAX_BYTES:
        raise InputError(
            "MOVIE_TOO_LARGE",
            f"Rendered so, the movie would take {shown.decoded_bytes / 2**30:,.1f} GiB in memory: "
            "ask for fewer fractions or less upsampling.",
        )
    return shown


def nonempty_size(path: Path) -> int:
    """Return the size of a regular file in bytes. Raises InputError when it is empty or is no file."""
    if not path.is_file():
        if path.exists():
            raise InputError("MOVIE_NOT_A_FILE", f"{path.name} is not a regular file.")
        raise InputError("MOVIE_MISSING", f"{path.name} does not exist in {path.parent}.")
    size = path.stat().st_size
    if size == 0:
        raise InputError("MOVIE_EMPTY", f"{path.name} is empty (0 bytes).")
    return size


def truncated(name: str, have: int, want: int) -> str:
    """Return the sentence for a file that is shorter than its header says, in a unit that shows the difference."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if want >= 10 * scale and math.floor(have / scale) < math.floor(want / scale):
            return f"{name} is truncated: {math.floor(have / scale):,} of {math.floor(want / scale):,} {unit}."
    return f"{name} is truncated: {have:,} of {want:,} bytes."
