"""From raw movie to micrograph: the whole of motion correction in one function."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from frazil.algorithms.defects import DefectParameters
from frazil.algorithms.dose_weighting import frame_exposures, voltage_factor
from frazil.algorithms.gain import normalize_gain
from frazil.algorithms.motion.coarse import small_factor
from frazil.algorithms.motion.field import Matrix, ShiftField, local_rms
from frazil.algorithms.motion.fit import FitParameters, MotionFit, fit_motion
from frazil.algorithms.motion.frames import Survey, UsedFrames, survey
from frazil.algorithms.motion.relion import relion_model
from frazil.algorithms.motion.sums import Sums, aligned_sums
from frazil.array import Array, to_device
from frazil.model.errors import InputError
from frazil.model.motion import Motion
from frazil.model.optics import Optics
from frazil.primitives.fourier import friendly_size

EARLY_EXPOSURE = 4.0  # e/Å²: motion up to here is called early
SIDE_MIN_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionParameters:
    """How a movie is corrected.

    `binning`: px of the movie per px of the micrograph, 2 for super-resolution. `first_frame`, `last_frame`: counted from 1,
    both included; `last_frame` 0 is the movie's last. `halves`: make the sums of odd and of even frames too.
    """

    fit: FitParameters = field(default_factory=FitParameters)
    defects: DefectParameters = field(default_factory=DefectParameters)
    binning: float = 1.0
    first_frame: int = 1
    last_frame: int = 0
    halves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedMovie:
    """A movie, corrected.

    Attributes
    ----------
    sums: the micrographs.
    pixel_size_angstrom: of the micrographs.
    field: shifts to apply in every place and used frame, px of the movie.
    motion: the same as a record.
    problem: what went wrong with the motion, one sentence; None when nothing did.
    bad_pixel_count: pixels replaced in every frame.
    fixed_pattern: correlation of the two halves of the unaligned movie near Nyquist; see `frames.fixed_pattern`. Above 0.02
        the gain reference or its orientation is probably wrong.
    left_out_frames: frames beyond use, in no sum; counted from 0, of the movie.
    """

    sums: Sums
    pixel_size_angstrom: float
    field: ShiftField
    motion: Motion
    problem: str | None
    bad_pixel_count: int
    fixed_pattern: float
    left_out_frames: tuple[int, ...]

    @property
    def dose_weighted(self) -> Array:
        """The dose-weighted micrograph, `(y, x)` float32 on the device."""
        return self.sums.dose_weighted

    @property
    def plain(self) -> Array:
        """The plain sum of the frames, `(y, x)` float32 on the device."""
        return self.sums.plain


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
    """Correct gain and defects, find the motion in every place, and add the frames up in register.

    The movie is read three times, frame by frame; besides it, memory holds a few frames, half a dozen sums and, for the
    alignment, the coefficients of all frames up to 4.5 Å: some three quarters of a movie of bytes.

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
    InputError : shapes disagree, there is no such frame, or optics are impossible.
    """
    parameters = parameters or MotionParameters()
    _check(movie, gain, bad_mask, optics)
    first, last = _frame_range(movie.shape[0], parameters)
    skipped = first * optics.dose_per_frame_e_per_angstrom2
    optics = replace(optics, pre_exposure_e_per_angstrom2=optics.pre_exposure_e_per_angstrom2 + skipped)
    factor = small_factor(optics.pixel_size_angstrom, movie.shape[1:])
    used = movie[first:last] if isinstance(movie, np.ndarray) else UsedFrames(movie, first, last)
    seen = survey(used, _device_gain(movie, gain, bad_mask, xp), parameters.defects, factor, seed)
    left_out = _left_out(seen)
    fit = fit_motion(seen, optics, parameters.fit)
    shift_field = _of_frames(fit.coefficients, seen)
    full = seen.frames.shape
    shape = _output_shape(full, parameters.binning)
    return CorrectedMovie(
        sums=aligned_sums(seen.frames, shift_field, optics, left_out, shape, halves=parameters.halves),
        pixel_size_angstrom=optics.pixel_size_angstrom * full[1] / shape[1],
        field=shift_field,
        motion=motion_record(shift_field, optics, fit),
        problem=fit.problem,
        bad_pixel_count=len(seen.frames.bad_positions),
        fixed_pattern=seen.fixed_pattern,
        left_out_frames=tuple(t + first for t in left_out),
    )


def motion_record(shift_field: ShiftField, optics: Optics, fit: MotionFit) -> Motion:
    """Make the record of a movie's motion.

    Parameters
    ----------
    shift_field: shifts to apply.
    optics: pixel size, and the dose that tells early from late: a step is early when it ends at 4 e/Å² or before.
    fit: where the field comes from.
    """
    shifts, coefficients = relion_model(shift_field)
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
        local_angstrom=local_rms(shift_field) * optics.pixel_size_angstrom,
        local_coefficients=tuple(float(c) for c in coefficients) if coefficients.any() else None,
        converged=fit.found,
        sigma_px=fit.sigma_px if fit.found else None,
    )


def _frame_range(frame_count: int, parameters: MotionParameters) -> tuple[int, int]:
    """Return the first frame used and the one after the last, from 0. Raises InputError when the movie has no such frames."""
    last = parameters.last_frame or frame_count
    if not 1 <= parameters.first_frame <= last <= frame_count:
        raise InputError(
            "FRAME_RANGE",
            f"Frames {parameters.first_frame} to {last} cannot be used: the movie has frames 1 to {frame_count}.",
        )
    return parameters.first_frame - 1, last


def _left_out(seen: Survey) -> tuple[int, ...]:
    """Return the frames of groups beyond use; none when there is nothing else."""
    t = np.arange(seen.frames.frame_count)
    dark = seen.brightness[t // seen.group_size] == 0
    return () if dark.all() else tuple(int(i) for i in t[dark])


def _of_frames(coefficients: Matrix, seen: Survey) -> ShiftField:
    """Interpolate the coefficients of groups linearly to their frames."""
    groups = [seen.group(g) for g in range(len(coefficients))]
    centres = np.array([(group[0] + group[-1]) / 2 for group in groups])
    t = np.arange(seen.frames.frame_count)
    flat = coefficients.reshape(len(coefficients), -1)
    of_frames = np.stack([np.interp(t, centres, column) for column in flat.T], axis=1)
    return ShiftField((of_frames - of_frames[0]).reshape(len(t), *coefficients.shape[1:]))


def _output_shape(full: tuple[int, int], binning: float) -> tuple[int, int]:
    if binning == 1:
        return full
    small = [friendly_size(max(2, round(n / binning)), at_most=True) for n in full]
    return small[0], small[1]


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
