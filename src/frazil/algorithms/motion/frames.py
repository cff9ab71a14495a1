"""A movie's frames, corrected one at a time as they are needed, and what a first look at all of them tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.defects import DefectParameters, find_bad_pixels, replace_bad_pixels
from frazil.algorithms.gain import FrameLevels, frame_levels
from frazil.array import Array, namespace, to_device, to_host
from frazil.kernels.gain import add_corrected_frame, correct_frame
from frazil.primitives.fourier import frequency_radius, rfft2

_PATTERN_BAND = (0.35, 0.5)
_PATTERN_FIELD_PX = 1024


@dataclass(frozen=True, slots=True)
class CorrectedFrames:
    """The frames of a movie after gain correction, stray events and bad pixels replaced; nothing is kept but the raw movie.

    Attributes
    ----------
    movie: `(frame, y, x)` as recorded, on the host: anything with `shape` that gives frame t as `movie[t]`.
    gain: `(y, x)` float32 on the device, 0 at all bad pixels.
    bad: `(y, x)` bool, host. bad_positions: flat positions of its true pixels, host.
    levels: per frame, what its counts are like.
    seed: of the draws that replace bad pixels; a frame is the same each time it is asked for.
    """

    movie: Any
    gain: Array
    bad: np.ndarray[Any, Any]
    bad_positions: np.ndarray[Any, Any]
    levels: tuple[FrameLevels, ...]
    seed: int

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return int(self.movie.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape `(y, x)` of a frame."""
        return int(self.movie.shape[1]), int(self.movie.shape[2])

    def frame(self, t: int) -> Array:
        """Return frame t, `(y, x)` float32, a new array on the device."""
        xp = namespace(self.gain)
        corrected = correct_frame(to_device(self.movie[t], xp), self.gain, self.levels[t].limit, self.levels[t].mean)
        generator = np.random.default_rng((self.seed, t))
        return replace_bad_pixels(corrected, self.bad_positions, self.bad, generator)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a first look at all frames tells.

    Attributes
    ----------
    total: `(y, x)` float32, sum of all corrected frames, unaligned, 0 at known bad pixels.
    fixed_pattern: see `fixed_pattern`.
    """

    frames: CorrectedFrames
    total: Array
    fixed_pattern: float


def survey(movie: Any, gain: Array, defects: DefectParameters, seed: int) -> Survey:
    """Read every frame once: add up, find the bad pixels.

    Parameters
    ----------
    movie: `(frame, y, x)`, host.
    gain: `(y, x)` float32 on the device that computes, 0 at known bad pixels.
    defects: when a pixel is bad.
    seed: for the draws that will replace bad pixels.
    """
    xp = namespace(gain)
    totals = [xp.zeros(gain.shape, dtype=xp.float32) for _ in range(2)]
    levels = []
    for t in range(movie.shape[0]):
        frame = movie[t]
        levels.append(frame_levels(frame))
        half = 2 * t // movie.shape[0]
        totals[half] = add_corrected_frame(totals[half], to_device(frame, xp), gain, levels[t].limit, levels[t].mean)
    total = totals[0] + totals[1]
    bad = find_bad_pixels(total, gain == 0, defects)
    pattern = fixed_pattern(totals[0], totals[1], bad) if movie.shape[0] > 1 else 0.0
    mask = to_host(bad)
    gain = xp.where(bad, xp.asarray(0.0, dtype=xp.float32), gain)
    frames = CorrectedFrames(movie, gain, mask, np.flatnonzero(mask), tuple(levels), seed)
    return Survey(frames, total, pattern)


def fixed_pattern(first: Array, second: Array, bad: Array) -> float:
    """Correlate the unaligned sums of a movie's two halves near Nyquist, where only the detector has detail.

    A specimen has next to nothing there that lasts; a wrong gain reference has its pattern in all frames and gives a value
    well above 0, which pulls an alignment towards no motion. The middle of the field is enough.
    """
    xp = namespace(first)
    shape = (min(first.shape[0], _PATTERN_FIELD_PX), min(first.shape[1], _PATTERN_FIELD_PX))
    window = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(first.shape, shape, strict=True))
    good = xp.astype(~bad[window], first.dtype)
    share = max(float(xp.sum(good)), 1.0)
    fields = [image[window] for image in (first, second)]
    a, b = (rfft2((field - float(xp.sum(field * good)) / share) * good) for field in fields)
    radius = to_host(frequency_radius(shape, xp))
    ring = xp.asarray(np.flatnonzero((radius >= _PATTERN_BAND[0]) & (radius <= _PATTERN_BAND[1])))
    a, b = (to_host(xp.take(xp.reshape(part, (-1,)), ring)) for part in (a, b))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b).real / norm) if norm > 0 else 0.0
