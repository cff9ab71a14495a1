"""Does a gain reference lie over the movies as it should? Answered by the movies' own pattern, in all eight orientations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.primitives.filters import local_mean

CLEAR_SIGMA = 8.0
"""Distance from chance, in standard deviations, from which a correlation is believed."""

_PIXELS_MAX = 4_000_000  # more make no correlation clearer
_EXPECTED_SHARE = 0.25  # of the correlation that a fitting gain would show: below it none fits

Image = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class GainOrientation:
    """One of the eight ways to lay a gain reference over a movie, and how well it cancels the movie's pattern.

    Rotated by `rotate` times 90 degrees as `io.gain_reference` does, then flipped left to right if `flip_x`.
    `correlation` is that of log gain and log mean frame: negative where a factor cancels a pixel's sensitivity.
    """

    rotate: int
    flip_x: bool
    correlation: float

    def after(self, rotate: int, flip: str) -> tuple[int, str]:
        """Return the gain rotation and flip that do at once what `rotate` and `flip` do, and then this orientation."""
        first, mirrored = (rotate + 2 * (flip == "y")) % 4, flip in ("x", "y")  # upside down is left to right, turned by half
        turned = first - self.rotate if mirrored else first + self.rotate
        return turned % 4, "x" if mirrored != self.flip_x else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class GainEvidence:
    """What the movies say of a gain reference.

    Attributes
    ----------
    ranked: orientations whose shape fits, relative to the gain as given, most negative correlation first.
    sigma: standard deviation of these correlations by chance.
    expected: correlation (negative) that a fitting gain would show, given its own spread and the counts of the movies.
    """

    ranked: tuple[GainOrientation, ...]
    sigma: float
    expected: float

    @property
    def as_given(self) -> GainOrientation:
        """The gain as it was given."""
        return next(one for one in self.ranked if one.rotate == 0 and not one.flip_x)

    @property
    def clear(self) -> bool:
        """Whether there are counts enough to tell a fitting gain from chance."""
        return -self.expected * _EXPECTED_SHARE > CLEAR_SIGMA * self.sigma

    @property
    def better(self) -> GainOrientation | None:
        """The orientation that fits where the given one does not; None where there is none."""
        best = self.ranked[0]
        fits = best.correlation < min(_EXPECTED_SHARE * self.expected, -CLEAR_SIGMA * self.sigma)
        ahead = self.as_given.correlation - best.correlation > CLEAR_SIGMA * self.sigma
        return best if fits and ahead else None

    @property
    def inverse(self) -> GainOrientation | None:
        """The orientation in which the gain has the movies' own pattern, being of the opposite sense; None without one."""
        last = self.ranked[-1]
        limit = max(-_EXPECTED_SHARE * self.expected, CLEAR_SIGMA * self.sigma)
        return last if last.correlation > limit and last.correlation > -self.ranked[0].correlation else None


def weigh_orientations(gain: Image, total: Image) -> GainEvidence:
    """Compare a gain reference in all fitting orientations with the raw movies.

    Parameters
    ----------
    gain: `(y, x)` float, multiplicative, 0 at defects, in the orientation that is to be judged.
    total: `(y, x)`, the sum of the unaligned raw frames of one movie or more: counts.

    Returns
    -------
    The evidence; the first of `ranked` should be the gain as given, with a clearly negative correlation.
    """
    pattern, seen = _log_pattern(total)
    reference, usable = _log_pattern(gain)
    step = max(1, math.isqrt(total.size // _PIXELS_MAX))
    ranked, pixels = [], 1
    for rotate in range(4):
        for flip_x in (False, True):
            turned, good = (_turned(image, rotate, flip_x) for image in (reference, usable))
            if turned.shape != total.shape:
                continue
            both = (good & seen)[::step, ::step]
            correlation = _correlation(pattern[::step, ::step][both], turned[::step, ::step][both])
            ranked.append(GainOrientation(rotate, flip_x, correlation))
            pixels = max(pixels, int(both.sum()))
    spread = float(reference[usable].std()) if usable.any() else 0.0
    counts = float(np.mean(total[seen])) if seen.any() else 0.0
    expected = -spread / math.sqrt(spread**2 + 1.0 / max(counts, 1e-6)) if spread else 0.0
    ranked.sort(key=lambda orientation: orientation.correlation)
    return GainEvidence(ranked=tuple(ranked), sigma=1.0 / math.sqrt(pixels), expected=expected)


def gain_sentence(evidence: GainEvidence, rotate: int, flip: str) -> str:
    """Say what is wrong with a gain that was turned by `rotate` and `flip`; empty when nothing is, or nothing can be told."""
    given = f"as set (rotation {rotate}, flip {flip}) they correlate by {evidence.as_given.correlation:+.3f}"
    better, inverse = evidence.better, evidence.inverse
    if inverse is not None:
        turned = inverse.after(rotate, flip)
        return (
            "The gain reference has the movies' own pattern in place of its inverse: set the other gain sense"
            + (f", rotation {turned[0]} and flip {turned[1]}" if inverse != evidence.as_given else "")
            + f" (correlation {inverse.correlation:+.3f})."
        )
    if better is not None:
        turned = better.after(rotate, flip)
        return (
            f"The gain reference fits the movies with gain rotation {turned[0]} and flip {turned[1]} "
            f"(correlation {better.correlation:+.3f}, by chance {evidence.sigma:.3f}); {given}."
        )
    if evidence.clear and evidence.as_given.correlation > _EXPECTED_SHARE * evidence.expected:
        return (
            f"The gain reference fits the movies in no orientation; {given} where about {evidence.expected:+.2f} is expected. "
            "Is it of this camera, or are the movies corrected already?"
        )
    return ""


def _turned(image: Image, rotate: int, flip_x: bool) -> Image:
    turned = np.rot90(image, k=-rotate)
    return turned[:, ::-1] if flip_x else turned


def _correlation(first: Image, second: Image) -> float:
    """Return Pearson's correlation of two patterns; 0 where one of them is flat."""
    if first.size < 2 or not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _log_pattern(image: Image) -> tuple[Image, Image]:
    """Return the fine structure of the logarithm, and where it exists."""
    good = np.isfinite(image) & (image > 0)
    logarithm = np.log(np.where(good, image, 1.0)).astype(np.float32)
    return logarithm - local_mean(logarithm, good), good
