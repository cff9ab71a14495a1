"""From raw movie to micrograph: the whole of whole-frame motion correction in one function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from frazil.algorithms.defects import DefectParameters
from frazil.algorithms.dose_weighting import frame_exposures, voltage_factor
from frazil.algorithms.gain import normalize_gain
from frazil.algorithms.motion.coarse import small_factor
from frazil.algorithms.motion.frames import Survey, survey
from frazil.algorithms.motion.rigid import RigidParameters, fit_rigid
from frazil.algorithms.motion.sums import aligned_sums
from frazil.array import Array, to_device
from frazil.model.errors import InputError
from frazil.model.motion import Motion
from frazil.model.optics import Optics
from frazil.primitives.fourier import friendly_size

EARLY_EXPOSURE = 4.0  # e/Å²: motion up to here is called early
SIDE_MIN_PX = 64
_SIGMA_MAX_PX, _LAST_STEP_MAX_PX = 2.0, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionParameters:
    """How a movie is corrected. `binning`: px of the movie per px of the micrograph, 2 for super-resolution."""

    rigid: RigidParameters = field(default_factory=RigidParameters)
    defects: DefectParameters = field(default_factory=DefectParameters)
    binning: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedMovie:
    """A movie, corrected.

    Attributes
    ----------
    dose_weighted, plain: `(y, x)` float32 on the device, see `sums.aligned_sums`. Protein dark, as recorded.
    pixel_size_angstrom: of the micrographs.
    motion: shifts in px of the movie.
    bad_pixel_count: pixels replaced in every frame.
    fixed_pattern: correlation of the two halves of the unaligned movie near Nyquist; see `frames.fixed_pattern`. Above 0.02
        the gain reference or its orientation is probably wrong.
    left_out_frames: frames beyond use, in neither sum.
    """

    dose_weighted: Array
    plain: Array
    pixel_size_angstrom: float
    motion: Motion
    bad_pixel_count: int
    fixed_pattern: float
    left_out_frames: tuple[int, ...]


def correct_movie(
    movie: Any,
    gain: np.ndarray[Any, Any] | None,
    bad_mask: np.ndarray[Any, Any] | None,
    optics: Optics,
    parameters: MotionParameters | None = None,
    *,
    xp: Any = np,
    seed: int = 0,
) -> CorrectedMovie:
    """Correct gain and defects, find the whole-frame motion, and add the frames up in register.

    The movie is read three times, frame by frame; besides it, memory holds a few frames and, for the alignment, some 5 %
    of the coefficients of all frames.

    Parameters
    ----------
    movie: `(frame, y, x)` on the host, as recorded: an array of any integer or float type, or an object with `shape` that
        gives frame t as `movie[t]`.
    gain: `(y, x)` multiplicative, 0 at defects, or None.
    bad_mask: `(y, x)` bool, true where a pixel is known to be bad, or None.
    optics: of the movie; the pixel size is that of its pixels.
    parameters: how.
    xp: the array module that computes.
    seed: of the draws that replace bad pixels; take it from the movie's identity.

    Raises
    ------
    InputError : shapes disagree, or optics are impossible.
    """
    parameters = parameters or MotionParameters()
    _check(movie, gain, bad_mask, optics)
    factor = small_factor(optics.pixel_size_angstrom, movie.shape[1:])
    seen = survey(movie, _device_gain(movie, gain, bad_mask, xp), parameters.defects, factor, seed)
    shifts, left_out, sigma_px = _whole_frame_shifts(seen, optics, parameters.rigid)
    shape = seen.frames.shape
    if parameters.binning != 1:
        small = [friendly_size(max(2, round(n / parameters.binning)), at_most=True) for n in shape]
        shape = (small[0], small[1])
    weighted, plain = aligned_sums(seen.frames, shifts, optics, left_out, shape)
    return CorrectedMovie(
        dose_weighted=weighted,
        plain=plain,
        pixel_size_angstrom=optics.pixel_size_angstrom * seen.frames.shape[1] / shape[1],
        motion=motion_record(shifts, optics, sigma_px),
        bad_pixel_count=len(seen.frames.bad_positions),
        fixed_pattern=seen.fixed_pattern,
        left_out_frames=left_out,
    )


def motion_record(shifts: np.ndarray[Any, Any], optics: Optics, sigma_px: float | None) -> Motion:
    """Make the record of a trajectory.

    Parameters
    ----------
    shifts: (frame, 2) to apply, (y, x) px, frame 0 at 0.
    optics: pixel size, and the dose that tells early from late: a step is early when it ends at 4 e/Å² or before.
    sigma_px: predicted error; None says that the motion was not found.
    """
    steps = np.sqrt((np.diff(shifts, axis=0) ** 2).sum(axis=1)) * optics.pixel_size_angstrom
    ends = np.arange(2, len(shifts) + 1) * optics.dose_per_frame_e_per_angstrom2 + optics.pre_exposure_e_per_angstrom2
    early = float(steps[ends <= EARLY_EXPOSURE].sum())
    return Motion(
        shift_x_px=tuple(float(x) for x in shifts[:, 1]),
        shift_y_px=tuple(float(y) for y in shifts[:, 0]),
        pixel_size_angstrom=optics.pixel_size_angstrom,
        total_angstrom=float(steps.sum()),
        early_angstrom=early,
        late_angstrom=float(steps.sum()) - early,
        converged=sigma_px is not None,
        sigma_px=sigma_px,
    )


def _whole_frame_shifts(
    seen: Survey, optics: Optics, parameters: RigidParameters
) -> tuple[np.ndarray[Any, Any], tuple[int, ...], float | None]:
    """Return the shifts (frame, 2), the frames beyond use, and the predicted error; no shifts and None on failure."""
    frame_count = seen.frames.frame_count
    t = np.arange(frame_count)
    left_out = tuple(int(i) for i in t[seen.brightness[t // seen.group_size] == 0])
    if len(left_out) == frame_count:
        return np.zeros((frame_count, 2)), (), None
    fit = fit_rigid(seen, optics, parameters)
    sound = np.isfinite(fit.shifts).all() and fit.sigma_px <= _SIGMA_MAX_PX and fit.last_step_px <= _LAST_STEP_MAX_PX
    if not sound:
        return np.zeros((frame_count, 2)), left_out, None
    groups = [seen.group(g) for g in range(len(fit.shifts))]
    centres = np.array([(group[0] + group[-1]) / 2 for group in groups])
    shifts = np.stack([np.interp(t, centres, fit.shifts[:, axis]) for axis in (0, 1)], axis=1)
    return shifts - shifts[0], left_out, fit.sigma_px


def _device_gain(movie: Any, gain: np.ndarray[Any, Any] | None, bad_mask: np.ndarray[Any, Any] | None, xp: Any) -> Array:
    """Return the gain on the device, median 1, 0 at known bad pixels."""
    if gain is None:
        on_device = xp.ones(tuple(movie.shape[1:]), dtype=xp.float32)
    else:
        on_device = normalize_gain(to_device(np.asarray(gain), xp))
    if bad_mask is None:
        return on_device
    return xp.where(to_device(np.asarray(bad_mask), xp), xp.asarray(0.0, dtype=xp.float32), on_device)


def _check(movie: Any, gain: np.ndarray[Any, Any] | None, bad_mask: np.ndarray[Any, Any] | None, optics: Optics) -> None:
    """Refuse what cannot be corrected. Raises InputError."""
    if len(movie.shape) != 3 or movie.shape[0] < 1 or min(movie.shape[1:]) < SIDE_MIN_PX:
        raise InputError(
            "MOVIE_SHAPE",
            f"A movie of shape {tuple(movie.shape)} cannot be aligned: frames are at least {SIDE_MIN_PX} px a side.",
        )
    for name, image in (("gain reference", gain), ("defect map", bad_mask)):
        if image is not None and tuple(image.shape) != tuple(movie.shape[1:]):
            raise InputError(
                "GAIN_SHAPE",
                f"The {name} is {image.shape[1]:,} x {image.shape[0]:,} px but the movie is {movie.shape[2]:,} x "
                f"{movie.shape[1]:,} px: give the one of this camera mode, rotated as the movie is.",
            )
    if not 0.05 <= optics.pixel_size_angstrom <= 20:
        raise InputError("PIXEL_SIZE", f"A pixel size of {optics.pixel_size_angstrom:g} Å is not possible: give it in Å.")
    voltage_factor(optics.voltage_kv)
    frame_exposures(movie.shape[0], optics.dose_per_frame_e_per_angstrom2, optics.pre_exposure_e_per_angstrom2)
