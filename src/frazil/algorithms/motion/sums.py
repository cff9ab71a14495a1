"""The last pass over a movie: frames are brought into register and added up, with and without dose weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from frazil.algorithms.dose_weighting import decay_per_frame, frame_exposures, weight_norm
from frazil.algorithms.motion.frames import CorrectedFrames
from frazil.array import Array, namespace
from frazil.kernels.accumulate import FourierSums, add_frames
from frazil.model.optics import Optics
from frazil.primitives.fourier import crop_transform, irfft2, rfft2, shift_phases

_BATCH_PX = 12_000_000  # frames transformed together: fewer passes over the sums, little memory


def aligned_sums(
    frames: CorrectedFrames,
    shifts: np.ndarray[Any, Any],
    optics: Optics,
    left_out: tuple[int, ...] = (),
    shape: tuple[int, int] | None = None,
) -> tuple[Array, Array]:
    """Shift every frame by a Fourier phase and add them up.

    Both sums are kept in Fourier space, so that one transform per frame suffices and no interpolation is made. What a
    shift moves out at one edge does not come in at the other: the strip there mirrors the frame's own edge.

    Parameters
    ----------
    frames: the movie.
    shifts: (frame, 2) to apply, (y, x) px.
    optics: pixel size, voltage, dose.
    left_out: frames that are not added.
    shape: `(y, x)` of the result, no larger than a frame; the frame's own unless told. Fourier-cropped, mean kept.

    Returns
    -------
    (dose weighted, plain) `(y, x)` float32. The plain one is the sum of the frames; in the dose-weighted one noise is that of
    one frame at every frequency, and the mean that of the plain one over the root of the number of frames.

    Raises
    ------
    InputError : dose or voltage are impossible, or a frame is not left.
    """
    xp = namespace(frames.gain)
    full = frames.shape
    frame_exposures(frames.frame_count, optics.dose_per_frame_e_per_angstrom2, optics.pre_exposure_e_per_angstrom2)
    decay = decay_per_frame(full, optics.pixel_size_angstrom, optics.dose_per_frame_e_per_angstrom2, optics.voltage_kv, xp)
    zero = xp.zeros(decay.shape, dtype=xp.complex64)
    sums = FourierSums(plain=zero, weighted=xp.zeros_like(zero), weight=xp.ones_like(decay), decay=decay)
    batch = max(1, min(4, _BATCH_PX // math.prod(full)))
    for start in range(0, frames.frame_count, batch):
        _add_batch(sums, frames, range(start, min(start + batch, frames.frame_count)), shifts, left_out)
    norm = weight_norm(decay, frames.frame_count, left_out)
    weighted = sums.weighted / xp.where(norm > 0, norm, xp.asarray(1.0, dtype=norm.dtype))
    return _image(weighted, full, shape or full), _image(sums.plain, full, shape or full)


def _add_batch(
    sums: FourierSums, frames: CorrectedFrames, batch: range, shifts: np.ndarray[Any, Any], left_out: tuple[int, ...]
) -> None:
    """Read, transform and add a few frames."""
    xp = namespace(frames.gain)
    images = xp.zeros((len(batch), *frames.shape), dtype=xp.float32)
    phases = []
    for i, t in enumerate(batch):
        if t not in left_out:
            images[i, ...] = _mirror_wrapped_edges(frames.frame(t), shifts[t])
        phases.append(shift_phases(frames.shape, (float(shifts[t, 0]), float(shifts[t, 1])), xp))
    phases_y = xp.stack([xp.reshape(y, (-1,)) for y, _ in phases])
    phases_x = xp.stack([xp.reshape(x, (-1,)) for _, x in phases])
    add_frames(sums, rfft2(images), phases_y, phases_x)


def _mirror_wrapped_edges(image: Array, shift: np.ndarray[Any, Any]) -> Array:
    """Overwrite what a periodic shift would carry around with the mirror image of the edge it would land beside."""
    xp = namespace(image)
    for axis in (0, 1):
        size = image.shape[axis]
        width = min(math.ceil(abs(float(shift[axis]))), size // 2)
        if width:
            low, high = [slice(None)] * 2, [slice(None)] * 2
            low[axis], high[axis] = slice(0, width), slice(size - width, size)
            source, target = (low, high) if shift[axis] > 0 else (high, low)
            image[tuple(target)] = xp.flip(image[tuple(source)], axis=axis)
    return image


def _image(transform: Array, full: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Return the real image of a sum, cropped to `shape` px with its mean kept."""
    if shape == full:
        return irfft2(transform, full)
    return irfft2(crop_transform(transform, full[1], shape) * (math.prod(shape) / math.prod(full)), shape)
