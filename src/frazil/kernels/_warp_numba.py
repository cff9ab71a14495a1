"""Compiled twin of `kernels.warp`.

Rows are read, corrected, interpolated and added while they are in cache. Offsets are unsigned: indices that may wrap around
would block SIMD, and slices in the innermost loops cost more than the arithmetic.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from frazil.kernels._gain_numba import read_row

Images = np.ndarray[Any, Any]
RUN_PX = 32  # px of a row that are interpolated together
_COLUMN_PX = RUN_PX + 8  # along y for three px more, in whole vectors
_U = np.uintp


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _taps(fraction: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    f, g = fraction, np.float32(1) - fraction
    sixth = np.float32(1 / 6)
    inner = (np.float32(4) - np.float32(6) * f * f + np.float32(3) * f * f * f) * sixth
    outer = (np.float32(4) - np.float32(6) * g * g + np.float32(3) * g * g * g) * sixth
    return g * g * g * sixth, inner, outer, f * f * f * sixth


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _along_y(rows: Images, first: int, stride: int, taps: Any, columns: Images, at: int) -> None:
    a, b, c, d = taps
    i, j, k, m = _U(first), _U(first + stride), _U(first + 2 * stride), _U(first + 3 * stride)
    start = _U(at)
    for x in range(_U(_COLUMN_PX)):
        columns[start + x] = a * rows[i + x] + b * rows[j + x] + c * rows[k + x] + d * rows[m + x]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _along_x(columns: Images, at: int, taps: Images, row: Images, to: int) -> None:
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    i, start = _U(at), _U(to)
    for x in range(_U(RUN_PX)):
        j = i + x
        row[start + x] = a * columns[j] + b * columns[j + _U(1)] + c * columns[j + _U(2)] + d * columns[j + _U(3)]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _accumulate(weight: np.float32, row: Images, total: Images) -> None:
    for x in range(total.shape[0]):
        total[x] += weight * row[x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _along_row(warp: Images, axis: int, y: np.float32, out: Images) -> None:
    """Reduce the polynomial of one axis to a cubic in x at a given y."""
    c = warp[:, axis]
    out[0] = c[0] + y * (c[2] + y * (c[5] + y * c[9]))
    out[1] = c[1] + y * (c[4] + y * c[8])
    out[2] = c[3] + y * c[7]
    out[3] = c[6]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cubic(c: Images, x: np.float32) -> Any:
    return c[0] + x * (c[1] + x * (c[2] + x * c[3]))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _first_row(warp: Images, first: int, last: int, height: int) -> int:
    """Return the first row of a frame that rows `first` to `last` of the field are interpolated from."""
    cubic = np.empty(4, np.float32)
    lowest = np.float32(np.inf)
    for y in (first, last):
        _along_row(warp, 0, np.float32(y / height - 0.5), cubic)
        for k in range(17):
            lowest = min(lowest, np.float32(y) - _cubic(cubic, np.float32(k / 16 - 0.5)))
    return int(np.floor(lowest)) - 2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _read_rows(
    frame: Images,
    correction: tuple[Images, Images, Images, Images, Images],
    span: tuple[int, int],
    margin: tuple[int, int],
    rows: Images,
) -> None:
    """Fill `rows` with as many rows of a frame, from a first one on, as `span` says; mirrored beyond the frame's edges."""
    gain, levels, bad, bad_rows, sources = correction
    height, width = frame.shape
    left = margin[1]
    for i in range(span[1]):
        y = min(max(span[0] + i, -margin[0]), height + margin[0] - 1)
        y = -1 - y if y < 0 else (2 * height - 1 - y if y >= height else y)
        row = rows[i]
        read_row(frame, gain, levels, bad, bad_rows, sources, y, row[left : left + width])
        for x in range(left):
            row[left - 1 - x] = row[left + x]
            row[left + width + x] = row[left + width - 1 - x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _warp_row(
    rows: Images,
    stride: int,
    warp: Images,
    place: tuple[int, int, int],
    field: tuple[int, int, int, int],
    step: int,
    work: tuple[Images, Images, Images],
    row: Images,
) -> None:
    """Interpolate row y of the field from rows of a frame, `place`: y, the first of these rows, how many they are.

    Runs are interpolated along y, all of the row, before any is along x: what was just written is slow to be read.
    """
    y, first, count = place
    height, width, apron, margin = field
    cubics, columns, taps = work
    relative = np.float32(y / height - 0.5)
    _along_row(warp, 0, relative, cubics[0])
    _along_row(warp, 1, relative, cubics[1])
    runs = -(-(width + 2 * apron) // step)
    for i in range(runs):
        x0 = i * step - apron
        u = np.float32((x0 + 0.5 * (step - 1)) / width - 0.5)
        at_y = np.float32(y) - _cubic(cubics[0], u)
        at_x = np.float32(x0 + margin) - _cubic(cubics[1], u)
        whole_y, whole_x = np.floor(at_y), np.floor(at_x)
        top = min(max(int(whole_y) - 1 - first, 0), count - 4)
        left = min(max(int(whole_x) - 1, 0), stride - _COLUMN_PX)
        _along_y(rows, top * stride + left, stride, _taps(at_y - whole_y), columns, i * _COLUMN_PX)
        taps[i, 0], taps[i, 1], taps[i, 2], taps[i, 3] = _taps(at_x - whole_x)
    for i in range(runs):
        _along_x(columns, i * _COLUMN_PX, taps[i], row, i * step)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_rows(  # noqa: PLR0913 - a flat kernel
    sums: Images,
    raw: Images,
    gain: Images,
    levels: Images,
    bad: tuple[Images, Images, Images],
    warps: Images,
    weights: Images,
    margin: tuple[int, int],
    layout: tuple[int, int, int, int],
    strip: tuple[int, int],
) -> None:
    """Add frames to the rows of a strip of the sums; see `kernels.warp.add_warped_raw`.

    `layout`: apron, px that share a shift, rows worked on together, how many rows of a frame more than these are read.
    """
    apron, step, together, beyond = layout
    height, width = raw.shape[1:]
    runs = -(-sums.shape[2] // step)
    stride = width + 2 * margin[1] + _COLUMN_PX
    rows = np.zeros((together + beyond, stride), np.float32)
    flat = rows.ravel()
    work = (np.empty((2, 4), np.float32), np.empty(runs * _COLUMN_PX, np.float32), np.empty((runs, 4), np.float32))
    row = np.zeros(sums.shape[2] + RUN_PX, np.float32)
    field = (height, width, apron, margin[1])
    for start in range(strip[0], strip[1], together):
        stop = min(start + together, strip[1])
        count = stop - start + beyond
        for t in range(raw.shape[0]):
            if not weights[:, t].any():
                continue
            first = _first_row(warps[t], start - apron, stop - 1 - apron, height)
            _read_rows(raw[t], (gain, levels[t], bad[0], bad[1], bad[2][t]), (first, count), margin, rows)
            for y in range(start, stop):
                _warp_row(flat, stride, warps[t], (y - apron, first, count), field, step, work, row)
                for r in range(sums.shape[0]):
                    _accumulate(weights[r, t], row, sums[r, y])


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
