"""Movies finer than the sensor, from super-resolution or upsampled events: corrected, then cropped in Fourier space."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.algorithms.defects import DefectParameters, find_bad_pixels
from frazil.algorithms.gain import frame_levels
from frazil.algorithms.motion.frames import CorrectedFrames
from frazil.array import is_numpy, to_device, to_host
from frazil.kernels.gain import add_and_bin_frame, corrected_rows
from frazil.model.errors import InputError
from frazil.primitives.fourier import crop_axis, fourier_crop

SIZES = frozenset({(7420, 7676), (7676, 7420), (8184, 11520), (11520, 8184)})
"""(y, x) px of super-resolution frames of the K2 and the K3, as recorded and rotated."""

_STRIP_PX = 64
_SPREAD_PX = 1  # a bad pixel of the sensor shows in the sub-pixels around it
_FLOAT16_COUNTS_MAX = 30_000.0


def crop_movie(
    movie: Any,
    gain: np.ndarray[Any, Any] | None,
    bad_mask: np.ndarray[Any, Any] | None,
    factor: int,
    *,
    xp: Any = np,
    seed: int = 0,
) -> np.ndarray[Any, Any]:
    """Correct gain and defects of a movie and keep the frequencies that the sensor's own pixels can hold.

    Never by adding up pixels in real space: that folds the noise beyond the new Nyquist frequency back into the image.
    Counts are kept: a pixel of the result has the counts of the pixels that it covers, on average, and their variance.

    Parameters
    ----------
    movie: `(frame, y, x)` on the host, as recorded.
    gain: `(y, x)` multiplicative, 0 at defects, or None.
    bad_mask: `(y, x)` bool, true where a pixel is known to be bad, or None.
    factor: of each side.
    xp: the array module that computes.
    seed: of the draws that replace bad pixels.

    Returns
    -------
    `(frame, y / factor, x / factor)` on the host: float16, whose rounding is far below the noise of counts, or float32
    where the counts are too large for it.

    Raises
    ------
    InputError : a side is no multiple of the factor, or no good pixel is left.
    """
    count, height, width = movie.shape
    if height % factor or width % factor:
        raise InputError(
            "LOAD_CROP", f"A movie of {width:,} x {height:,} px cannot be cropped by {factor}: choose load crop 1."
        )
    frames = _corrected(movie, gain, bad_mask, xp, seed)
    counts_max = max(min(level.limit, 1e9) for level in frames.levels) * factor**2
    cropped = np.empty(
        (count, height // factor, width // factor), np.float16 if counts_max < _FLOAT16_COUNTS_MAX else np.float32
    )
    for t in range(count):
        _crop_frame(frames, t, factor, cropped[t])
    return cropped


def _crop_frame(frames: CorrectedFrames, t: int, factor: int, out: np.ndarray[Any, Any]) -> None:
    """Crop a frame in Fourier space, axis by axis: on the CPU some rows, then some columns, while they are in cache."""
    shape = (out.shape[0], out.shape[1])
    if not is_numpy(frames.gain):
        out[...] = to_host(fourier_crop(frames.frame(t), shape) * float(factor**2))
        return
    height = frames.shape[0]
    narrow = np.empty((height, shape[1]), np.float32)
    for _, raw in frames.raw_blocks([t]):
        for start in range(0, height, _STRIP_PX):
            stop = min(start + _STRIP_PX, height)
            narrow[start:stop] = crop_axis(corrected_rows(raw, 0, start, stop), shape[1], 1)
    for start in range(0, shape[1], _STRIP_PX):
        columns = slice(start, start + _STRIP_PX)
        out[:, columns] = crop_axis(narrow[:, columns], shape[0], 0) * np.float32(factor**2)


def _corrected(movie: Any, gain: Any, bad_mask: Any, xp: Any, seed: int) -> CorrectedFrames:
    """Find the bad pixels in the sum of the frames, as motion correction does."""
    device_gain = xp.ones(tuple(movie.shape[1:]), dtype=xp.float32) if gain is None else to_device(np.asarray(gain), xp)
    if bad_mask is not None:
        device_gain = xp.where(to_device(np.asarray(bad_mask), xp), xp.asarray(0.0, dtype=xp.float32), device_gain)
    levels = tuple(frame_levels(movie[t]) for t in range(movie.shape[0]))
    total = xp.zeros(tuple(movie.shape[1:]), dtype=xp.float32)
    for t, level in enumerate(levels):
        total, _ = add_and_bin_frame(
            total, to_device(movie[t], xp), device_gain, min(movie.shape[1:]), (level.limit, level.mean)
        )
    bad = find_bad_pixels(total, device_gain <= 0, DefectParameters(dilate_px=_SPREAD_PX))
    on_host = to_host(bad)
    good_gain = xp.where(bad, xp.asarray(0.0, dtype=xp.float32), device_gain)
    return CorrectedFrames(movie, good_gain, on_host, np.flatnonzero(on_host), levels, seed)
