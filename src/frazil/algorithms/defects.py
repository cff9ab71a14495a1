"""Pixels that do not count electrons: found from the sum of a movie's frames, replaced frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.array import Array, namespace, to_device, to_host
from frazil.kernels.blocks import outliers
from frazil.kernels.hot_pixels import copy_pixels, draw_sources
from frazil.model.errors import InputError
from frazil.primitives.filters import local_mean

_NEIGHBOURHOOD_PX = 2
_CANDIDATE_SIGMA = 4.5
_DARK_MEAN_COUNTS = 18.0  # a good pixel then counts nothing once in 7e7
_SKEW_COUNTS = 2.0
_CREDIBLE_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectParameters:
    """When a pixel is bad. `sigma`: distance from its neighbours, in standard deviations of a pixel of the sum.

    `dilate_px` widens found pixels, for super-resolution and EER rendering, where a bad pixel spreads.
    """

    sigma: float = 6.0
    dilate_px: int = 0


def find_bad_pixels(total: Array, known_bad: Array | None = None, parameters: DefectParameters | None = None) -> Array:
    """Find hot, cold and dead pixels in the sum of the unaligned, gain-corrected frames.

    More than one pixel in a hundred is no defect of a detector but a movie without the noise of counts: none is marked then.

    A pixel is bad when it stands out from illumination and thickness *and* from the median of its 24 neighbours, so that
    particles, contamination, and edges of ice or carbon, all wider than a pixel, are left alone.

    Parameters
    ----------
    total: `(y, x)` float32, recorded counts times gain.
    known_bad: `(y, x)` bool or None: gain 0, defect map.
    parameters: thresholds.

    Returns
    -------
    `(y, x)` bool, the known ones included.

    Raises
    ------
    InputError : no good pixel is left.
    """
    parameters = parameters or DefectParameters()
    xp = namespace(total)
    good = xp.isfinite(total) if known_bad is None else xp.isfinite(total) & ~known_bad
    clean = xp.where(good, total, xp.asarray(0.0, dtype=total.dtype))
    mean, spread = _robust_background(clean, good)
    dead = good & (clean == 0) & (mean >= _DARK_MEAN_COUNTS)
    candidates = outliers(clean, mean, good, _CANDIDATE_SIGMA * spread) | dead
    found = _stand_out(to_host(clean), to_host(good), to_host(candidates), parameters.sigma, spread)
    if found.sum() > _CREDIBLE_SHARE * found.size:
        found[...] = False
    bad = to_host(~good) | _dilate(found, parameters.dilate_px)
    if bad.all():
        raise InputError(
            "MOVIE_NO_GOOD_PIXEL", "Every pixel of the movie is marked bad: check the gain reference and the defect map."
        )
    return to_device(bad, xp)


def replace_bad_pixels(
    image: Array, bad_positions: np.ndarray[Any, Any], bad: np.ndarray[Any, Any], generator: np.random.Generator
) -> Array:
    """Give every bad pixel of one frame the value of a good neighbour drawn at random.

    Drawn anew for every frame: a mean, or a fixed neighbour, would be a pattern that all frames share and that drags the
    alignment to zero. A neighbour's own value has the noise of one frame, whatever the detector.

    Parameters
    ----------
    image: `(y, x)`, changed in place where the backend allows.
    bad_positions: (bad pixel,) flat positions, host; `numpy.flatnonzero(bad)`.
    bad: `(y, x)` bool, host.
    generator: seeded by the movie, so that a rerun gives the same micrograph.

    Returns
    -------
    The image.
    """
    if not len(bad_positions):
        return image
    return copy_pixels(image, bad_positions, draw_sources(bad_positions, bad, generator))


def _robust_background(clean: Array, good: Array) -> tuple[Array, float]:
    """Return the local mean without the brightest outliers, and the spread about it in units of the root of the counts."""
    mean = local_mean(clean, good, 32)
    typical = good & ~outliers(clean, mean, good, 10 * _robust_spread(clean, mean, good))
    mean = local_mean(clean, typical, 32)
    return mean, _robust_spread(clean, mean, good)


def _robust_spread(clean: Array, mean: Array, good: Array) -> float:
    """Return the standard deviation of pixel noise over the root of the counts, on a sparse sample.

    From differences of good pixels 3 px apart: they see no structure wider than that, and their median absolute size no
    outliers.
    """
    step = max(1, min(clean.shape) // 400)
    clean, mean, good = (to_host(image[::step, :]) for image in (clean, mean, good))
    deviation = (clean - mean) / np.sqrt(np.maximum(mean, 1.0))
    kept = (deviation[:, 3:] - deviation[:, :-3])[good[:, 3:] & good[:, :-3]]
    spread = 1.4826 / math.sqrt(2) * float(np.median(np.abs(kept))) if kept.size else 0.0
    return max(spread, 1e-6)


def _stand_out(
    clean: np.ndarray[Any, Any], good: np.ndarray[Any, Any], candidates: np.ndarray[Any, Any], sigma: float, spread: float
) -> np.ndarray[Any, Any]:
    """Mark candidates that differ from the median of their good neighbours by more than `sigma` standard deviations.

    `spread` is the standard deviation in units of the root of the counts. Two units more allow for the skew of few counts.
    """
    marked = np.zeros(clean.shape, dtype=np.bool_)
    y, x = np.nonzero(candidates)
    reach = np.arange(-_NEIGHBOURHOOD_PX, _NEIGHBOURHOOD_PX + 1)
    for start in range(0, len(y), 100_000):
        rows, columns = y[start : start + 100_000], x[start : start + 100_000]
        near_y = np.clip(rows[:, None, None] + reach[None, :, None], 0, clean.shape[0] - 1)
        near_x = np.clip(columns[:, None, None] + reach[None, None, :], 0, clean.shape[1] - 1)
        counts = good[near_y, near_x] & ~((reach[:, None] == 0) & (reach[None, :] == 0))
        near = np.where(counts, clean[near_y, near_x], np.inf).reshape(len(rows), -1)
        near.sort(axis=1)
        number = counts.reshape(len(rows), -1).sum(axis=1)
        median = near[np.arange(len(rows)), np.maximum(number - 1, 0) // 2]
        median = np.where(number > 0, median, clean[rows, columns])
        difference = clean[rows, columns] - median
        allowed = spread * (sigma * np.sqrt(np.maximum(median, 1.0)) + _SKEW_COUNTS)
        dead = (clean[rows, columns] == 0) & (median >= _DARK_MEAN_COUNTS)
        marked[rows, columns] = (np.abs(difference) > allowed) | dead
    return marked


def _dilate(mask: np.ndarray[Any, Any], reach: int) -> np.ndarray[Any, Any]:
    wide = mask.copy()
    for _ in range(reach):
        padded = np.pad(wide, 1)
        height, width = mask.shape
        wide = np.zeros_like(mask)
        for dy in range(3):
            for dx in range(3):
                wide |= padded[dy : dy + height, dx : dx + width]
    return wide
