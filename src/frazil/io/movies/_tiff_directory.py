"""The directories (IFDs) of a TIFF or BigTIFF file, read with struct only and distrusting every number (TIFF 6.0)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from frazil.io.movies._contract import FRAMES_MAX, ByteOrder, nonempty_size, truncated
from frazil.model.errors import InputError

NONE, LZW, DEFLATE, DEFLATE_OLD, ZSTD = 1, 5, 8, 32946, 50000
COMPRESSIONS = frozenset({NONE, LZW, DEFLATE, DEFLATE_OLD, ZSTD})

_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # the integer types; rationals are read apart
_TYPE_BYTES = {1: 1, 3: 2, 4: 4, 5: 8, 16: 8}
_ENTRIES_MAX = 4096
_VALUES_MAX = 1 << 20
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _FILL_ORDER = 256, 257, 258, 259, 266
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _X_RESOLUTION = 273, 277, 278, 279, 282
_RESOLUTION_UNIT, _PREDICTOR, _TILE_OFFSETS, _TILE_BYTES, _SAMPLE_FORMAT = 296, 317, 324, 325, 339
_DTYPES = {
    (1, 8): "uint8", (2, 8): "int8", (1, 16): "uint16", (2, 16): "int16", (3, 16): "float16",
    (1, 32): "uint32", (2, 32): "int32", (3, 32): "float32",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One frame of the file: how it is stored and where its strips (or tiles) lie."""

    width_px: int
    height_px: int
    dtype: str
    byte_order: ByteOrder
    compression: int
    strip_rows: int
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]
    pixel_size_angstrom: float | None
    plain: bool  # stored as simple strips; otherwise tiles, a predictor, reversed bits: tifffile reads it

    @property
    def layout(self) -> tuple[int, int, str]:
        """What all frames of a movie must have in common."""
        return self.height_px, self.width_px, self.dtype

    @property
    def end(self) -> int:
        """Byte just behind the last strip."""
        return max((o + n for o, n in zip(self.offsets, self.byte_counts, strict=True)), default=0)


@dataclass(frozen=True, slots=True)
class Chain:
    """All pages of a file, and the byte behind the last one that directories or strips make use of."""

    pages: tuple[Page, ...]
    end: int


def read_pages(path: Path) -> Chain:
    """Walk the chain of directories. Raises InputError when it leaves the file, loops, or describes no camera frame."""
    size = nonempty_size(path)
    with path.open("rb") as file:
        directories = _Directories(file, size, path.name)
        pages = tuple(directories.pages())
    return Chain(pages, max(directories.end, *(page.end for page in pages)))


