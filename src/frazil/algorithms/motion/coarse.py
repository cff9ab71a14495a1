"""A first trajectory by cross-correlation: every frame against the sum of the others, from coarse to fine in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.motion.frames import Survey, background_of, usable_blocks
from frazil.array import Array, namespace, to_host
from frazil.primitives.filters import edge_taper
from frazil.primitives.fourier import crop_transform, frequencies, friendly_size, irfft2, rfft2, shift_phases

_FINEST_ANGSTROM = 20.0
_SMALL_PIXEL_ANGSTROM = 6.0
_ENVELOPE_ANGSTROM2 = 270.0  # weight exp(-2 B s^2)
_LOW_CUT_ANGSTROM = 250.0
_ROUNDS = ((3, 3), (1, 3), (0, 2))  # (neighbours averaged on each side, at most so many iterations)
_GROUPS_PER_NEIGHBOUR = 6
_SETTLED_PX = 0.4
_SURE_PEAK, _CLEAR_PEAK, _LOST_PEAK = 10.0, 6.0, 4.5  # in standard deviations of the correlation image; noise reaches 3.5
_STRAY_REACH, _STRAY_ANGSTROM, _STRAY_MEDIANS = 2, 6.0, 4.0


@dataclass(frozen=True, slots=True)
class _Correlation:
    """What turns a product of transforms into a correlation image and its peak.

    `low` (group, y, x // 2 + 1) are the transforms of the frames cropped to coarse detail, `shape` that of their images;
    `scale` is px of the movie per px of these images, (y, x); `allowed` where the peak may lie.
    """

    low: list[Array]
    weights: Array
    shape: tuple[int, int]
    scale: tuple[float, float]
    allowed: np.ndarray[Any, Any]


def small_factor(pixel_size_angstrom: float, shape: tuple[int, ...]) -> int:
    """Return how many px of a movie, on each axis, make one px of the small frames that are enough here."""
    return max(1, min(int(_SMALL_PIXEL_ANGSTROM / pixel_size_angstrom), min(shape) // 64))


def coarse_shifts(
    seen: Survey, pixel_size_angstrom: float, max_shift_angstrom: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find the shift to apply to each group of frames to within about a pixel of the movie.

    Leave-one-out correlation: a frame is compared with the sum of the others, itself left out, or it would find itself.
    Correlations of neighbouring frames are averaged at first, so that single noisy frames follow their neighbours; frames
    with a clear peak of their own follow that in the end, as after a jump. Frames without any peak are interpolated.

    Parameters
    ----------
    seen: the movie, with small frames of `small_factor`.
    pixel_size_angstrom: of the movie.
    max_shift_angstrom: farthest displacement from the mean of the others, per axis.

    Returns
    -------
    (group, 2) float64 host: (y, x) in px of the movie, relative to the first; and (group,) bool, whose correlation had a
    peak that noise does not make, where its neighbours' are.
    """
    groups = len(seen.shares)
    shifts, heights = np.zeros((groups, 2)), np.zeros(groups)
    if groups < 2:
        return shifts, np.ones(groups, dtype=np.bool_)
    correlation = _correlation(seen, pixel_size_angstrom, max_shift_angstrom)
    for neighbours, rounds in _ROUNDS:
        neighbours = min(neighbours, (groups - 1) // _GROUPS_PER_NEIGHBOUR)
        for _ in range(rounds):
            step, now = _round(correlation, shifts, neighbours)
            clear = now > (_LOST_PEAK if neighbours else _CLEAR_PEAK)
            step = np.where(clear[:, None] | (heights == 0)[:, None], step, 0.0)
            moved = shifts + step
            stray = _strays(moved * pixel_size_angstrom) & (now < _SURE_PEAK)
            moved = _interpolated(moved, ~stray)
            step, shifts, heights = moved - shifts, moved, np.maximum(heights, np.where(stray, 0.0, now))
            if np.sqrt(((step - step.mean(axis=0)) ** 2).sum(axis=1).mean()) < _SETTLED_PX:
                break
    found = heights > _LOST_PEAK
    shifts = _interpolated(shifts, found)
    return shifts - shifts[0], found


def _strays(path_angstrom: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mark groups (group,) that lie far from the median of their neighbourhood: no specimen leaves and comes back at once.

    What jumps and stays is the median of its own neighbourhood.
    """
    padded = np.pad(path_angstrom, ((_STRAY_REACH, _STRAY_REACH), (0, 0)), mode="reflect", reflect_type="odd")
    near = np.lib.stride_tricks.sliding_window_view(padded, 2 * _STRAY_REACH + 1, axis=0)
    distance = np.sqrt(((path_angstrom - np.median(near, axis=2)) ** 2).sum(axis=1))
    return np.asarray(distance > max(_STRAY_ANGSTROM, _STRAY_MEDIANS * float(np.median(distance))))


def _interpolated(shifts: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Put groups that were not found between those that were; without any, no group moves."""
    if not found.any():
        return np.zeros_like(shifts)
    t = np.arange(len(shifts))
    return np.stack([np.interp(t, t[found], shifts[found, axis]) for axis in (0, 1)], axis=1)


def _correlation(seen: Survey, pixel_size_angstrom: float, max_shift_angstrom: float) -> _Correlation:
    """Take the background away from the small frames and transform them."""
    xp = namespace(seen.small)
    pixel = pixel_size_angstrom * seen.small_factor
    zero = xp.asarray(0.0, dtype=xp.float32)
    usable = usable_blocks(seen.frames.bad, seen.small_factor, xp)
    background = background_of(xp.sum(seen.small, axis=0, dtype=xp.float32), usable, pixel)
    height, width = (friendly_size(int(n), at_most=True) for n in seen.small.shape[1:])
    field = (height, width)
    inside = (slice(field[0]), slice(field[1]))
    usable, background = usable[inside], background[inside]
    taper_y, taper_x = edge_taper(field, min(field) // 40, xp)
    window = xp.where(usable, taper_y * taper_x, zero)
    shape_y, shape_x = (min(n, friendly_size(int(2 * n * pixel / _FINEST_ANGSTROM) + 4)) for n in field)
    low = []
    for g, share in enumerate(seen.shares):
        image = (seen.small[(g, *inside)] - background * float(share)) * (window if seen.brightness[g] else zero)
        low.append(crop_transform(rfft2(image), field[1], (shape_y, shape_x)))
    extent = (field[0] * pixel, field[1] * pixel)
    ky, kx = frequencies((shape_y, shape_x), xp)
    s2 = (ky * (shape_y / extent[0])) ** 2 + (kx * (shape_x / extent[1])) ** 2
    weights = xp.exp(-2 * _ENVELOPE_ANGSTROM2 * s2) * (1 - xp.exp(-s2 * (_LOW_CUT_ANGSTROM**2 / 2)))
    allowed = np.ones((shape_y, shape_x), dtype=np.bool_)
    for axis, size in enumerate((shape_y, shape_x)):
        distance = np.abs(np.fft.fftfreq(size)) * extent[axis]
        allowed &= np.expand_dims(distance <= min(max_shift_angstrom, 0.4 * extent[axis]), 1 - axis)
    scale = (extent[0] / shape_y / pixel_size_angstrom, extent[1] / shape_x / pixel_size_angstrom)
    return _Correlation(low, weights, (shape_y, shape_x), scale, allowed)


def _round(
    correlation: _Correlation, shifts: np.ndarray[Any, Any], neighbours: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return how far each group is from where it belongs, px of the movie, and the heights of the peaks.

    All groups step at once, so each goes only as far as brings it and the others together in their common mean.
    """
    xp = namespace(correlation.weights)
    aligned = []
    for transform, shift in zip(correlation.low, shifts / correlation.scale, strict=True):
        phase_y, phase_x = shift_phases(correlation.shape, (shift[0], shift[1]), xp)
        aligned.append(transform * phase_y * phase_x)
    everything = sum(aligned[1:], start=aligned[0])
    steps, heights = np.zeros_like(shifts), np.zeros(len(shifts))
    for t in range(len(aligned)):
        near = aligned[max(0, t - neighbours) : t + neighbours + 1]
        group = sum(near[1:], start=near[0])
        product = (everything - group) * xp.conj(group) * correlation.weights
        image = to_host(irfft2(product, correlation.shape))
        share = 1 - len(near) / len(aligned)
        steps[t] = _peak(image, correlation.allowed) * correlation.scale * share
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
