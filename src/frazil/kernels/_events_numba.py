"""Compiled part of `kernels.events`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]


@numba.njit(cache=True, nogil=True, boundscheck=False)
def add(codes: Array, counts: Array, run_bits: int, horizontal_bits: int, vertical_bits: int, shift: int, padded: bool) -> bool:
    """See `kernels.events.add_events`. Rows and columns are counted along: a division per electron would cost more."""
    upsampling = 1 << shift
    height, width = counts.shape[0] // upsampling, counts.shape[1] // upsampling
    longest = (1 << run_bits) - 1
    x_mask, y_mask = (1 << horizontal_bits) - 1, (1 << vertical_bits) - 1
    x_flip = (1 << horizontal_bits) >> 1
    y_flip = (1 << vertical_bits) >> 1
    x_drop, y_drop = horizontal_bits - shift, vertical_bits - shift
    end = 8 * (codes.size - 8)
    code_bits = run_bits + horizontal_bits + vertical_bits
    longest_bits = code_bits if padded else run_bits
    bit, x, y = 0, 0, 0
    while y < height:
        if bit >= end:
            return False
        byte = bit >> 3
        word = (
            np.uint32(codes[byte])
            | np.uint32(codes[byte + 1]) << np.uint32(8)
            | np.uint32(codes[byte + 2]) << np.uint32(16)
            | np.uint32(codes[byte + 3]) << np.uint32(24)
        ) >> np.uint32(bit & 7)
        run = int(word) & longest
        x += run
        while x >= width:
            x -= width
            y += 1
        if run == longest:
            bit += longest_bits
            continue
        if y >= height:
            break
        place = int(word) >> run_bits
        x_place = ((place & x_mask) ^ x_flip) >> x_drop
        y_place = (((place >> horizontal_bits) & y_mask) ^ y_flip) >> y_drop
        counts[(y << shift) + y_place, (x << shift) + x_place] += 1
        bit += code_bits
        x += 1
        if x == width:
            x = 0
            y += 1
    return y == height and x == 0


@numba.njit(cache=True, nogil=True, boundscheck=False)
def pack(values: Array, widths: Array, stream: Array) -> None:
    """See `kernels.events.pack_codes`."""
    pending, filled, byte = np.uint64(0), np.uint64(0), 0
    for i in range(values.size):
        pending |= np.uint64(values[i]) << filled
        filled += np.uint64(widths[i])
        while filled >= np.uint64(8):
            stream[byte] = np.uint8(pending & np.uint64(255))
            pending >>= np.uint64(8)
            filled -= np.uint64(8)
            byte += 1
    if filled:
        stream[byte] = np.uint8(pending)
