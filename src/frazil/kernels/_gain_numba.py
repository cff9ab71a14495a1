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


def add_corrected(total: Images, frame: Images, gain: Images, limit: float, fill: float) -> Images:
    """See `kernels.gain.add_corrected_frame`."""
    _add_corrected(frame, gain, np.float32(limit), np.float32(fill), total)
    return total


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
def _add_corrected(frame: Images, gain: Images, limit: np.float32, fill: np.float32, total: Images) -> None:
    row = np.empty(frame.shape[1], np.float32)
    for y in range(frame.shape[0]):
        _correct_row(frame[y], gain[y], limit, fill, row)
        _add_row(row, total[y])
