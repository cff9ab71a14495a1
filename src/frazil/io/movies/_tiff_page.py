"""One frame of a TIFF movie: how its pixels are stored, and where."""

from __future__ import annotations

from dataclasses import dataclass

from frazil.io.movies import _tiff_directory as directory
from frazil.io.movies._contract import ByteOrder
from frazil.model.errors import InputError

NONE, LZW, DEFLATE, DEFLATE_OLD, ZSTD = 1, 5, 8, 32946, 50000
COMPRESSIONS = frozenset({NONE, LZW, DEFLATE, DEFLATE_OLD, ZSTD})

_DTYPES = {
    (1, 4): "uint8", (1, 8): "uint8", (2, 8): "int8", (1, 16): "uint16", (2, 16): "int16", (3, 16): "float16",
    (1, 32): "uint32", (2, 32): "int32", (3, 32): "float32",
}  # fmt: skip
# SerialEM packs two pixels into a byte and says so nowhere: (width, height) of bytes that no camera has as pixels. They are
# those of super-resolution frames of a K2 and a K3, halved along one axis, and are taken by RELION and IMOD as such.
_PACKED_SIZES = frozenset(
    {(5760, 8184), (8184, 5760), (4092, 11520), (11520, 4092), (3710, 7676), (7676, 3710), (3838, 7420), (7420, 3838)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One frame of the file: how it is stored and where its strips (or tiles) lie."""

    width_px: int
    height_px: int
    dtype: str
    bits: int  # per pixel
    low_nibble_first: bool  # of 4-bit pixels, as in MRC mode 101
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
    def row_bytes(self) -> int:
        """Bytes of a row before compression."""
        return -(-self.width_px * self.bits // 8)

    @property
    def end(self) -> int:
        """Byte just behind the last strip."""
        return max((o + n for o, n in zip(self.offsets, self.byte_counts, strict=True)), default=0)


def read_page(tags: directory.Directory) -> Page:
    """Build a page from its directory. Raises InputError for what is no camera frame."""
    width, height, bits = tags.one(directory.WIDTH, 0), tags.one(directory.HEIGHT, 0), tags.one(directory.BITS, 1)
    compression, samples = tags.one(directory.COMPRESSION, NONE), tags.one(directory.SAMPLES, 1)
    dtype = _DTYPES.get((tags.one(directory.SAMPLE_FORMAT, 1), bits))
    if samples != 1 or dtype is None:
        raise InputError(
            "TIFF_PIXELS",
            f"Frame {tags.number} of {tags.file.name} has {samples} samples of {bits} bits per pixel; "
            "readable are single samples of 4, 8, 16 or 32 bits.",
        )
    if compression not in COMPRESSIONS:
        raise InputError(
            "TIFF_COMPRESSION",
            f"{tags.file.name} is compressed by method {compression}; readable are none, LZW, deflate and zstd.",
        )
    offsets, byte_counts = tags.strips()
    packed = dtype == "uint8" and (width, height) in _PACKED_SIZES
    tiled = directory.TILE_OFFSETS in tags.entries
    return Page(
        width_px=2 * width if packed else width,
        height_px=height,
        dtype=dtype,
        bits=4 if packed else bits,
        low_nibble_first=packed,
        byte_order=tags.byte_order,
        compression=compression,
        strip_rows=max(1, min(tags.one(directory.STRIP_ROWS, height), height)),
        offsets=offsets,
        byte_counts=byte_counts,
        pixel_size_angstrom=_pixel_size(tags),
        plain=not tiled and tags.one(directory.PREDICTOR, 1) == 1 and tags.one(directory.FILL_ORDER, 1) == 1,
    )


def _pixel_size(tags: directory.Directory) -> float | None:
    """Return the pixel size in Å from the resolution tags, or None when that is no possible one."""
    resolution = tags.many(directory.X_RESOLUTION)
    unit_angstrom = {2: 2.54e8, 3: 1e8}.get(tags.one(directory.RESOLUTION_UNIT, 2))
    if len(resolution) != 2 or 0 in resolution or unit_angstrom is None:
        return None
    pixel_size = unit_angstrom * resolution[1] / resolution[0]
    return pixel_size if 0.01 < pixel_size < 100.0 else None
