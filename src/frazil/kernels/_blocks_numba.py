"""Compiled twin of `kernels.blocks`. Rows are passed as slices: indices that may wrap around would block SIMD."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Images = np.ndarray[Any, Any]


def block_sums(image: Images, good: Images, block_px: int) -> tuple[Images, Images]:
    """See `kernels.blocks.block_sums`."""
    shape = image.shape[0] // block_px, image.shape[1] // block_px
    sums, counts = np.zeros(shape, image.dtype), np.zeros(shape, image.dtype)
    _block_sums(image, good, block_px, sums, counts)
    return sums, counts


def interpolate(blocks: Images, shape: tuple[int, int], block_px: int, offset: float) -> Images:
    """See `kernels.blocks.interpolate_blocks`."""
    out = np.empty(shape, blocks.dtype)
    _interpolate(blocks, block_px, blocks.dtype.type(offset), out)
    return out


def outliers(image: Images, mean: Images, good: Images, limit: float) -> Images:
    """See `kernels.blocks.outliers`."""
    out = np.empty(image.shape, np.bool_)
    _outliers(image, mean, good, image.dtype.type(limit * limit), out)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_good(image: Images, good: Images, total: Images, count: Images) -> None:
    for x in range(image.shape[0]):
        total[x] += image[x] if good[x] else 0
        count[x] += good[x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _block_sums(image: Images, good: Images, block_px: int, sums: Images, counts: Images) -> None:
    total, count = np.zeros(image.shape[1], image.dtype), np.zeros(image.shape[1], image.dtype)
    for y in range(sums.shape[0]):
        total[:] = 0
        count[:] = 0
        for i in range(block_px):
            _add_good(image[y * block_px + i], good[y * block_px + i], total, count)
        for x in range(sums.shape[1]):
            sums[y, x] = total[x * block_px : (x + 1) * block_px].sum()
            counts[y, x] = count[x * block_px : (x + 1) * block_px].sum()


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _line(first: Any, slope: Any, out: Images) -> None:
    for x in range(out.shape[0]):
        out[x] = first + slope * x


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _interpolate(blocks: Images, block_px: int, offset: Any, out: Images) -> None:
    rows, columns = blocks.shape
    height, width = out.shape
    one = blocks.dtype.type(1)
    middle = (block_px - 1) / 2
    row = np.empty(columns, blocks.dtype)
    for y in range(height):
        if rows == 1:
            row[:] = blocks[0] + offset
        else:
            at = (y - middle) / block_px
            top = min(max(int(np.floor(at)), 0), rows - 2)
            share = blocks.dtype.type(at - top)
            row[:] = blocks[top] * (one - share) + blocks[top + 1] * share + offset
        if columns == 1:
            out[y] = row[0]
            continue
        for i in range(columns - 1):
            start = 0 if i == 0 else int(np.ceil(i * block_px + middle))
            stop = width if i == columns - 2 else int(np.ceil((i + 1) * block_px + middle))
            slope = (row[i + 1] - row[i]) / blocks.dtype.type(block_px)
            first = row[i] + slope * blocks.dtype.type(start - i * block_px - middle)
            _line(first, slope, out[y, start:stop])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _outlying(image: Images, mean: Images, good: Images, limit2: Any, out: Images) -> None:
    for x in range(image.shape[0]):
        deviation = image[x] - mean[x]
        out[x] = good[x] & (deviation * deviation > limit2 * max(mean[x], image.dtype.type(1)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _outliers(image: Images, mean: Images, good: Images, limit2: Any, out: Images) -> None:
    for y in range(image.shape[0]):
        _outlying(image[y], mean[y], good[y], limit2, out[y])
