"""Passes over a frame while it is in cache: gain, stray counts, running total, a small copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.array import Array, is_numpy, namespace

COMPILED_DTYPES = frozenset({"uint8", "float32"})
"""What kernels read as recorded; other dtypes are converted to float32 first."""


@dataclass(frozen=True, slots=True)
class RawFrames:
    """Frames as recorded and all that corrects them, on the host: for compiled kernels that correct rows as they need them.

    Attributes
    ----------
    raw: (frame, y, x) of one of `COMPILED_DTYPES`.
    gain: `(y, x)` float32.
    levels: (frame, 2) float32, limit and fill of `correct_frame`.
    bad: (bad pixel,) int64, flat positions in rising order. bad_rows: (y + 1,) int64, where each row's begin in `bad`.
    sources: (frame, bad pixel) int64, flat position of the good pixel whose value each bad one takes.
    """

    raw: np.ndarray[Any, Any]
    gain: np.ndarray[Any, Any]
    levels: np.ndarray[Any, Any]
    bad: np.ndarray[Any, Any]
    bad_rows: np.ndarray[Any, Any]
    sources: np.ndarray[Any, Any]


def uncorrected(raw: np.ndarray[Any, Any]) -> RawFrames:
    """Return frames `(frame, y, x)` that need no correction, as `RawFrames`."""
    none, levels = np.zeros(0, np.int64), np.tile(np.array([np.inf, 0.0], np.float32), (len(raw), 1))
    bad_rows, sources = np.zeros(raw.shape[1] + 1, np.int64), np.zeros((len(raw), 0), np.int64)
    return RawFrames(raw, np.ones(raw.shape[1:], np.float32), levels, none, bad_rows, sources)


def corrected_rows(frames: RawFrames, frame: int, first: int, last: int) -> np.ndarray[Any, Any]:
    """Return rows `first` to before `last` of a frame, corrected, (row, x) float32, on the CPU."""
    from frazil.kernels._gain_numba import corrected_rows as compiled

    return compiled(frames, frame, first, last)


def correct_frame(frame: Array, gain: Array, limit: float, fill: float) -> Array:
    """Multiply a frame by the gain; values beyond `limit` in size, or no numbers, count as `fill`.

    Parameters
    ----------
    frame: `(y, x)`, any real dtype, as recorded.
    gain: `(y, x)` float32; 0 where a pixel is bad.
    limit, fill: in recorded units.

    Returns
    -------
    `(y, x)` float32.
    """
    if is_numpy(frame):
        from frazil.kernels._gain_numba import correct

        return correct(_compilable(frame), gain, limit, fill)
    return correct_frame_standard(frame, gain, limit, fill)


def add_and_bin_frame(total: Array, frame: Array, gain: Array, factor: int, levels: tuple[float, float]) -> tuple[Array, Array]:
    """Correct a frame as `correct_frame` does, add it to a total, and sum its blocks of `factor` x `factor` pixels.

    Parameters
    ----------
    total: `(y, x)` float32; on numpy it is added to in place.
    frame, gain: as of `correct_frame`.
    factor: side of a block; a remainder at the high end of an axis is left out of the blocks.
    levels: (limit, fill) of `correct_frame`.

    Returns
    -------
    The new total, and the blocks `(y // factor, x // factor)` float32.
    """
    if is_numpy(frame):
        from frazil.kernels._gain_numba import add_and_bin

        return total, add_and_bin(total, _compilable(frame), gain, factor, levels)
    corrected = correct_frame_standard(frame, gain, *levels)
    return total + corrected, bin_image(corrected, factor)


def correct_frame_standard(frame: Array, gain: Array, limit: float, fill: float) -> Array:
    """The twin of `correct_frame` in array-standard functions."""
    xp = namespace(frame)
    values = xp.astype(frame, xp.float32)
    plausible = (values <= limit) & (values >= -limit)  # false for what is not a number
    return xp.where(plausible, values, xp.asarray(fill, dtype=xp.float32)) * gain


def bin_image(image: Array, factor: int) -> Array:
    """Sum blocks of `factor` x `factor` pixels; a remainder at the high end of an axis is left out."""
    xp = namespace(image)
    height, width = (n // factor for n in image.shape)
    blocks = xp.reshape(image[: height * factor, : width * factor], (height, factor, width, factor))
    return xp.sum(xp.sum(blocks, axis=3, dtype=image.dtype), axis=1, dtype=image.dtype)


def _compilable(frame: Array) -> Array:
    """Return a frame of a dtype that numba knows: float16 (MRC mode 12) becomes float32, which holds all its values."""
    return frame.astype("float32") if frame.dtype == "float16" else frame
