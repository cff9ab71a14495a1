"""The directories (IFDs) of a TIFF or BigTIFF file, read with struct only and distrusting every number (TIFF 6.0)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, Protocol, TypeVar

from frazil.io.movies._contract import FRAMES_MAX, ByteOrder, nonempty_size, truncated
from frazil.model.errors import InputError

WIDTH, HEIGHT, BITS, COMPRESSION, FILL_ORDER = 256, 257, 258, 259, 266
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES, X_RESOLUTION = 273, 277, 278, 279, 282
RESOLUTION_UNIT, PREDICTOR, SAMPLE_FORMAT = 296, 317, 339
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325

_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # the integer types; rationals and bytes are read apart
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 16: 8}
_RATIONAL = 5
_ENTRIES_MAX = 4096
_VALUES_MAX = 1 << 20
_EFFORT_MAX = 1 << 22  # entries and values of all directories together: small files can name large arrays again and again


class Stored(Protocol):
    """A page of a file, as far as its place is concerned."""

    @property
    def end(self) -> int:
        """Byte just behind the last strip."""
        ...


Page = TypeVar("Page", bound=Stored)


@dataclass(frozen=True, slots=True)
class Chain(Generic[Page]):
    """All pages of a file, and the byte behind the last one that directories or strips make use of."""

    pages: tuple[Page, ...]
    end: int


@dataclass(frozen=True, slots=True)
class Directory:
    """The tags of one page."""

    number: int  # of the page in the file, from 1
    byte_order: ByteOrder
    file: _File
    entries: dict[int, tuple[int, int, bytes]]  # tag: type, count, value or where the values are

    def one(self, tag: int, default: int) -> int:
        """Return the first integer of a tag."""
        return self.many(tag, (default,))[0]

    def many(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the integers of a tag (a rational gives numerator and denominator), or the default where it is absent."""
        if tag not in self.entries:
            return default
        kind, count, _ = self.entries[tag]
        if kind not in _TYPES and kind != _RATIONAL:
            raise self._senseless(tag)
        form = f"{2 * count}I" if kind == _RATIONAL else f"{count}{_TYPES[kind]}"
        return struct.unpack(f"{self.byte_order}{form}", self.raw(tag))

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a tag; none where it is absent."""
        if tag not in self.entries:
            return b""
        kind, count, inline = self.entries[tag]
        if kind not in _TYPE_BYTES or not 0 < count <= _VALUES_MAX:
            raise self._senseless(tag)
        total = count * _TYPE_BYTES[kind]
        if total <= len(inline):
            return inline[:total]
        self.file.spend(count)
        return self.file.at(struct.unpack(f"{self.byte_order}{'Q' if len(inline) == 8 else 'I'}", inline)[0], total)

    def strips(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the offsets and byte counts of the strips, or of the tiles where there are any."""
        tiled = TILE_OFFSETS in self.entries
        offsets = self.many(TILE_OFFSETS if tiled else STRIP_OFFSETS)
        byte_counts = self.many(TILE_BYTES if tiled else STRIP_BYTES)
        if not offsets or len(offsets) != len(byte_counts):
            raise InputError("TIFF_STRIPS", f"Frame {self.number} of {self.file.name} does not say where its pixels are.")
        return offsets, byte_counts

    def _senseless(self, tag: int) -> InputError:
        return InputError("TIFF_TAG", f"{self.file.name} is broken: its TIFF tag {tag} makes no sense.")


def read_pages(path: Path, page_of: Callable[[Directory], Page]) -> Chain[Page]:
    """Walk the chain of directories; `page_of` makes a page of each.

    Raises InputError when the chain leaves the file, loops, or describes no camera frame.
    """
    size = nonempty_size(path)
    pages: list[Page] = []
    with path.open("rb") as stream:
        file = _File(stream, size, path.name)
        try:
            pages.extend(map(page_of, file.directories()))
        except _BeyondEndError as cut:
            raise InputError("MOVIE_TRUNCATED", _cut_chain(pages, size, path.name, cut.want)) from cut
    return Chain(tuple(pages), max(file.end, *(page.end for page in pages)))


