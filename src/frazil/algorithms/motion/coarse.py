"""A first trajectory by cross-correlation: every frame against the sum of the others, from coarse to fine in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.motion.modes import Modes
from frazil.array import Array, namespace, to_host
from frazil.primitives.fourier import frequencies, irfft2, shift_phases

_ENVELOPE_ANGSTROM2 = 270.0  # weight exp(-2 B s^2)
_LOW_CUT_ANGSTROM = 250.0
_ROUNDS = ((3, 3), (1, 3))  # (neighbours averaged on each side, at most so many iterations)
_SETTLED_PX = 0.1
_CLEAR_PEAK, _LOST_PEAK = 6.0, 4.5  # height in standard deviations of the correlation image; noise alone reaches 3.5


@dataclass(frozen=True, slots=True)
class _Correlation:
    """What turns a product of transforms into a correlation image and its peak.

    `scale` is px of the movie per px of the image, (y, x); `allowed` where the peak may lie.
    """

    weights: Array
    shape: tuple[int, int]
    scale: tuple[float, float]
    allowed: np.ndarray[Any, Any]


def coarse_shifts(
    modes: Modes, pixel_size_angstrom: float, max_shift_angstrom: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find the shift to apply to each group of frames to within about a pixel of the movie.

    Leave-one-out correlation: a frame is compared with the sum of the others, itself left out, or it would find itself.
    Correlations of neighbouring frames are averaged at first, so that single noisy frames follow their neighbours; frames
    with a clear peak of their own follow that in the end, as after a jump. Frames without any peak are interpolated.

    Parameters
    ----------
    modes: of the movie; its coarse detail is used.
    pixel_size_angstrom: of the movie.
    max_shift_angstrom: farthest displacement from the mean of the others, per axis.

    Returns
    -------
    (group, 2) float64 host: (y, x) in px of the movie, relative to the first; and (group,) bool, whose correlation had a
    peak that noise does not make.
    """
    groups = modes.low.shape[0]
    shifts = np.zeros((groups, 2))
    if groups < 2:
        return shifts, np.ones(groups, dtype=np.bool_)
    correlation = _correlation(modes, pixel_size_angstrom, max_shift_angstrom)
    heights = np.zeros(groups)
    for neighbours, rounds in _ROUNDS:
        for _ in range(rounds):
            step, heights = _round(modes.low, correlation, shifts, min(neighbours, (groups - 1) // 3))
            shifts = shifts + step
            if np.sqrt(((step - step.mean(axis=0)) ** 2).sum(axis=1).mean()) < _SETTLED_PX:
                break
    step, own_heights = _round(modes.low, correlation, shifts, 0)
    shifts = np.where((own_heights > _CLEAR_PEAK)[:, None], shifts + step, shifts)
    found = np.maximum(heights, own_heights) > _LOST_PEAK
    shifts = _interpolated(shifts, found)
    return shifts - shifts[0], found


def _interpolated(shifts: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Put groups that were not found between those that were; without any, no group moves."""
    if not found.any():
        return np.zeros_like(shifts)
    t = np.arange(len(shifts))
    return np.stack([np.interp(t, t[found], shifts[found, axis]) for axis in (0, 1)], axis=1)


def _correlation(modes: Modes, pixel_size_angstrom: float, max_shift_angstrom: float) -> _Correlation:
    shape, field = modes.layout.low_shape, modes.layout.shape
    ky, kx = frequencies(shape, namespace(modes.low))
    scale = (field[0] / shape[0], field[1] / shape[1])
    s2 = ((ky / scale[0]) ** 2 + (kx / scale[1]) ** 2) / pixel_size_angstrom**2
    xp = namespace(modes.low)
    weights = xp.exp(-2 * _ENVELOPE_ANGSTROM2 * s2) * (1 - xp.exp(-s2 * (_LOW_CUT_ANGSTROM**2 / 2)))
    allowed = np.ones(shape, dtype=np.bool_)
    for axis in (0, 1):
        distance = np.abs(np.fft.fftfreq(shape[axis])) * field[axis]
        reach = min(max_shift_angstrom / pixel_size_angstrom, 0.4 * field[axis])
        allowed &= np.expand_dims(distance <= reach, 1 - axis)
    return _Correlation(weights, shape, scale, allowed)


def _round(
    low: Array, correlation: _Correlation, shifts: np.ndarray[Any, Any], neighbours: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return how far each group still is from the sum of the others, px of the movie, and the heights of the peaks."""
    xp = namespace(low)
    aligned = []
    for t, shift in enumerate(shifts / correlation.scale):
        phase_y, phase_x = shift_phases(correlation.shape, (shift[0], shift[1]), xp)
        aligned.append(low[t, ...] * phase_y * phase_x)
    everything = sum(aligned[1:], start=aligned[0])
    steps, heights = np.empty_like(shifts), np.empty(len(shifts))
    for t in range(len(aligned)):
        near = aligned[max(0, t - neighbours) : t + neighbours + 1]
        group = sum(near[1:], start=near[0])
        product = (everything - group) * xp.conj(group) * correlation.weights
        image = to_host(irfft2(product, correlation.shape))
        steps[t] = _peak(image, correlation.allowed) * correlation.scale
        heights[t] = image[correlation.allowed].max() / max(float(image[correlation.allowed].std()), 1e-30)
    return steps, heights


def _peak(correlation: np.ndarray[Any, Any], allowed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the position `(y, x)` of the highest allowed value, refined by a parabola on each axis; 0 where all is flat."""
    if not np.ptp(correlation) > 0:
        return np.zeros(2)
    position = np.unravel_index(np.argmax(np.where(allowed, correlation, -np.inf)), correlation.shape)
    refined = np.empty(2)
    for axis, size in enumerate(correlation.shape):
        at = [list(position), list(position)]
        at[0][axis] = (position[axis] - 1) % size
        at[1][axis] = (position[axis] + 1) % size
        below, here, above = (float(correlation[tuple(p)]) for p in (at[0], position, at[1]))
        bend = below - 2 * here + above
        offset = 0.5 * (below - above) / bend if bend < 0 else 0.0
        refined[axis] = (position[axis] + size // 2) % size - size // 2 + float(np.clip(offset, -1, 1))
    return refined
