"""Gain references: normalised and applied."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from frazil.array import Array, namespace, to_host
from frazil.kernels.gain import correct_frame
from frazil.model.errors import InputError

_STRAY_SLACK = 10.0


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
    values = to_host(gain)[to_host(usable)]
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
    sample = to_host(frame[::step, ::step]).astype(np.float64).ravel()
    sample = sample[np.isfinite(sample)]
    limit, mean, spread = math.inf, 0.0, 0.0
    for _ in range(3):
        kept = sample[np.abs(sample) <= limit]
        if not kept.size:
            break
        mean, spread = float(kept.mean()), float(kept.std())
        robust = 1.4826 * float(np.median(np.abs(kept - np.median(kept))))
        limit = max(abs(mean) + 10 * max(robust, abs(mean) ** 0.5), 10 * abs(mean)) + _STRAY_SLACK
    return FrameLevels(mean, spread, limit)
