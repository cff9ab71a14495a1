"""Thresholds on what a picker has found: nothing is searched again, and one threshold serves micrographs of any defocus.

Scores depend on defocus, since contrast does. Over a session, the median score of a micrograph is a line in defocus; what lies
above or below that line is comparable between micrographs (as CryoSPARC calibrates NCC and power scores).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frazil.algorithms.detection.peaks import Limits
from frazil.model.errors import InputError
from frazil.model.particles import Candidates, Pick

_MICROGRAPHS_LEAST = 5  # fewer do not make a line


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the median score of a micrograph changes with its mean defocus; the reference is the session's median defocus."""

    slope_per_angstrom: float = 0.0
    reference_angstrom: float = 0.0

    def calibrated(self, scores: npt.NDArray[np.float64], defocus_angstrom: float) -> npt.NDArray[np.float64]:
        """Return scores as they would be at the reference defocus."""
        return np.asarray(scores - self.slope_per_angstrom * (defocus_angstrom - self.reference_angstrom))


@dataclass(frozen=True, slots=True)
class Calibrations:
    """Those of a session's scores and powers; by default nothing changes."""

    score: Calibration = Calibration()
    power: Calibration = Calibration()


def calibrate(defocus_angstrom: npt.NDArray[np.float64], median_scores: npt.NDArray[np.float64]) -> Calibration:
    """Fit the line through micrographs by the median of the slopes between any two (Theil 1950, Sen 1968).

    Almost a third of the micrographs may be junk.

    Parameters
    ----------
    defocus_angstrom, median_scores: of each micrograph (n,); micrographs without picks are left out by the caller.

    Returns
    -------
    A level line for fewer than 5 micrographs, or ones all of a defocus.
    """
    if defocus_angstrom.shape != median_scores.shape or defocus_angstrom.ndim != 1:
        raise InputError("CALIBRATION_SHAPE", "Give one defocus and one median score per micrograph.")
    if defocus_angstrom.size < _MICROGRAPHS_LEAST:
        return Calibration()
    first, second = np.triu_indices(defocus_angstrom.size, 1)
    run = defocus_angstrom[second] - defocus_angstrom[first]
    far = np.abs(run) > 1.0
    rise = median_scores[second] - median_scores[first]
    slope = float(np.median(rise[far] / run[far])) if far.any() else 0.0
    return Calibration(slope, float(np.median(defocus_angstrom)))


def picked(
    candidates: Candidates, limits: Limits, *, defocus_angstrom: float | None = None, calibrations: Calibrations | None = None
) -> tuple[Pick, ...]:
    """Return the candidates that become picks, in their order; see `kept`."""
    chosen = kept(candidates, limits, defocus_angstrom=defocus_angstrom, calibrations=calibrations)
    return tuple(candidates.picks[i] for i in chosen)


def kept(
    candidates: Candidates, limits: Limits, *, defocus_angstrom: float | None = None, calibrations: Calibrations | None = None
) -> npt.NDArray[np.int64]:
    """Return the indices of the candidates that become picks, in their order.

    Parameters
    ----------
    candidates: of one micrograph.
    limits: `score_min` (None: the threshold found from the micrograph), `power_min`, `power_max` and `max_picks` are used, in
        calibrated scores.
    defocus_angstrom: mean defocus of the micrograph; None (no fit) leaves its scores as they are.
    calibrations: of the session.
    """
    picks = candidates.picks
    score, power = (np.array([getattr(pick, name) for pick in picks], dtype=np.float64) for name in ("score", "power"))
    found = score >= candidates.score_min
    if calibrations is not None and defocus_angstrom is not None:
        score = calibrations.score.calibrated(score, defocus_angstrom)
        power = calibrations.power.calibrated(power, defocus_angstrom)
    keep = found if limits.score_min is None else score >= limits.score_min
    keep &= power >= (-np.inf if limits.power_min is None else limits.power_min)
    keep &= power <= (np.inf if limits.power_max is None else limits.power_max)
    return np.flatnonzero(keep)[: limits.max_picks]
