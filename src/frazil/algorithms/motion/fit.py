"""Motion by maximum a posteriori: the shift field under which all frames together are most probable.

A first whole-frame trajectory comes from cross-correlation (`coarse`). One smooth field of shifts is then fitted to all tiles
of all frames at once (`tiles`) by Gauss-Newton steps on the exact complex-Gaussian likelihood of all pairs of frames
(`weights`), with priors on trajectories (`prior`) of many sizes, each counting by its evidence. The posterior's width is the
predicted error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from frazil.algorithms.motion.coarse import coarse_shifts
from frazil.algorithms.motion.field import DEGREES, EXPONENTS, Matrix, ShiftField, relative_places
from frazil.algorithms.motion.frames import Survey, background_of
from frazil.algorithms.motion.posterior import Posterior, expansion, posterior
from frazil.algorithms.motion.prior import LOCAL, WHOLE_FRAME, trajectory_covariance
from frazil.algorithms.motion.tiles import Tiles, covariances, cut_tiles, gradient, tile_layout
from frazil.algorithms.motion.weights import Exposure, ShellWeights, blurred, cut_evidence, shell_weights
from frazil.array import namespace
from frazil.model.optics import Optics

_STAGES_ANGSTROM = (25.0, 0.0)  # finest detail used, coarse to fine
_WEIGHTS_STAND_PX, _STAGE_SETTLED_PX = 0.15, 0.3
_JUMP_MIN_ANGSTROM, _JUMP_MEDIANS = 4.0, 6.0
_COARSE_ERROR_ANGSTROM = 1.0
_HISTORY = 2  # steps before the last that speed up the next
_PART_FRAMES, _CUT_EVIDENCE_MIN = 3, 4.0  # right trajectories of weak movies had 4.2 and more, lost ones 3.4 and less
_SIGMA_MAX_ANGSTROM, _LAST_STEP_MAX_ANGSTROM = 2.5, 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class FitParameters:
    """How motion is found.

    `local`: also where it differs across the field. `tile_angstrom`: side of the tiles. `band_angstrom`: coarsest and finest
    detail used; the coarsest shells carry what is fixed to the detector. `max_shift_angstrom`: farthest a frame may lie from
    the others. `settled_px`: last step, px of the movie.
    """

    local: bool = True
    tile_angstrom: float = 200.0
    band_angstrom: tuple[float, float] = (60.0, 4.5)
    shell_count: int = 48
    max_shift_angstrom: float = 100.0
    settled_px: float = 0.05
    iterations: int = 6


@dataclass(frozen=True, slots=True)
class MotionFit:
    """The motion of a movie.

    Attributes
    ----------
    coefficients: (frame group, term, 2) of a `ShiftField`, relative to the first group.
    sigma_px: predicted RMS distance from the truth over field and frames, one constant removed.
    last_step_px: RMS of the last step.
    found: whether the frames could be aligned at all; if not, no frame is shifted.
    problem: what could not be found, one sentence; None when all was.
    """

    coefficients: Matrix
    sigma_px: float
    last_step_px: float
    found: bool = True
    problem: str | None = None


def fit_motion(seen: Survey, optics: Optics, parameters: FitParameters | None = None) -> MotionFit:
    """Find the shift to apply to each group of frames in every place.

    Parameters
    ----------
    seen: the movie, with small frames of `coarse.small_factor`.
    optics: pixel size of the movie, dose per frame, voltage.
    parameters: how.
    """
    parameters = parameters or FitParameters()
    pixel_size = optics.pixel_size_angstrom
    still = np.zeros((len(seen.brightness), len(EXPONENTS), 2))
    if not seen.brightness.any():
        return _failed(still, "no frame holds an image")
    shifts, found = coarse_shifts(seen, pixel_size, parameters.max_shift_angstrom)
    if len(shifts) < 2:
        return MotionFit(still, 0.0, 0.0)
    if not found.any():
        return _failed(still, "no frame resembles another")
    layout = tile_layout(seen, shifts, pixel_size, parameters.tile_angstrom, parameters.band_angstrom, parameters.shell_count)
    background = background_of(seen.total, namespace(seen.total).asarray(~seen.frames.bad), pixel_size)
    tiles = cut_tiles(seen, shifts, layout, background)
    exposure = exposure_of(seen, optics)
    fit = refine(tiles, shifts, exposure, parameters)
    if not _sound(fit, pixel_size):
        fit = refine(tiles, shifts, exposure, replace(parameters, local=False))
        if not _sound(fit, pixel_size):
            return _failed(still, f"the motion is uncertain by {fit.sigma_px * pixel_size:.1f} Å")
        fit = replace(fit, problem="The motion across the field could not be found: the frames were aligned as a whole.")
    doubt = _doubt(fit, seen, tiles, exposure)
    return replace(fit, problem=" ".join(filter(None, (fit.problem, doubt))) or None)


def _doubt(fit: MotionFit, seen: Survey, tiles: Tiles, exposure: Exposure) -> str:
    """Say, in one sentence, where in time the frames may have been lost; empty when all of them hold together."""
    layout = tiles.layout
    centres = layout.factor * (layout.origins + np.array(layout.shape) / 2) - 0.5
    shifts = ShiftField(fit.coefficients).at(relative_places(centres, seen.frames.shape))
    measured = covariances(tiles, shifts, math.inf)
    weights = shell_weights(measured, layout.shell_frequencies, layout.shell_counts, exposure)
    evidence = cut_evidence(measured, weights, layout.shell_counts, _PART_FRAMES)
    if evidence.min() >= _CUT_EVIDENCE_MIN:
        return ""
    first = int(np.argmin(evidence)) + min(_PART_FRAMES, len(exposure.middle) // 2)
    return f"The frames from {seen.group(first)[0] + 1} on resemble those before too little: their alignment may be lost."


def _sound(fit: MotionFit, pixel_size_angstrom: float) -> bool:
    """Say whether a fit has settled and is certain enough to be used."""
    certain = fit.sigma_px * pixel_size_angstrom <= _SIGMA_MAX_ANGSTROM
    settled = fit.last_step_px * pixel_size_angstrom <= _LAST_STEP_MAX_ANGSTROM
    return bool(np.isfinite(fit.coefficients).all()) and certain and settled


def _failed(still: Matrix, reason: str) -> MotionFit:
    sentence = f"The motion could not be found, {reason}: the frames were added up unaligned."
    return MotionFit(still, math.inf, 0.0, found=False, problem=sentence)


def refine(tiles: Tiles, shifts: Matrix, exposure: Exposure, parameters: FitParameters) -> MotionFit:
    """Improve a whole-frame trajectory to a field by Gauss-Newton steps, first without fine detail, then with all of it.

    Parameters
    ----------
    tiles: of the movie. shifts: (group, 2) to apply, (y, x) px.
    exposure: of each group. parameters: how.
    """
    layout = tiles.layout
    functions = layout.basis.shape[1] if parameters.local else 1
    coefficients = np.zeros((len(shifts), functions, 2))
    coefficients[:, 0] = shifts
    basis, polynomials = layout.basis[:, :functions], layout.polynomials[:, :functions]
    degrees = np.array([DEGREES[np.flatnonzero(column)[-1]] for column in polynomials.T])
    step = 0.0
    parts = [Posterior(shifts, np.eye(len(shifts)) * (_COARSE_ERROR_ANGSTROM / exposure.pixel_size_angstrom) ** 2)]
    for finest in _STAGES_ANGSTROM:
        highest_k = exposure.pixel_size_angstrom / finest if finest else math.inf
        priors = _priors(exposure, coefficients[:, 0])
        weights = None
        history: list[tuple[Matrix, Matrix]] = []
        for _ in range(parameters.iterations):
            at = np.einsum("pb,tbc->tpc", basis, coefficients)
            if weights is None or step > _WEIGHTS_STAND_PX:
                measured = covariances(tiles, at, highest_k)
                spread = sum(part.covariance * part.mean.shape[1] / 2 for part in parts)
                measured = blurred(measured, layout.shell_frequencies, np.asarray(spread))
                weights = shell_weights(measured, layout.shell_frequencies, layout.shell_counts, exposure)
            slope = np.einsum("pb,tpc->tbc", basis, gradient(tiles, at, weights.pair, highest_k)) / layout.overlap
            information = _information(tiles, weights, highest_k)
            parts = [
                _part(coefficients[:, degrees == d], slope[:, degrees == d], information, priors[int(d > 0)])
                for d in np.unique(degrees)
            ]
            moved = np.concatenate([part.mean.reshape(len(shifts), -1, 2) for part in parts], axis=1)
            moved += coefficients.mean(axis=0)
            step = _rms(moved - coefficients)
            history = [*history[-_HISTORY:], (coefficients, moved)]
            coefficients = _accelerated(history)
            if step < (_STAGE_SETTLED_PX if finest else parameters.settled_px):
                break
    coefficients = coefficients - coefficients[0]
    return MotionFit(np.einsum("bf,tfc->tbc", polynomials, coefficients), _sigma(parts), step)


def _accelerated(history: list[tuple[Matrix, Matrix]]) -> Matrix:
    """Return where to go on from: the last target, corrected by how earlier steps have changed (Anderson acceleration).

    The expected information is not quite the curvature, above all where few tiles hold most of the specimen: plain steps
    then overshoot, or creep.

    Parameters
    ----------
    history: where each step began and what it aimed at, the latest last.
    """
    at, target = history[-1]
    if len(history) == 1:
        return target
    residual = (target - at).ravel()
    changes = np.stack([residual - (b - a).ravel() for a, b in history[:-1]], axis=1)
    moves = np.stack([(target - b).ravel() for _, b in history[:-1]], axis=1)
    share = np.linalg.lstsq(changes, residual, rcond=1e-3)[0]
    return np.asarray(target - (moves @ share).reshape(target.shape))


def _part(at: Matrix, slope: Matrix, information: Matrix, priors: list[Matrix]) -> Posterior:
    """Return the posterior of the functions of one degree, which share their prior."""
    frames = len(at)
    return posterior(expansion(at.reshape(frames, -1), slope.reshape(frames, -1), information), priors)


def _information(tiles: Tiles, weights: ShellWeights, highest_k: float) -> Matrix:
    """Return the Fisher information of either axis of any function, (group, group): mean squares over the tiles are 1."""
    frequencies = tiles.layout.shell_frequencies
    scale = np.where(frequencies <= highest_k, tiles.layout.shell_counts * (2 * np.pi * frequencies) ** 2, 0.0)
    return np.asarray(np.einsum("s,stu->tu", scale, weights.information))


def _priors(exposure: Exposure, shifts: Matrix) -> tuple[list[Matrix], list[Matrix]]:
    """Return the priors of all sizes, px²: of the whole frame, with and without the jumps that were seen, and of the rest."""
    pixel_size = exposure.pixel_size_angstrom
    since_start = exposure.middle - exposure.middle[0] + (exposure.middle[1] - exposure.middle[0]) / 2
    jumps = _jumps(shifts * pixel_size)
    extras = (None, jumps) if jumps.any() else (None,)
    whole = [trajectory_covariance(since_start, c, extra) / pixel_size**2 for c in WHOLE_FRAME for extra in extras]
    return whole, [trajectory_covariance(since_start, c) / pixel_size**2 for c in LOCAL]


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


def _sigma(parts: list[Posterior]) -> float:
    """Return the RMS over field, frames and both axes of the posterior, one constant removed.

    Of the whole frame the constant drops out; of the motion across the field it is what frame 0 leaves uncertain everywhere.
    """
    whole, *local = (part.covariance for part in parts)
    variance = 2 * (float(np.trace(whole)) / len(whole) - float(whole.mean()))
    for part, covariance in zip(parts[1:], local, strict=True):
        since_start = np.diag(covariance) + covariance[0, 0] - 2 * covariance[0]
        variance += part.mean.shape[1] * float(since_start.mean())
    return math.sqrt(max(variance, 0.0))


def _rms(step: Matrix) -> float:
    """Return the RMS over field and frames of a step (frame, function, 2) of orthonormal functions, one constant removed."""
    step = step - step.mean(axis=0)
    return float(np.sqrt((step**2).sum(axis=(1, 2)).mean()))
