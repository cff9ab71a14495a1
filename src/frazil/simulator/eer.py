"""EER movies as bytes: electrons as run-length codes in a BigTIFF, one page per raw frame, as a Falcon 4 writes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frazil.kernels.events import pack_codes

_CODE_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2)}
_SHORT, _LONG, _LONG8, _UNDEFINED = 3, 4, 16, 7
_ALIGNMENT = 8  # decoders refuse strips that do not end with a whole code

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EerCodes:
    """How events are coded: the TIFF compression and, for 65002, the bits of a run and of the place within a pixel."""

    compression: int = 65001
    run_bits: int = 7
    horizontal_bits: int = 2
    vertical_bits: int = 2

    @property
    def bits(self) -> tuple[int, int, int]:
        """Bits of a run and of the two places."""
        return _CODE_BITS.get(self.compression, (self.run_bits, self.horizontal_bits, self.vertical_bits))

    @property
    def padded(self) -> bool:
        """Whether the bits of a place also follow a longest run: in the prototype's code they do."""
        return self.compression == 65000


def encode_eer(
    frames: Sequence[tuple[Places, Places]],
    shape: tuple[int, int],
    codes: EerCodes | None = None,
    *,
    total_dose_e_per_px: float | None = None,
) -> bytes:
    """Return an EER movie.

    Parameters
    ----------
    frames : of every raw frame the places of its electrons, `(electron,)` each: x and y on the finest grid, that is the
        pixel times 2 to the power of `codes.horizontal_bits`, plus the place within it. At most one electron to a pixel.
    shape : (y, x) of the sensor.
    codes : 7 + 4 bits unless said.
    total_dose_e_per_px : written into the camera's XML.

    Raises
    ------
    ValueError : two electrons in one pixel of a raw frame.
    """
    codes = codes or EerCodes()
    streams = [encode_events(x, y, shape, codes) for x, y in frames]
    dose = f'<item name="totalDose" unit="e/pixel">{total_dose_e_per_px:.6f}</item>' if total_dose_e_per_px else ""
    metadata = f'<metadata><item name="numberOfFrames">{len(streams)}</item>{dose}</metadata>'
    return _big_tiff(streams, shape, codes, metadata.encode())


def spread_counts(
    counts: npt.NDArray[np.uint8], raw_frame_count: int, rng: np.random.Generator, codes: EerCodes | None = None
) -> list[tuple[Places, Places]]:
    """Spread the counts of one frame `(y, x)` over raw frames, as events for `encode_eer`: added up they give it again.

    The electrons of a pixel fall on different raw frames, evenly apart from a random one on, and anywhere within the pixel.
    Counts above the number of raw frames are lost, as in the camera.
    """
    codes = codes or EerCodes()
    _, x_bits, y_bits = codes.bits
    kept = np.minimum(counts, raw_frame_count).reshape(-1).astype(np.int64)
    pixel = np.repeat(np.arange(kept.size), kept)
    rank = np.arange(pixel.size) - np.repeat(np.cumsum(kept) - kept, kept)
    first = np.repeat(rng.integers(0, raw_frame_count, kept.size), kept)
    raw_frame = (first + rank * raw_frame_count // kept[pixel]) % raw_frame_count
    x = (pixel % counts.shape[1]) << x_bits | rng.integers(0, 1 << x_bits, pixel.size)
    y = (pixel // counts.shape[1]) << y_bits | rng.integers(0, 1 << y_bits, pixel.size)
    return [(x[raw_frame == number], y[raw_frame == number]) for number in range(raw_frame_count)]


def encode_events(x: Places, y: Places, shape: tuple[int, int], codes: EerCodes) -> bytes:
    """Return the codes of one raw frame; see `encode_eer` for the places."""
    run_bits, horizontal_bits, vertical_bits = codes.bits
    pixel = (y >> vertical_bits) * shape[1] + (x >> horizontal_bits)
    order = np.argsort(pixel, kind="stable")
    pixel, x, y = pixel[order], x[order], y[order]
    gaps = np.diff(pixel, prepend=-1, append=shape[0] * shape[1]) - 1
    if (gaps < 0).any():
        raise ValueError("a raw frame has at most one electron in a pixel, all of them on the sensor")
    x_place = (x & ((1 << horizontal_bits) - 1)) ^ ((1 << horizontal_bits) >> 1)
    y_place = (y & ((1 << vertical_bits) - 1)) ^ ((1 << vertical_bits) >> 1)
    place = np.append(x_place | y_place << horizontal_bits, 0)  # the last run ends at the last pixel: no electron there
    longest = (1 << run_bits) - 1
    counts = gaps // longest + 1  # runs to bridge a gap: longest ones, and one with the rest and the electron
    last = np.cumsum(counts) - 1
    values = np.full(counts.sum(), longest, np.int64)
    widths = np.full(counts.sum(), sum(codes.bits) if codes.padded else run_bits, np.int64)
    values[last] = gaps % longest | place << run_bits
    widths[last] = sum(codes.bits)
    stream = pack_codes(values, widths).tobytes()
    return stream + bytes(-len(stream) % _ALIGNMENT)


def _big_tiff(streams: Sequence[bytes], shape: tuple[int, int], codes: EerCodes, metadata: bytes) -> bytes:
    """Return a BigTIFF with one page per stream; the first page carries the camera's XML."""
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    for number, stream in enumerate(streams):
        entries = [
            (256, _LONG, shape[1]), (257, _LONG, shape[0]), (258, _SHORT, 8), (259, _SHORT, codes.compression),
            (262, _SHORT, 1), (273, _LONG8, len(out)), (277, _SHORT, 1), (278, _LONG, shape[0]), (279, _LONG8, len(stream)),
        ]  # fmt: skip
        if codes.compression not in _CODE_BITS:
            entries += [(65007 + i, _SHORT, bits) for i, bits in enumerate(codes.bits)]
        out += stream
        place = len(out)
        if number == 0:
            out += metadata + bytes(-len(metadata) % _ALIGNMENT)
        struct.pack_into("<Q", out, link, len(out))
        packed = [(tag, struct.pack("<HHQQ", tag, kind, 1, value)) for tag, kind, value in entries]
        if number == 0:
            packed.append((65001, struct.pack("<HHQQ", 65001, _UNDEFINED, len(metadata), place)))
        out += struct.pack("<Q", len(packed)) + b"".join(entry for _, entry in sorted(packed))
        link = len(out)
        out += bytes(8)
    return bytes(out)
