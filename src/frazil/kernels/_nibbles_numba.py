"""Compiled part of `kernels.nibbles`. Rows are passed as slices: indices that may wrap around would block SIMD."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Image = np.ndarray[Any, Any]


@numba.njit(cache=True, nogil=True)
def _unpack_row(packed: Image, pixels: Image, first: np.uint8, second: np.uint8) -> None:
    for i in range(pixels.size // 2):
        pixels[2 * i] = (packed[i] >> first) & np.uint8(15)
        pixels[2 * i + 1] = (packed[i] >> second) & np.uint8(15)
    if pixels.size % 2:
        pixels[pixels.size - 1] = (packed[packed.size - 1] >> first) & np.uint8(15)


@numba.njit(cache=True, nogil=True)
def unpack(packed: Image, pixels: Image, first: np.uint8, second: np.uint8) -> None:
    """See `kernels.nibbles.unpack_nibbles`; `first` and `second` are the shifts of the left and the right pixel."""
    for y in range(packed.shape[0]):
        _unpack_row(packed[y], pixels[y], first, second)
