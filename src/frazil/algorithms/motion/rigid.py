"""Whole-frame motion by maximum a posteriori: the shifts under which all frames together are most probable.

The coarse trajectory comes from cross-correlation (`coarse`). It is refined by Gauss-Newton steps on the exact
complex-Gaussian likelihood of all pairs of frames (`weights`), with priors on trajectories (`prior`) of many sizes, each
counting by its evidence. The posterior's width is the predicted error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.motion.coarse import coarse_shifts
from frazil.algorithms.motion.frames import Survey, background_of
from frazil.algorithms.motion.modes import Modes, covariances, gather_modes, gradient, mode_layout
from frazil.algorithms.motion.prior import CANDIDATES, trajectory_covariance
from frazil.algorithms.motion.weights import Exposure, ShellWeights, blurred, shell_weights
from frazil.array import namespace
from frazil.model.optics import Optics

Matrix = np.ndarray[Any, Any]

_STAGES_ANGSTROM = (25.0, 12.0, 0.0)  # finest detail used, coarse to fine
_WEIGHTS_STAND_PX, _STAGE_SETTLED_PX = 0.05, 0.1
_JUMP_MIN_ANGSTROM, _JUMP_MEDIANS = 4.0, 6.0
_COARSE_ERROR_ANGSTROM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RigidParameters:
    """How whole-frame motion is found.

    `band_angstrom`: coarsest and finest detail used; the coarsest shells carry what is fixed to the detector.
    `max_shift_angstrom`: farthest a frame may lie from the others. `settled_px`: last step, px of the movie.
    """

    band_angstrom: tuple[float, float] = (60.0, 4.0)
    shell_count: int = 48
    max_shift_angstrom: float = 100.0
    settled_px: float = 0.01
    iterations: int = 6


@dataclass(frozen=True, slots=True)
class RigidFit:
    """The trajectory of a movie.

    Attributes
    ----------
    shifts: (frame group, 2) float64, to apply, (y, x) in px of the movie, relative to the first group.
    sigma_px: predicted RMS distance from the truth, one constant removed; infinite when no frame resembles another.
    last_step_px: RMS of the last step.
    """

    shifts: Matrix
    sigma_px: float
    last_step_px: float


@dataclass(slots=True)
class _Expansion:
    """The log-likelihood about a trajectory, whose mean is taken out of all.

    `at` (frame, 2) the trajectory, `gradient` (frame, 2) there, `information` (frame, frame) of either axis.
    """

    at: Matrix
    gradient: Matrix
    information: Matrix


def fit_rigid(seen: Survey, optics: Optics, parameters: RigidParameters | None = None) -> RigidFit:
    """Find the shift to apply to each group of frames.

    Parameters
    ----------
    seen: the movie, with small frames of `coarse.small_factor`.
    optics: pixel size of the movie, dose per frame, voltage.
    parameters: how.
    """
    parameters = parameters or RigidParameters()
    pixel_size = optics.pixel_size_angstrom
    shifts, found = coarse_shifts(seen, pixel_size, parameters.max_shift_angstrom)
    if len(shifts) < 2:
        return RigidFit(shifts, 0.0, 0.0)
    if not found.any():
        return RigidFit(np.zeros_like(shifts), math.inf, 0.0)
    xp = namespace(seen.total)
    offsets = np.round(shifts).astype(int)
    layout = mode_layout(seen.frames, offsets, pixel_size, parameters.band_angstrom, parameters.shell_count)
    background = background_of(seen.total, xp.asarray(~seen.frames.bad), pixel_size)
    modes = gather_modes(seen, offsets, layout, background)
    return refine(modes, shifts, exposure_of(seen, optics), parameters)


def refine(modes: Modes, shifts: Matrix, exposure: Exposure, parameters: RigidParameters) -> RigidFit:
    """Improve a trajectory by Gauss-Newton steps with more and more detail; weights follow the trajectory until it settles."""
    pixel_size = exposure.pixel_size_angstrom
    since_start = exposure.middle - exposure.middle[0] + (exposure.middle[1] - exposure.middle[0]) / 2
    step = 0.0
    posterior = np.eye(len(shifts)) * (_COARSE_ERROR_ANGSTROM / pixel_size) ** 2
    for finest in _STAGES_ANGSTROM:
        highest_k = pixel_size / finest if finest else 1.0
        weights, priors = None, _priors(since_start, _jumps(shifts * pixel_size), pixel_size)
        for _ in range(parameters.iterations):
            if weights is None or step > _WEIGHTS_STAND_PX:
                measured = blurred(covariances(modes, shifts, highest_k), modes.layout.shell_frequencies, posterior)
                weights = shell_weights(measured, modes.layout.shell_frequencies, modes.layout.shell_counts, exposure)
            expansion = _expand(modes, shifts, weights, highest_k)
            moved, posterior = _posterior(expansion, priors)
            moved += shifts.mean(axis=0)
            step, shifts = _rms(moved - shifts), moved
            if step < (_STAGE_SETTLED_PX if finest else parameters.settled_px):
                break
    return RigidFit(shifts - shifts[0], _sigma(posterior), step)


def _expand(modes: Modes, shifts: Matrix, weights: ShellWeights, highest_k: float) -> _Expansion:
    used = modes.layout.shell_frequencies <= highest_k
    scale = np.where(used, modes.layout.shell_counts * (2 * np.pi * modes.layout.shell_frequencies) ** 2, 0.0)
    information = np.einsum("s,stu->tu", scale, weights.information)
    slope = gradient(modes, shifts, weights.pair, highest_k)
    no_constant = np.eye(len(shifts)) - 1.0 / len(shifts)  # a shift of all frames alike has no likelihood, not even by rounding
    return _Expansion(shifts - shifts.mean(axis=0), no_constant @ slope, no_constant @ information @ no_constant)


def _posterior(expansion: _Expansion, priors: list[Matrix]) -> tuple[Matrix, Matrix]:
    """Return the mean trajectory (frame, 2) and the covariance of an axis under a quadratic expansion.

    The mean over all priors, each with its evidence (Laplace; no pass over the data): where the data cannot tell the sizes of
    motion, neither a stiff nor a loose trajectory is chosen for good. With K a prior and I the information, the posterior
    covariance (I + K^-1)^-1 = K (1 + I K)^-1 needs no inverse of K.
    """
    target = expansion.information @ expansion.at + expansion.gradient
    identity = np.eye(len(target))
    means, spreads, evidences = [], [], []
    for prior in priors:
        matrix = identity + expansion.information @ prior
        spread = prior @ np.linalg.inv(matrix)
        mean = spread @ target
        evidences.append(0.5 * float(np.sum(target * mean)) - float(np.linalg.slogdet(matrix)[1]))
        means.append(mean - mean.mean(axis=0))
        spreads.append((spread + spread.T) / 2)
    share = np.exp(np.array(evidences) - max(evidences))
    share /= share.sum()
    mean = np.einsum("i,ita->ta", share, np.array(means))
    apart = np.array(means) - mean
    between = np.einsum("i,ita,iua->tu", share, apart, apart) / 2
    return mean, np.einsum("i,itu->tu", share, np.array(spreads)) + between


def _priors(exposure: Matrix, jumps: Matrix, pixel_size: float) -> list[Matrix]:
    """Return the priors of all sizes of motion, px², with and without the jumps that were seen."""
    extras = (None, jumps) if jumps.any() else (None,)
    return [trajectory_covariance(exposure, c, extra) / pixel_size**2 for c in CANDIDATES for extra in extras]


def _jumps(path_angstrom: Matrix) -> Matrix:
    """Return the variance (frame,), Å² per axis, of steps far larger than the others: a stage that jumped; 0 elsewhere."""
    steps = np.sqrt((np.diff(path_angstrom, axis=0, prepend=path_angstrom[:1]) ** 2).sum(axis=1))
    limit = max(_JUMP_MIN_ANGSTROM, _JUMP_MEDIANS * float(np.median(steps[1:])))
    return np.where(steps > limit, steps**2 / 2, 0.0)


def exposure_of(seen: Survey, optics: Optics) -> Exposure:
    """Return when each group of frames was exposed; without a dose, one e/Å² per frame."""
    dose = (optics.dose_per_frame_e_per_angstrom2 or 1.0) * seen.group_size
    middle = optics.pre_exposure_e_per_angstrom2 + dose * (np.arange(len(seen.brightness)) + 0.5)
    return Exposure(middle, seen.brightness, optics.pixel_size_angstrom, optics.voltage_kv)


def _sigma(posterior: Matrix) -> float:
    """Return the RMS over frames and both axes of the posterior, one constant removed."""
    spread = np.trace(posterior) / len(posterior) - posterior.mean()
    return float(np.sqrt(max(2 * spread, 0.0)))


def _rms(step: Matrix) -> float:
    return float(np.sqrt(((step - step.mean(axis=0)) ** 2).sum(axis=1).mean()))
