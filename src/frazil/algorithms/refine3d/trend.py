"""Resolution against particle count, and how many more particles a resolution would take (Rosenthal & Henderson 2003)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MIN_POINTS = 3
_MIN_GROWTH = 2.0


@dataclass(frozen=True, slots=True)
class ResolutionTrend:
    """The line `1/d^2 = intercept + (2 / B) ln N`.

    Attributes
    ----------
    intercept: 1/Å^2. b_factor_angstrom2: of everything that limits the run: optics, specimen, motion, poses.
    standard_error: of 1/d^2 about the line.
    """

    intercept: float
    b_factor_angstrom2: float
    standard_error: float

    def resolution_angstrom(self, particles: float) -> float | None:
        """Return the resolution expected of a particle count; None below the line's zero."""
        inverse_square = self.intercept + 2 / self.b_factor_angstrom2 * math.log(particles)
        return inverse_square**-0.5 if inverse_square > 0 else None

    def particles_for(self, resolution_angstrom: float) -> float:
        """Return how many particles a resolution takes; infinity where no float holds it."""
        exponent = (resolution_angstrom**-2 - self.intercept) * self.b_factor_angstrom2 / 2
        return math.exp(exponent) if exponent < 700 else math.inf


def fit_trend(particles: npt.ArrayLike, resolution_angstrom: npt.ArrayLike) -> ResolutionTrend | None:
    """Fit the trend of a run: least squares over (particle count, resolution in Å); None where there is nothing to go by.

    Wanted are three points, over at least a doubling of the particles, and a resolution that improves with their number.
    Points limited by sampling or by the starting reference say nothing about the trend: leave them out.
    """
    count, resolution = np.asarray(particles, np.float64), np.asarray(resolution_angstrom, np.float64)
    if count.size < _MIN_POINTS or count.max() < _MIN_GROWTH * count.min():
        return None
    slope, intercept = np.polyfit(np.log(count), resolution**-2.0, 1)
    if slope <= 0:
        return None
    residual = resolution**-2.0 - intercept - slope * np.log(count)
    error = float(np.sqrt((residual**2).sum() / max(count.size - 2, 1)))
    return ResolutionTrend(float(intercept), float(2 / slope), error)