class _Directories:
    """A bounds-checked view of one open TIFF file."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file, self._size, self._name = file, size, name
        self.end = 0  # behind the last byte read so far
        start = self._at(0, 8)
        self._order: ByteOrder = ">" if start[:2] == b"MM" else "<"
        (magic,) = struct.unpack(f"{self._order}H", start[2:4])
        if start[:2] not in (b"II", b"MM") or magic not in (42, 43):
            raise InputError("TIFF_HEADER", f"{name} is not a TIFF file: it does not begin like one.")
        self._big = magic == 43
        self._first = self._number("Q", 8) if self._big else self._number("I", 4)

    def pages(self) -> Iterator[Page]:
        """Yield the pages in the order of the chain."""
        offset, seen = self._first, set[int]()
        if offset == 0:
            raise InputError("MOVIE_TRUNCATED", f"{self._name} has no frames yet: its writer has not finished it.")
        while offset:
            if offset in seen:
                raise InputError("TIFF_LOOP", f"{self._name} is broken: its frame directories form a loop.")
            if len(seen) >= FRAMES_MAX:
                raise InputError("MOVIE_FRAME_COUNT", f"{self._name} has more than {FRAMES_MAX:,} frames.")
            seen.add(offset)
            entries, offset = self._directory(offset)
            yield self._page(entries, len(seen))

    def _at(self, offset: int, count: int) -> bytes:
        """Return bytes of the file. Raises InputError when they lie beyond its end."""
        if offset + count > self._size:
            raise InputError("MOVIE_TRUNCATED", truncated(self._name, self._size, offset + count))
        self.end = max(self.end, offset + count)
        self._file.seek(offset)
        raw = self._file.read(count)
        if len(raw) < count:
            raise InputError("MOVIE_TRUNCATED", f"{self._name} became shorter while it was read.")
        return raw

    def _number(self, kind: str, offset: int) -> int:
        form = f"{self._order}{kind}"
        return int(struct.unpack(form, self._at(offset, struct.calcsize(form)))[0])

    def _directory(self, offset: int) -> tuple[dict[int, tuple[int, int, bytes]], int]:
        """Return {tag: (type, count, value bytes)} and the offset of the next directory."""
        head, entry, link = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        count = self._number(head, offset)
        if not 0 < count <= _ENTRIES_MAX:
            raise InputError("TIFF_DIRECTORY", f"{self._name} is broken or not yet filled: a directory has {count:,} entries.")
        offset += struct.calcsize(f"={head}")
        raw = self._at(offset, count * entry)
        form = f"{self._order}HHQ" if self._big else f"{self._order}HHI"
        entries = {}
        for i in range(0, count * entry, entry):
            tag, kind, values = struct.unpack_from(form, raw, i)
            entries[tag] = (kind, values, raw[i + struct.calcsize(form) : i + entry])
        return entries, self._number(link, offset + count * entry)

    def _values(self, entries: dict[int, tuple[int, int, bytes]], tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return the integers of a tag (a rational gives numerator and denominator), or the default where it is absent."""
        if tag not in entries:
            return default
        kind, count, inline = entries[tag]
        if kind not in _TYPE_BYTES or not 0 < count <= _VALUES_MAX:
            raise InputError("TIFF_TAG", f"{self._name} is broken: its TIFF tag {tag} makes no sense.")
        total = count * _TYPE_BYTES[kind]
        if total > len(inline):
            where = struct.unpack(f"{self._order}{'Q' if self._big else 'I'}", inline)[0]
            inline = self._at(where, total)
        form = f"{2 * count}I" if kind == 5 else f"{count}{_TYPES[kind]}"
        return struct.unpack(f"{self._order}{form}", inline[:total])

    def _page(self, entries: dict[int, tuple[int, int, bytes]], number: int) -> Page:
        """Build a page from its directory entries. Raises InputError for what is no camera frame."""

        def one(tag: int, default: int) -> int:
            return self._values(entries, tag, (default,))[0]

        width, height, bits = one(_WIDTH, 0), one(_HEIGHT, 0), one(_BITS, 1)
        compression = one(_COMPRESSION, NONE)
        dtype = _DTYPES.get((one(_SAMPLE_FORMAT, 1), bits))
        if one(_SAMPLES, 1) != 1 or dtype is None:
            raise InputError(
                "TIFF_PIXELS",
                f"Frame {number} of {self._name} has {one(_SAMPLES, 1)} samples of {bits} bits per pixel; "
                "readable are single samples of 8, 16 or 32 bits.",
            )
        if compression not in COMPRESSIONS:
            raise InputError(
                "TIFF_COMPRESSION",
                f"{self._name} is compressed by method {compression}; readable are none, LZW, deflate and zstd.",
            )
        tiled = _TILE_OFFSETS in entries
        offsets = self._values(entries, _TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
        byte_counts = self._values(entries, _TILE_BYTES if tiled else _STRIP_BYTES, ())
        if not offsets or len(offsets) != len(byte_counts):
            raise InputError("TIFF_STRIPS", f"Frame {number} of {self._name} does not say where its pixels are.")
        return Page(
            width_px=width,
            height_px=height,
            dtype=dtype,
            byte_order=self._order,
            compression=compression,
            strip_rows=max(1, min(one(_STRIP_ROWS, height), height)),
            offsets=offsets,
            byte_counts=byte_counts,
            pixel_size_angstrom=self._pixel_size(entries),
            plain=not tiled and one(_PREDICTOR, 1) == 1 and one(_FILL_ORDER, 1) == 1,
        )

    def _pixel_size(self, entries: dict[int, tuple[int, int, bytes]]) -> float | None:
        """Return the pixel size in Å from the resolution tags, or None when that is no possible one."""
        resolution = self._values(entries, _X_RESOLUTION, ())
        unit_angstrom = {2: 2.54e8, 3: 1e8}.get(self._values(entries, _RESOLUTION_UNIT, (2,))[0])
        if len(resolution) != 2 or 0 in resolution or unit_angstrom is None:
            return None
        pixel_size = unit_angstrom * resolution[1] / resolution[0]
        return pixel_size if 0.01 < pixel_size < 100.0 else None
