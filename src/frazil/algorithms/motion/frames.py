"""A movie's frames, corrected one at a time as they are needed, and what a first look at all of them tells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.defects import DefectParameters, find_bad_pixels, replace_bad_pixels
from frazil.algorithms.gain import FrameLevels, frame_levels
from frazil.array import Array, is_numpy, namespace, to_device, to_host
from frazil.kernels.gain import COMPILED_DTYPES, RawFrames, add_and_bin_frame, bin_image, correct_frame
from frazil.kernels.hot_pixels import draw_sources
from frazil.kernels.tiles import bin_raw
from frazil.primitives.filters import local_mean
from frazil.primitives.fourier import frequency_radius, rfft2

GROUPS_MAX = 75
_CONVERTED_TOGETHER = 8  # frames of other dtypes
_BACKGROUND_BLOCK_ANGSTROM = 100.0
_DIMMEST, _NOISIEST, _ABOUT_ZERO = 0.05, 3.0, 0.05
_PATTERN_BAND = (0.35, 0.5)
_PATTERN_FIELD_PX = 1024


@dataclass(frozen=True, slots=True)
class UsedFrames:
    """The frames of a movie from `first` to before `last`, from 0: itself a movie, `shape` and `movie[t]`."""

    movie: Any
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(frame, y, x)`."""
        return (self.last - self.first, *self.movie.shape[1:])

    def __getitem__(self, t: int) -> Any:
        return self.movie[self.first + t]


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
        return replace_bad_pixels(corrected, self.bad_positions, self.bad, self._generator(t))

    def binned(self, frames: range, factor: int) -> Array:
        """Return the sums of blocks of `factor` x `factor` px over the frames, `(y // factor, x // factor)` float32."""
        if not is_numpy(self.gain):
            image = self.frame(frames[0])
            for t in frames[1:]:
                image = image + self.frame(t)
            return bin_image(image, factor)
        out = np.zeros((self.shape[0] // factor, self.shape[1] // factor), np.float32)
        for _, raw in self.raw_blocks(frames):
            bin_raw(raw, factor, out)
        return out

    def raw_blocks(self, frames: Sequence[int]) -> Iterator[tuple[list[int], RawFrames]]:
        """Yield the frames as recorded with all that corrects them, and which they are: all at once where nothing is copied.

        Only for numpy: compiled kernels correct rows as they need them.
        """
        native = isinstance(self.movie, np.ndarray) and self.movie.dtype.name in COMPILED_DTYPES and self.movie.dtype.isnative
        size = len(frames) if native else _CONVERTED_TOGETHER
        bad_rows = np.searchsorted(self.bad_positions, np.arange(self.shape[0] + 1) * self.shape[1])
        for start in range(0, len(frames), size):
            part = [int(t) for t in frames[start : start + size]]
            if native:
                first, last = part[0], part[-1] + 1
                part = list(range(first, last))
                raw = np.asarray(self.movie[first:last])
            else:
                raw = np.stack([np.asarray(self.movie[t], dtype=np.float32) for t in part])
            levels = np.array([(self.levels[t].limit, self.levels[t].mean) for t in part], np.float32)
            sources = np.stack([draw_sources(self.bad_positions, self.bad, self._generator(t)) for t in part])
            yield part, RawFrames(raw, self.gain, levels, self.bad_positions, bad_rows, sources)

    def _generator(self, t: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, t))


@dataclass(frozen=True, slots=True)
class Survey:
    """What a first look at all frames tells.

    Frames of a movie with very many are aligned in groups of consecutive ones.

    Attributes
    ----------
    frames: the movie.
    total: `(y, x)` float32, sum of all corrected frames, unaligned, 0 at known bad pixels.
    fixed_pattern: see `fixed_pattern`.
    small: (group, y, x) float32, sums of blocks of `small_factor` x `small_factor` px, 0 at known bad pixels.
    group_size: frames per group; the last may hold fewer.
    shares: (group,) host, the part of the total's background that is in the group.
    brightness: (group,) host, electrons relative to the mean; 0 for groups that cannot be used.
    """

    frames: CorrectedFrames
    total: Array
    fixed_pattern: float
    small: Array
    small_factor: int
    group_size: int
    shares: np.ndarray[Any, Any]
    brightness: np.ndarray[Any, Any]

    def group(self, g: int) -> range:
        """Return the frames of a group."""
        return range(g * self.group_size, min((g + 1) * self.group_size, self.frames.frame_count))


def survey(movie: Any, gain: Array, defects: DefectParameters, small_factor: int, seed: int) -> Survey:
    """Read every frame once: add up, find the bad pixels, keep small copies.

    Parameters
    ----------
    movie: `(frame, y, x)`, host.
    gain: `(y, x)` float32 on the device that computes, 0 at known bad pixels.
    defects: when a pixel is bad.
    small_factor: px of the movie per px of the small copies.
    seed: for the draws that will replace bad pixels.
    """
    xp = namespace(gain)
    frame_count, height, width = movie.shape
    group_size = -(-frame_count // GROUPS_MAX)
    groups = -(-frame_count // group_size)
    small = xp.zeros((groups, height // small_factor, width // small_factor), dtype=xp.float32)
    totals = [xp.zeros((height, width), dtype=xp.float32) for _ in range(2)]
    levels = []
    for t in range(frame_count):
        frame = movie[t]
        levels.append(frame_levels(frame))
        half, g = 2 * t // frame_count, t // group_size
        everything = (math.inf, levels[t].mean)  # stray events too: a pixel that is always beyond the limit must show as hot
        totals[half], blocks = add_and_bin_frame(totals[half], to_device(frame, xp), gain, small_factor, everything)
        small[g, ...] = blocks + small[g, ...]
    total = totals[0] + totals[1]
    bad = find_bad_pixels(total, gain == 0, defects)
    pattern = fixed_pattern(totals[0], totals[1], bad) if frame_count > 1 else 0.0
    mask = to_host(bad)
    gain = xp.where(bad, xp.asarray(0.0, dtype=xp.float32), gain)
    frames = CorrectedFrames(movie, gain, mask, np.flatnonzero(mask), tuple(levels), seed)
    usable = usable_blocks(mask, small_factor, xp)
    sums = np.array([float(xp.sum(xp.where(usable, small[g, ...], 0.0), dtype=xp.float64)) for g in range(groups)])
    shares, brightness = _brightness(sums, [levels[t : t + group_size] for t in range(0, frame_count, group_size)])
    return Survey(frames, total, pattern, small, small_factor, group_size, shares, brightness)


def usable_blocks(bad: np.ndarray[Any, Any], factor: int, xp: Any) -> Array:
    """Return which blocks of `factor` x `factor` pixels hold no bad pixel, bool `(y // factor, x // factor)`."""
    return bin_image(xp.astype(xp.asarray(bad), xp.float32), factor) == 0


def _brightness(
    sums: np.ndarray[Any, Any], levels: list[list[FrameLevels]]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return each group's share of the total, and its brightness relative to the mean, 0 for groups beyond use.

    Blank frames and frames of rubbish (far wider spread than the others) are beyond use. Frames about zero, as some
    programs write them, are all taken as equally bright.
    """
    means = np.array([sum(frame.mean for frame in group) for group in levels])
    spreads = np.array([max(frame.spread for frame in group) for group in levels])
    usable = (spreads > 0) & (spreads < _NOISIEST * max(float(np.median(spreads)), 1e-30))
    if not usable.any() or np.median(means) < _ABOUT_ZERO * np.median(spreads):
        return np.full(len(sums), 1.0 / len(sums)), usable.astype(np.float64)
    usable &= means > _DIMMEST * np.median(means)
    brightness = np.where(usable, sums, 0.0)
    return sums / sums.sum(), brightness / float(brightness[usable].mean())


def background_of(total: Array, good: Array | None, pixel_size_angstrom: float) -> Array:
    """Return illumination and thickness in a sum of frames: its mean over some hundreds of Å.

    Finer than that it would hold the specimen itself, which, taken away from every frame, would stay as a ghost that does not
    move. It is to be subtracted, not divided by: noise and signal of counts both grow with the background, so a difference
    carries every region at its due weight.
    """
    block = min(_BACKGROUND_BLOCK_ANGSTROM / pixel_size_angstrom, min(total.shape) / 5)
    return local_mean(total, good, max(1, int(block)))


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
