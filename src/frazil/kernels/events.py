"""Electron events as run-length codes (EER), added up into counts. On the host: what goes to the device are the counts."""

from __future__ import annotations

from typing import Any

import numpy as np

READ_AHEAD_BYTES = 8


def pack_codes(values: np.ndarray[Any, Any], widths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pack numbers of different widths into a stream of bits, lowest bit first; what `add_events` reads.

    Parameters
    ----------
    values: (code,) int64, not negative, each below 2 to the power of its width.
    widths: (code,) int64, bits, at most 32.

    Returns
    -------
    (byte,) uint8; the last byte is filled up with zeros.
    """
    from frazil.kernels._events_numba import pack

    stream = np.zeros(-(-int(widths.sum()) // 8), np.uint8)
    pack(values, widths, stream)
    return stream


def add_events(
    codes: np.ndarray[Any, Any], counts: np.ndarray[Any, Any], bits: tuple[int, int, int], upsampling: int, *, padded: bool
) -> bool:
    """Add the electrons of one raw frame to `counts`, in place.

    The codes are a stream of bits, lowest bit first: a run of empty pixels, then, unless the run is as long as its bits can
    say, an electron and its place within the pixel, x before y, counted with the highest bit of each reversed.

    Parameters
    ----------
    codes: (byte,) uint8, with `READ_AHEAD_BYTES` zeros appended.
    counts: `(y, x)` uint8 or uint16, contiguous, of the sensor's size times `upsampling`.
    bits: of a run (at most 15), of the place in x and in y (at most 4 each).
    upsampling: a power of 2, at most 2 to the power of the bits of a place.
    padded: whether the bits of a place also follow a longest run, unused.

    Returns
    -------
    Whether the runs end exactly at the last pixel; if not, the frame is broken and the counts of no use.

    Source: RELION's MovieCompression notes; checked against imagecodecs and relion_convert_to_tiff.
    """
    from frazil.kernels._events_numba import add

    shift = upsampling.bit_length() - 1
    run_bits, horizontal_bits, vertical_bits = bits
    if min(horizontal_bits, vertical_bits) < shift or run_bits > 15 or max(horizontal_bits, vertical_bits) > 4:
        raise ValueError(f"codes of {bits} bits cannot be placed on a grid {upsampling} times finer")
    return bool(add(codes, counts, run_bits, horizontal_bits, vertical_bits, shift, padded))
