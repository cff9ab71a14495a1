"""Compiled twin of `kernels.tiles`. Rows are passed as slices: indices that may wrap around would block SIMD."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from frazil.kernels._gain_numba import add_row, bin_row, read_row
from frazil.kernels.gain import RawFrames

Images = np.ndarray[Any, Any]


def bin_raw(frames: RawFrames, factor: int, binned: Images) -> None:
    """See `kernels.tiles.bin_raw`."""
    _bin(frames.raw, frames.gain, frames.levels, (frames.bad, frames.bad_rows, frames.sources), factor, binned)


def cut_tiles(binned: Images, origins: Images, window_y: Images, window_x: Images) -> Images:
    """See `kernels.tiles.cut_tiles`."""
    tiles = np.empty((len(origins), len(window_y), len(window_x)), np.float32)
    _cut(binned, origins, window_y, window_x, tiles)
    return tiles


def take_modes(transforms: Images, positions: Images) -> Images:
    """See `kernels.tiles.take_modes`."""
    out = np.empty((len(transforms), len(positions)), transforms.dtype)
    _take(transforms, positions, out)
    return out


def align(values: Images, phases_y: Images, phases_x: Images, wave_y: Images, wave_x: Images) -> Images:
    """See `kernels.tiles.align`."""
    out = np.empty(values.shape, np.complex64)
    _align(values, phases_y, phases_x, wave_y, wave_x, out)
    return out


def slopes(aligned: Images, weighted: Images, ky: Images, kx: Images) -> Images:
    """Return the sums over modes of k Im(conj(aligned) weighted), (frame, tile, 2) as (y, x)."""
    out = np.empty((*aligned.shape[:2], 2), np.float32)
    _slopes(aligned, weighted, ky, kx, out)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _bin(raw: Images, gain: Images, levels: Images, bad: tuple[Images, Images, Images], factor: int, binned: Images) -> None:
    row, rows = np.empty(raw.shape[2], np.float32), np.empty(raw.shape[2], np.float32)
    blocks = np.empty(binned.shape[1], np.float32)
    for y in range(binned.shape[0]):
        rows[:] = np.float32(0.0)
        for t in range(raw.shape[0]):
            for i in range(factor):
                read_row(raw[t], gain, levels[t], bad[0], bad[1], bad[2][t], y * factor + i, row)
                add_row(row, rows)
        bin_row(rows, factor, blocks)
        add_row(blocks, binned[y])


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _sum(row: Images) -> np.float32:
    total = np.float32(0.0)
    for x in range(row.shape[0]):
        total += row[x]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cut_row(row: Images, mean: np.float32, height: np.float32, window: Images, out: Images) -> None:
    for x in range(out.shape[0]):
        out[x] = (row[x] - mean) * (height * window[x])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cut(binned: Images, origins: Images, window_y: Images, window_x: Images, tiles: Images) -> None:
    count, height, width = tiles.shape
    for p in range(count):
        y0, x0 = origins[p, 0], origins[p, 1]
        total = np.float64(0.0)
        for y in range(height):
            total = total + _sum(binned[y0 + y, x0 : x0 + width])
        mean = np.float32(total / (height * width))
        for y in range(height):
            _cut_row(binned[y0 + y, x0 : x0 + width], mean, window_y[y], window_x, tiles[p, y])


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _align_row(values: Images, phase_y: Images, phase_x: Images, wave_y: Images, wave_x: Images, out: Images) -> None:
    for m in range(out.shape[0]):
        out[m] = values[m] * (phase_y[wave_y[m]] * phase_x[wave_x[m]])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _align(values: Images, phases_y: Images, phases_x: Images, wave_y: Images, wave_x: Images, out: Images) -> None:
    for t in range(out.shape[0]):
        for p in range(out.shape[1]):
            _align_row(values[t, p], phases_y[t, p], phases_x[t, p], wave_y, wave_x, out[t, p])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _take(transforms: Images, positions: Images, out: Images) -> None:
    for p in range(out.shape[0]):
        for m in range(out.shape[1]):
            out[p, m] = transforms[p, positions[m]]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _slopes_row(aligned: Images, weighted: Images, ky: Images, kx: Images, out: Images) -> None:
    along_y, along_x = np.float32(0.0), np.float32(0.0)
    for m in range(aligned.shape[0]):
        twist = aligned[m].real * weighted[m].imag - aligned[m].imag * weighted[m].real
        along_y += ky[m] * twist
        along_x += kx[m] * twist
    out[0] = along_y
    out[1] = along_x


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _slopes(aligned: Images, weighted: Images, ky: Images, kx: Images, out: Images) -> None:
    for t in range(out.shape[0]):
        for p in range(out.shape[1]):
            _slopes_row(aligned[t, p], weighted[t, p], ky, kx, out[t, p])
