"""MRC movies compressed as a whole by bzip2: read only where a session asks for it.

They are read as a stream, and never beyond what the header says: bzip2 can blow up a small file beyond any disk. Decoding
is slow, tens of MB a second.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from pathlib import Path

from frazil.io.movies import mrc
from frazil.io.movies._contract import Completeness, Image, MovieInfo, check_limits, nonempty_size
from frazil.model.errors import InputError

NAME = "MRC in bzip2"
SUFFIXES = (".mrc.bz2", ".mrcs.bz2")
OPT_IN = True
EVENTS = False

_END_MARK = 0x177245385090  # the 48 bits, then 32 of checksum and up to 7 of padding, with which a bzip2 stream ends
_END_BYTES = 12
_CORRUPT = (OSError, EOFError, ValueError)


def read_info(path: Path) -> MovieInfo:
    """Decompress the header only. Raises InputError when it is none, or the movie would be beyond the limits."""
    return _header(path).info


def check_structure(path: Path) -> Completeness:
    """Say whether the file ends as a bzip2 stream does; its pixels are not decompressed."""
    info = _header(path).info
    size = nonempty_size(path)
    with path.open("rb") as file:
        file.seek(max(0, size - _END_BYTES))
        end = int.from_bytes(file.read(), "big")
    if any((end >> (32 + padding)) & (2**48 - 1) == _END_MARK for padding in range(8)):
        return Completeness(complete=True, sentence=f"{path.name} is complete.", info=info)
    sentence = f"{path.name} is truncated: after {size:,} bytes its compressed data do not end."
    return Completeness(complete=False, sentence=sentence, info=info)


def iterate_frames(path: Path, info: MovieInfo) -> Iterator[Image]:
    """Yield the frames `(y, x)` one by one, decompressed as they are asked for."""
    header = _header(path)
    with bz2.open(path, "rb") as stream:
        try:
            _skip(stream, header.data_offset)
            yield from mrc.decode_frames(stream, header, info.frame_count, path.name)
            if stream.read(1):  # this also makes bzip2 compare the last checksum
                raise ValueError("it holds more than its header says")
        except _CORRUPT as error:
            raise InputError(
                "MOVIE_DATA_CORRUPT", f"{path.name} cannot be decompressed ({error}): copy the movie again."
            ) from error


def _header(path: Path) -> mrc.Header:
    size = nonempty_size(path)
    with bz2.open(path, "rb") as stream:
        try:
            raw = stream.read(mrc.HEADER_BYTES)
        except _CORRUPT as error:
            raise InputError("BZIP2_HEADER", f"{path.name} is not a bzip2 file, or is cut at its begin: {error}.") from error
    if len(raw) < mrc.HEADER_BYTES:
        raise InputError("MOVIE_TRUNCATED", f"{path.name} holds {len(raw):,} bytes: less than an MRC header.")
    header = mrc.parse_header(raw, path.name)
    check_limits(header.info, size, path.name)
    return header


def _skip(stream: bz2.BZ2File, count: int) -> None:
    """Read past the headers in small pieces."""
    while count > 0:
        piece = stream.read(min(count, 1 << 20))
        if not piece:
            raise EOFError("it ends within its header")
        count -= len(piece)
