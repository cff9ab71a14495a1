"""Compiled twin of `kernels.gain`. Rows are passed as slices: indices that may wrap around would block SIMD."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from frazil.kernels.gain import RawFrames

Images = np.ndarray[Any, Any]


def correct(frame: Images, gain: Images, limit: float, fill: float) -> Images:
    """See `kernels.gain.correct_frame`."""
    out = np.empty(frame.shape, np.float32)
    _correct(frame, gain, np.float32(limit), np.float32(fill), out)
    return out


def add_and_bin(total: Images, frame: Images, gain: Images, factor: int, levels: tuple[float, float]) -> Images:
    """See `kernels.gain.add_and_bin_frame`; returns the blocks."""
    blocks = np.empty((frame.shape[0] // factor, frame.shape[1] // factor), np.float32)
    _add_and_bin(frame, gain, factor, np.float32(levels[0]), np.float32(levels[1]), total, blocks)
    return blocks


def corrected_rows(frames: RawFrames, frame: int, first: int, last: int) -> Images:
    """See `kernels.gain.corrected_rows`."""
    rows = np.empty((last - first, frames.raw.shape[2]), np.float32)
    bad = (frames.bad, frames.bad_rows, frames.sources[frame])
    _read_rows(frames.raw[frame], frames.gain, frames.levels[frame], bad, first, rows)
    return rows


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
def read_row(
    frame: Images, gain: Images, levels: Images, bad: Images, bad_rows: Images, sources: Images, y: int, out: Images
) -> None:
    """Correct one row of a frame of `kernels.gain.RawFrames`, bad pixels included."""
    limit, fill, width = levels[0], levels[1], frame.shape[1]
    _correct_row(frame[y], gain[y], limit, fill, out)
    for i in range(bad_rows[y], bad_rows[y + 1]):
        from_y, from_x = sources[i] // width, sources[i] % width
        value = np.float32(frame[from_y, from_x])
        out[bad[i] - y * width] = (value if -limit <= value <= limit else fill) * gain[from_y, from_x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _read_rows(
    frame: Images, gain: Images, levels: Images, bad: tuple[Images, Images, Images], first: int, rows: Images
) -> None:
    for i in range(rows.shape[0]):
        read_row(frame, gain, levels, bad[0], bad[1], bad[2], first + i, rows[i])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_row(row: Images, total: Images) -> None:
    """Add one row to another."""
    for x in range(row.shape[0]):
        total[x] += row[x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def bin_row(row: Images, factor: int, blocks: Images) -> None:
    """Sum runs of `factor` px of a row; those of one and two become SIMD."""
    if factor == 1:
        blocks[:] = row[: blocks.shape[0]]
    elif factor == 2:
        for x in range(blocks.shape[0]):
            blocks[x] = row[2 * x] + row[2 * x + 1]
    else:
        for x in range(blocks.shape[0]):
            value = np.float32(0.0)
            for i in range(factor):
                value += row[factor * x + i]
            blocks[x] = value


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_and_bin(
    frame: Images, gain: Images, factor: int, limit: np.float32, fill: np.float32, total: Images, blocks: Images
) -> None:
    row = np.empty(frame.shape[1], np.float32)
    rows = np.zeros(frame.shape[1], np.float32)
    for y in range(frame.shape[0]):
        _correct_row(frame[y], gain[y], limit, fill, row)
        add_row(row, total[y])
        add_row(row, rows)
        if y % factor == factor - 1:
            bin_row(rows, factor, blocks[y // factor])
            rows[:] = np.float32(0.0)
