"""Pixels of four bits, two to a byte."""

from __future__ import annotations

from typing import Any

import numpy as np

Image = np.ndarray[Any, Any]


def unpack_nibbles(packed: Image, width_px: int, *, low_first: bool) -> Image:
    """Unpack 4-bit pixels.

    Parameters
    ----------
    packed: `(y, ceil(width_px / 2))` uint8; the last half byte of a row of odd width is unused.
    low_first: the left pixel is in the low four bits (MRC mode 101), else in the high ones (TIFF 6.0).

    Returns
    -------
    `(y, width_px)` uint8, 0 to 15.
    """
    from frazil.kernels._nibbles_numba import unpack

    pixels = np.empty((len(packed), width_px), np.uint8)
    first, second = (0, 4) if low_first else (4, 0)
    unpack(packed, pixels, np.uint8(first), np.uint8(second))
    return pixels
