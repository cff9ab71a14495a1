"""Compiled twin of `kernels.gain`. Rows are passed as slices: indices that may wrap around would block SIMD."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Images = np.ndarray[Any, Any]


def correct(frame: Images, gain: Images, limit: float, fill: float) -> Images:
    """See `kernels.gain.correct_frame`."""
    out = np.empty(frame.shape, np.float32)
    _correct(frame, gain, np.float32(limit), np.float32(fill), out)
    return out


def add_and_bin(total: Images, frame: Images, gain: Images, factor: int, levels: tuple[float, float]) -> Images:
    """See `kernels.gain.add_and_bin_frame`; returns the blocks."""
    blocks = np.zeros((frame.shape[0] // factor, frame.shape[1] // factor), np.float32)
    _add_and_bin(frame, gain, factor, np.float32(levels[0]), np.float32(levels[1]), total, blocks)
    return blocks


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _correct_row(raw: Images, gain: Images, limit: np.float32, fill: np.float32, out: Images) -> None:
    for x in range(raw.shape[0]):
        value = np.float32(raw[x])
        out[x] = (value if -limit <= value <= limit else fill) * gain[x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _correct(frame: Images, gain: Images, limit: np.float32, fill: np.float32, out: Images) -> None:
    for y in range(frame.shape[0]):
        _correct_row(frame[y], gain[y], limit, fill, out[y])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_row(row: Images, total: Images) -> None:
    for x in range(row.shape[0]):
        total[x] += row[x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _bin_row(row: Images, factor: int, blocks: Images) -> None:
    for x in range(blocks.shape[0]):
        value = np.float32(0.0)
        for i in range(factor):
            value += row[factor * x + i]
        blocks[x] += value


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_and_bin(
    frame: Images, gain: Images, factor: int, limit: np.float32, fill: np.float32, total: Images, blocks: Images
) -> None:
    row = np.empty(frame.shape[1], np.float32)
    for y in range(frame.shape[0]):
        _correct_row(frame[y], gain[y], limit, fill, row)
        _add_row(row, total[y])
        if y // factor < blocks.shape[0]:
            _bin_row(row, factor, blocks[y // factor])
