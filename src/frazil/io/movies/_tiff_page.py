"""One frame of a TIFF movie: how its pixels are stored, and where."""

from __future__ import annotations

from dataclasses import dataclass

from frazil.io.movies import _tiff_directory as directory
from frazil.io.movies._contract import SIDE_MAX_PX, ByteOrder
from frazil.model.errors import InputError

NONE, LZW, DEFLATE, DEFLATE_OLD, ZSTD = 1, 5, 8, 32946, 50000
COMPRESSIONS = frozenset({NONE, LZW, DEFLATE, DEFLATE_OLD, ZSTD})
PLAIN, DIFFERENCES, FLOAT_BYTES = 1, 2, 3  # predictors

_DTYPES = {
    (1, 4): "uint8", (1, 8): "uint8", (2, 8): "int8", (1, 16): "uint16", (2, 16): "int16", (3, 16): "float16",
    (1, 32): "uint32", (2, 32): "int32", (3, 32): "float32",
}  # fmt: skip
_PREDICTORS = {"float16": (PLAIN, FLOAT_BYTES), "float32": (PLAIN, DIFFERENCES, FLOAT_BYTES)}
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
    predictor: int
    segment_rows: int  # of a strip or tile
    segment_columns: int
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]
    pixel_size_angstrom: float | None

    @property
    def layout(self) -> tuple[int, int, str]:
        """What all frames of a movie must have in common."""
        return self.height_px, self.width_px, self.dtype

    @property
    def tiled(self) -> bool:
        """Whether segments are tiles: all of one size, reaching over the frame's edges, where strips end with the frame."""
        return self.segment_columns != self.width_px

    @property
    def segments_across(self) -> int:
        """Number of segments side by side."""
        return -(-self.width_px // self.segment_columns)

    @property
    def segment_count(self) -> int:
        """Number of segments that the frame needs."""
        return self.segments_across * -(-self.height_px // self.segment_rows)

    @property
    def segment_row_bytes(self) -> int:
        """Bytes of a row of a segment before compression."""
        return -(-self.segment_columns * self.bits // 8)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the whole frame before compression."""
        rows = self.segment_count * self.segment_rows if self.tiled else self.height_px
        return rows * self.segment_row_bytes

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
    predictor = tags.one(directory.PREDICTOR, PLAIN)
    if predictor not in _PREDICTORS.get(dtype, (PLAIN, DIFFERENCES)) or tags.one(directory.FILL_ORDER, 1) != 1:
        raise InputError(
            "TIFF_PIXELS", f"{tags.file.name} has its pixels in an order (predictor {predictor}) that no camera writes."
        )
    offsets, byte_counts = tags.strips()
    packed = bits == 8 and dtype == "uint8" and (width, height) in _PACKED_SIZES
    if packed:
        width *= 2
    rows, columns = max(1, min(tags.one(directory.STRIP_ROWS, height), height)), width
    if directory.TILE_OFFSETS in tags.entries:
        rows, columns = tags.one(directory.TILE_HEIGHT, 0), tags.one(directory.TILE_WIDTH, 0) * (2 if packed else 1)
        if not (0 < rows <= SIDE_MAX_PX and 0 < columns <= 2 * SIDE_MAX_PX):
            raise InputError("TIFF_STRIPS", f"{tags.file.name} is broken: its tiles are {columns:,} x {rows:,} px.")
    return Page(
        width_px=width,
        height_px=height,
        dtype=dtype,
        bits=4 if packed else bits,
        low_nibble_first=packed,
        byte_order=tags.byte_order,
        compression=compression,
        predictor=predictor,
        segment_rows=rows,
        segment_columns=columns,
        offsets=offsets,
        byte_counts=byte_counts,
        pixel_size_angstrom=_pixel_size(tags),
    )


def _pixel_size(tags: directory.Directory) -> float | None:
    """Return the pixel size in Å from the resolution tags, or None when that is no possible one."""
    resolution = tags.many(directory.X_RESOLUTION)
    unit_angstrom = {2: 2.54e8, 3: 1e8}.get(tags.one(directory.RESOLUTION_UNIT, 2))
    if len(resolution) != 2 or 0 in resolution or unit_angstrom is None:
        return None
    pixel_size = unit_angstrom * resolution[1] / resolution[0]
    return pixel_size if 0.01 < pixel_size < 100.0 else None
