"""What every movie format says of itself, and the limits that no file may exceed. No numpy here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
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
DTYPE_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieInfo:
    """What the header of a movie says. `pixel_size_angstrom` is often wrong in raw movies: metadata and user come first."""

    frame_count: int
    height_px: int
    width_px: int
    dtype: str
    pixel_size_angstrom: float | None
    format: str

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

    Raises InputError with a sentence that names the file.
    """
    for side, px in (("wide", info.width_px), ("high", info.height_px)):
        if not SIDE_MIN_PX <= px <= SIDE_MAX_PX:
            raise InputError(
                "MOVIE_DIMENSIONS",
                f"{name} says it is {px:,} px {side}; movies are {SIDE_MIN_PX} to {SIDE_MAX_PX:,} px on a side.",
            )
    if not 1 <= info.frame_count <= FRAMES_MAX:
        raise InputError(
            "MOVIE_FRAME_COUNT",
            f"{name} says it has {info.frame_count:,} frames; movies have 1 to {FRAMES_MAX:,}.",
        )
    if info.decoded_bytes > min(DECODED_MAX_BYTES, DECODED_MAX_RATIO * max(file_bytes, 1)):
        raise InputError(
            "MOVIE_TOO_LARGE",
            f"{name} would take {info.decoded_bytes / 2**30:,.1f} GiB in memory for {file_bytes / 2**20:,.1f} MiB on disk: "
            "its header is not to be believed.",
        )


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
