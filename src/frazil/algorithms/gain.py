"""Gain references: normalised and applied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.array import Array, namespace, to_host
from frazil.kernels.gain import correct_frame
from frazil.model.errors import InputError

_STRAY_SLACK = 10.0
_MEDIAN_SIDE_PX = 512  # of the sample that a gain's median is taken of


@dataclass(frozen=True, slots=True)
class FrameLevels:
    """What the counts of a frame are like, in recorded units.

    `mean` and `spread` (standard deviation) are those of ordinary pixels; a value beyond `limit` in size is no count of
    electrons but a stray event, as an X-ray makes.
    """

    mean: float
    spread: float
    limit: float


def normalize_gain(gain: Array) -> Array:
    """Scale a multiplicative gain reference to median 1; pixels that are not finite or not positive become 0, a defect.

    Parameters
    ----------
    gain: `(y, x)` real.

    Returns
    -------
    `(y, x)` float32.

    Raises
    ------
    InputError : no pixel is usable.
    """
    xp = namespace(gain)
    gain = xp.astype(gain, xp.float32)
    usable = xp.isfinite(gain) & (gain > 0)
    step = max(1, min(gain.shape) // _MEDIAN_SIDE_PX)
    values = to_host(gain[::step, ::step])[to_host(usable[::step, ::step])]
    if not values.size:
        raise InputError("GAIN_EMPTY", "The gain reference holds no positive value: give another or none.")
    return xp.where(usable, gain / float(np.median(values)), xp.asarray(0.0, dtype=xp.float32))


def apply_gain(frame: Array, gain: Array) -> Array:
    """Correct one frame: recorded value times gain, as float32 `(y, x)`; nothing else is changed."""
    return correct_frame(frame, gain, math.inf, 0.0)


def frame_levels(frame: Array) -> FrameLevels:
    """Measure the counts of one frame, `(y, x)`, on a sparse sample.

    The limit is ten standard deviations and ten units above the mean, and at least ten means: Poisson counts of any mean
    stay below it.
    """
    step = max(1, min(frame.shape) // 128)
    values, counts = _tally(to_host(frame[::step, ::step]).ravel())
    limit, mean, spread = math.inf, 0.0, 0.0
    for _ in range(3):
        kept = np.abs(values) <= limit
        values, counts = values[kept], counts[kept]
        if not values.size:
            break
        mean = float(values @ counts) / float(counts.sum())
        spread = math.sqrt(float((values - mean) ** 2 @ counts) / float(counts.sum()))
        distance = np.abs(values - _median(values, counts))
        order = np.argsort(distance)
        robust = 1.4826 * _median(distance[order], counts[order])
        limit = max(abs(mean) + 10 * max(robust, abs(mean) ** 0.5), 10 * abs(mean)) + _STRAY_SLACK
    return FrameLevels(mean, spread, limit)


def _tally(sample: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the finite values that occur, float64 in rising order, and how often each does."""
    if sample.dtype == np.uint8:
        counts = np.bincount(sample)
        values = np.flatnonzero(counts)
        return values.astype(np.float64), counts[values]
    return np.unique(sample[np.isfinite(sample)].astype(np.float64), return_counts=True)


def _median(values: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> float:
    """Return the median of values in rising order, each as often as its count says."""
    passed = np.cumsum(counts)
    middle = np.array([(passed[-1] - 1) // 2, passed[-1] // 2])
    return float(values[np.searchsorted(passed, middle, side="right")].mean())
