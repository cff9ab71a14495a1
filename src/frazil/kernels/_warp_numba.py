"""Compiled twin of `kernels.warp`. Rows are passed as slices: indices that may wrap around would block SIMD."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Images = np.ndarray[Any, Any]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _taps(fraction: np.float32, taps: Images) -> None:
    f, g = fraction, np.float32(1) - fraction
    sixth = np.float32(1 / 6)
    taps[0] = g * g * g * sixth
    taps[1] = (np.float32(4) - np.float32(6) * f * f + np.float32(3) * f * f * f) * sixth
    taps[2] = (np.float32(4) - np.float32(6) * g * g + np.float32(3) * g * g * g) * sixth
    taps[3] = f * f * f * sixth


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _interpolate(
    r0: Images, r1: Images, r2: Images, r3: Images, taps_y: Images, taps_x: Images, column: Images, out: Images
) -> None:
    """Interpolate a run: along y for three px more than the run, then along x."""
    a, b, c, d = taps_y[0], taps_y[1], taps_y[2], taps_y[3]
    for x in range(r0.shape[0]):
        column[x] = a * r0[x] + b * r1[x] + c * r2[x] + d * r3[x]
    a, b, c, d = taps_x[0], taps_x[1], taps_x[2], taps_x[3]
    c0, c1, c2, c3 = column[0:], column[1:], column[2:], column[3:]
    for x in range(out.shape[0]):
        out[x] = a * c0[x] + b * c1[x] + c * c2[x] + d * c3[x]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _accumulate(weights: Images, r0: Images, r1: Images, r2: Images, r3: Images, total: Images) -> None:
    a, b, c, d = weights[0], weights[1], weights[2], weights[3]
    for x in range(total.shape[0]):
        total[x] += a * r0[x] + b * r1[x] + c * r2[x] + d * r3[x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _along_row(warp: Images, axis: int, y: np.float32, out: Images) -> None:
    """Reduce the polynomial of one axis to a cubic in x at a given y."""
    c = warp[:, axis]
    out[0] = c[0] + y * (c[2] + y * (c[5] + y * c[9]))
    out[1] = c[1] + y * (c[4] + y * c[8])
    out[2] = c[3] + y * c[7]
    out[3] = c[6]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _warp_row(
    image: Images, warp: Images, y: int, size: tuple[int, int], margin: tuple[int, int], run: int, work: Images, row: Images
) -> None:
    """Interpolate row y of the field; `row` begins as far before the field as it is longer than it on either side."""
    height, width = size
    apron = (row.shape[0] - width) // 2
    shift_y, shift_x, taps_y, taps_x, column = work[0], work[1], work[2], work[3], work[4]
    relative = np.float32(y / height - 0.5)
    _along_row(warp, 0, relative, shift_y)
    _along_row(warp, 1, relative, shift_x)
    for start in range(0, row.shape[0], run):
        length = min(run, row.shape[0] - start)
        x0 = start - apron
        u = np.float32((x0 + 0.5 * (length - 1)) / width - 0.5)
        at_y = y + margin[0] - (shift_y[0] + u * (shift_y[1] + u * (shift_y[2] + u * shift_y[3])))
        at_x = x0 + margin[1] - (shift_x[0] + u * (shift_x[1] + u * (shift_x[2] + u * shift_x[3])))
        whole_y, whole_x = int(np.floor(at_y)), int(np.floor(at_x))
        _taps(np.float32(at_y - whole_y), taps_y)
        _taps(np.float32(at_x - whole_x), taps_x)
        top = min(max(whole_y - 1, 0), image.shape[0] - 4)
        left = min(max(whole_x - 1, 0), image.shape[1] - length - 3)
        right = left + length + 3
        _interpolate(
            image[top, left:right],
            image[top + 1, left:right],
            image[top + 2, left:right],
            image[top + 3, left:right],
            taps_y,
            taps_x,
            column[: length + 3],
            row[start : start + length],
        )


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_rows(  # noqa: PLR0913 - a flat kernel
    sums: Images,
    images: Images,
    warps: Images,
    weights: Images,
    margin: tuple[int, int],
    apron: int,
    run: int,
    first: int,
    last: int,
) -> None:
    """Add the frames to rows `first` to before `last` of the sums; see `kernels.warp.add_warped`."""
    rank = sums.shape[0]
    size = (sums.shape[1] - 2 * apron, sums.shape[2] - 2 * apron)
    work = np.empty((5, run + 4), np.float32)
    rows = np.zeros((4, sums.shape[2]), np.float32)  # four frames at a time: the sums are read and written less often
    four = np.zeros((rank, 4), np.float32)
    for y in range(first, last):
        for start in range(0, images.shape[0], 4):
            count = min(4, images.shape[0] - start)
            four[:, count:] = np.float32(0)
            for i in range(count):
                four[:, i] = weights[:, start + i]
                _warp_row(images[start + i], warps[start + i], y - apron, size, margin, run, work, rows[i])
            for r in range(rank):
                _accumulate(four[r], rows[0], rows[1], rows[2], rows[3], sums[r, y])


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _tap_pair(weight: np.float32, first: Images, second: Images, out: Images) -> None:
    for x in range(out.shape[0]):
        out[x] += weight * (first[x] + second[x])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def sharpen_rows(total: Images, taps: Images, first: int, last: int, out: Images) -> None:
    """Filter rows `first` to before `last` of the field along both axes; see `kernels.warp.sharpened`."""
    apron = taps.shape[0] // 2
    width = out.shape[1]
    column = np.empty(total.shape[1], np.float32)
    for y in range(first, last):
        column[:] = taps[apron] * total[y + apron]
        for i in range(apron):
            _tap_pair(taps[i], total[y + i], total[y + 2 * apron - i], column)
        out[y] = taps[apron] * column[apron : apron + width]
        for i in range(apron):
            _tap_pair(taps[i], column[i : i + width], column[2 * apron - i : 2 * apron - i + width], out[y])