def cut_pages(pages: tuple[Page, ...], size: int, end: int, name: str) -> str:
    """Return the sentence for a file whose directories are all there but not all pixels."""
    whole = sum(page.end <= size for page in pages)
    return f"{truncated(name, size, end).removesuffix('.')}; {whole:,} of {len(pages):,} frames are whole."


def _cut_chain(pages: list[Page], size: int, name: str, want: int) -> str:
    """Return the sentence for a file that ends before its last directory: nobody knows how many frames it had."""
    whole = sum(page.end <= size for page in pages)
    if not pages:
        return truncated(name, size, want)
    known = {0: "none of its frames is whole", 1: "only its first frame is whole"}
    frames = known.get(whole, f"only its first {whole:,} frames are whole")
    return f"{name} is truncated: it ends after {size:,} bytes, and {frames}; the file does not say how many are lost."


class _BeyondEndError(Exception):
    """Something lies beyond the end of the file."""

    def __init__(self, want: int) -> None:
        self.want = want


class _File:
    """A bounds-checked view of one open TIFF file."""

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self._stream, self._size, self.name = stream, size, name
        self._effort = 0
        self.end = 0  # behind the last byte read so far

    def directories(self) -> Iterator[Directory]:
        """Yield the directories in the order of the chain."""
        start = self.at(0, 8)
        order: ByteOrder = ">" if start[:2] == b"MM" else "<"
        (magic,) = struct.unpack(f"{order}H", start[2:4])
        if start[:2] not in (b"II", b"MM") or magic not in (42, 43):
            raise InputError("TIFF_HEADER", f"{self.name} is not a TIFF file: it does not begin like one.")
        big = magic == 43
        offset, seen = self._number(f"{order}Q", 8) if big else self._number(f"{order}I", 4), set[int]()
        if offset == 0:
            raise InputError("MOVIE_TRUNCATED", f"{self.name} has no frames yet: its writer has not finished it.")
        while offset:
            if offset in seen:
                raise InputError("TIFF_LOOP", f"{self.name} is broken: its frame directories form a loop.")
            if len(seen) >= FRAMES_MAX:
                raise InputError("MOVIE_FRAME_COUNT", f"{self.name} has more than {FRAMES_MAX:,} frames.")
            seen.add(offset)
            entries, offset = self._directory(offset, order, big=big)
            yield Directory(len(seen), order, self, entries)

    def at(self, offset: int, count: int) -> bytes:
        """Return bytes of the file. Raises _BeyondEndError when they lie beyond its end."""
        if offset + count > self._size:
            raise _BeyondEndError(offset + count)
        self.end = max(self.end, offset + count)
        self._stream.seek(offset)
        raw = self._stream.read(count)
        if len(raw) < count:
            raise InputError("MOVIE_TRUNCATED", f"{self.name} became shorter while it was read.")
        return raw

    def spend(self, effort: int) -> None:
        """Count entries and values. Raises InputError when there are more than any movie has."""
        self._effort += effort
        if self._effort > _EFFORT_MAX:
            raise InputError("TIFF_DIRECTORY", f"{self.name} is broken: its frame directories are larger than any movie's.")

    def _number(self, form: str, offset: int) -> int:
        return int(struct.unpack(form, self.at(offset, struct.calcsize(form)))[0])

    def _directory(self, offset: int, order: ByteOrder, *, big: bool) -> tuple[dict[int, tuple[int, int, bytes]], int]:
        """Return {tag: (type, count, value bytes)} and the offset of the next directory."""
        head, entry, link = (f"{order}Q", 20, f"{order}Q") if big else (f"{order}H", 12, f"{order}I")
        count = self._number(head, offset)
        if not 0 < count <= _ENTRIES_MAX:
            raise InputError("TIFF_DIRECTORY", f"{self.name} is broken or not yet filled: a directory has {count:,} entries.")
        self.spend(count)
        offset += struct.calcsize(head)
        raw = self.at(offset, count * entry)
        form = f"{order}HHQ" if big else f"{order}HHI"
        entries = {}
        for i in range(0, count * entry, entry):
            tag, kind, values = struct.unpack_from(form, raw, i)
            entries[tag] = (kind, values, raw[i + struct.calcsize(form) : i + entry])
        return entries, self._number(link, offset + count * entry)
