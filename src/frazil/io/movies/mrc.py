"""MRC movies: modes 0, 1, 2, 6, 12 and 101 (4-bit). Header code uses struct only (MRC2014)."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from frazil.io.movies._contract import (
    DTYPE_BYTES,
    EXTENDED_HEADER_MAX_BYTES,
    ByteOrder,
    Completeness,
    Image,
    MovieInfo,
    check_limits,
    nonempty_size,
    truncated,
)
from frazil.model.errors import InputError

NAME = "MRC"
SUFFIXES = (".mrc", ".mrcs")
OPT_IN = False
EVENTS = False

HEADER_BYTES = 1024
_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16", 101: "uint8"}
_PACKED_MODE = 101  # two 4-bit pixels to a byte
_IMOD_STAMP = 1146047817  # "IMOD" at word 39: then bit 0 of the flags says whether mode 0 is signed
_TAIL_BYTES = 65_536
_THREADS_MAX = 4  # more read no faster from a page cache


class Stream(Protocol):
    """Something that bytes are read from: a file, or a decompressor."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer as far as possible and return how far."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The words of an MRC header that matter here; `byte_order` is "<" or ">"."""

    byte_order: ByteOrder
    info: MovieInfo
    data_offset: int
    space_group: int  # 0: images, 1: a volume
    packed: bool  # two pixels to a byte, the left one in the low four bits; a row ends with its last byte

    @property
    def frame_bytes(self) -> int:
        """Size of one frame in the file."""
        row = -(-self.info.width_px // 2) if self.packed else self.info.width_px * DTYPE_BYTES[self.info.dtype]
        return self.info.height_px * row

    @property
    def file_bytes(self) -> int:
        """Size that the file must have."""
        return self.data_offset + self.info.frame_count * self.frame_bytes


def read_info(path: Path) -> MovieInfo:
    """Read the header. Raises InputError for a file that is no MRC file or exceeds the limits."""
    return _read_limited(path).info


def check_structure(path: Path) -> Completeness:
    """Say whether the file has the size its header says, and its end is not a preallocated blank."""
    header = _read_limited(path)
    have, want = nonempty_size(path), header.file_bytes
    if have < want:
        return Completeness(complete=False, sentence=truncated(path.name, have, want), info=header.info)
    if have > want:
        sentence = f"{path.name} is longer than its header says: {have:,} instead of {want:,} bytes."
        return Completeness(complete=False, sentence=sentence, info=header.info)
    if _tail_is_blank(path, header):
        sentence = f"The end of {path.name} is all zeros: it looks preallocated and not yet filled."
        return Completeness(complete=False, sentence=sentence, info=header.info)
    return Completeness(complete=True, sentence=f"{path.name} is complete.", info=header.info)


def iterate_frames(path: Path, info: MovieInfo) -> Iterator[Image]:
    """Yield the frames `(y, x)` one by one, in native byte order, a few read ahead.

    Frames are read, not mapped into memory: a file that is cut while it is being read then ends in an InputError, where a
    map would kill the worker (SIGBUS).
    """
    import numpy as np

    from frazil.array import thread_count
    from frazil.io.movies._pixels import decode_ahead

    header = read_header(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def frame(index: int) -> Image:
        stored: Image = np.empty(header.frame_bytes, np.uint8)
        target, offset = memoryview(stored), header.data_offset + index * header.frame_bytes
        if not _fill(lambda rest: os.preadv(descriptor, [rest], offset + len(target) - len(rest)), target):
            raise _ends_within(path.name, index)
        return _pixels(stored, header)

    try:
        yield from decode_ahead(frame, range(info.frame_count), min(_THREADS_MAX, thread_count(), info.frame_count))
    finally:
        os.close(descriptor)


def decode_frames(stream: Stream, header: Header, count: int, name: str) -> Iterator[Image]:
    """Yield `count` frames from a stream that stands at the first one. Raises InputError when it ends too early."""
    import numpy as np

    for index in range(count):
        stored: Image = np.empty(header.frame_bytes, np.uint8)
        if not _fill(stream.readinto, memoryview(stored)):
            raise _ends_within(name, index)
        yield _pixels(stored, header)


def _pixels(stored: Image, header: Header) -> Image:
    """Return the frame `(y, x)` that is stored in these bytes."""
    import numpy as np

    from frazil.kernels.nibbles import unpack_nibbles

    info = header.info
    if header.packed:
        return unpack_nibbles(stored.reshape(info.height_px, -1), info.width_px, low_first=True)
    dtype = np.dtype(info.dtype).newbyteorder(header.byte_order)
    return stored.view(dtype).reshape(info.height_px, info.width_px).astype(info.dtype, copy=False)


def _ends_within(name: str, index: int) -> InputError:
    return InputError("MOVIE_TRUNCATED", f"{name} ends within frame {index + 1}: copy the movie again.")


def _fill(read_into: Callable[[memoryview], int | None], target: memoryview) -> bool:
    """Fill the target from a source, which may give less at a time than it is asked for; False at its end."""
    filled = 0
    while filled < len(target):
        count = read_into(target[filled:])
        if not count:
            return False
        filled += count
    return True


def read_header(path: Path) -> Header:
    """Parse the 1024-byte header. Raises InputError with a sentence for every way in which it cannot be one."""
    size = nonempty_size(path)
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise InputError("MOVIE_TRUNCATED", truncated(path.name, size, HEADER_BYTES))
    return parse_header(raw, path.name)


def parse_header(raw: bytes, name: str) -> Header:
    """Parse the bytes of a header. Raises InputError with a sentence for every way in which they cannot be one."""
    order = _byte_order(raw, name)
    nx, ny, nz, mode = struct.unpack_from(f"{order}4i", raw)
    (extended,) = struct.unpack_from(f"{order}i", raw, 92)
    if mode not in _MODES:
        raise InputError("MRC_MODE", f"{name} has MRC mode {mode}; readable are {', '.join(map(str, sorted(_MODES)))}.")
    if not 0 <= extended <= EXTENDED_HEADER_MAX_BYTES:
        raise InputError(
            "MRC_EXTENDED_HEADER",
            f"{name} says its extended header has {extended:,} bytes; at most {EXTENDED_HEADER_MAX_BYTES:,} are read.",
        )
    if min(nx, ny, nz) <= 0:
        raise InputError("MRC_HEADER", f"{name} is not an MRC file: it says {nx} x {ny} x {nz} pixels.")
    info = MovieInfo(
        frame_count=nz,
        height_px=ny,
        width_px=nx,
        dtype=_dtype(raw, order, mode),
        pixel_size_angstrom=_pixel_size(raw, order),
        format=NAME,
    )
    (space_group,) = struct.unpack_from(f"{order}i", raw, 88)
    return Header(
        byte_order=order,
        info=info,
        data_offset=HEADER_BYTES + extended,
        space_group=space_group,
        packed=mode == _PACKED_MODE,
    )


def _read_limited(path: Path) -> Header:
    """Read a movie's header and hold it against the limits.

    A file still being written may hold little more than its header, and nothing is compressed: the ratio does not apply.
    """
    header = read_header(path)
    check_limits(header.info, max(nonempty_size(path), header.info.decoded_bytes), path.name)
    return header


def _byte_order(raw: bytes, name: str) -> ByteOrder:
    """Find the byte order under which the header makes sense. The machine stamp is often wrong, so it only breaks ties."""
    orders: tuple[ByteOrder, ByteOrder] = (">", "<") if raw[212:214] == b"\x11\x11" else ("<", ">")
    for order in orders:
        mode, mapc, mapr, maps = struct.unpack_from(f"{order}i", raw, 12) + struct.unpack_from(f"{order}3i", raw, 64)
        axes_plausible = sorted((mapc, mapr, maps)) == [1, 2, 3] or (mapc, mapr, maps) == (0, 0, 0)
        if 0 <= mode <= 127 and axes_plausible:
            return order
    raise InputError("MRC_HEADER", f"{name} is not an MRC file: its header makes no sense.")


def _dtype(raw: bytes, order: str, mode: int) -> str:
    """Return the numpy name of the pixel type; mode 0 is unsigned where IMOD's flags say so."""
    stamp, flags = struct.unpack_from(f"{order}2i", raw, 152)
    if mode == 0 and stamp == _IMOD_STAMP and not flags & 1:
        return "uint8"
    return _MODES[mode]


def _pixel_size(raw: bytes, order: str) -> float | None:
    """Return cell / sampling along x in Å, or None when that is no possible pixel size."""
    (sampling,) = struct.unpack_from(f"{order}i", raw, 28)
    (cell,) = struct.unpack_from(f"{order}f", raw, 40)
    pixel_size = cell / sampling if sampling > 0 else 0.0
    return pixel_size if 0.01 < pixel_size < 100.0 else None


def _tail_is_blank(path: Path, header: Header) -> bool:
    """Say whether the end of the last frame is all zeros, as where a copying program has reserved the space first."""
    count = min(_TAIL_BYTES, header.frame_bytes)
    with path.open("rb") as file:
        file.seek(header.file_bytes - count)
        return file.read(count).count(0) == count
