"""Peaks of a score map over a reduced micrograph: which of them noise does not explain, and what a pick records of them.

How many peaks noise alone would give is measured on images with the background's spectrum and random phases. Peaks are accepted
as long as the expected share of false ones stays small; accepted particles are masked out, the background is measured
again, and so on until nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage
from scipy.spatial import cKDTree

from frazil.algorithms.detection.reduction import Reduced
from frazil.array import Array, namespace, to_device, to_host
from frazil.model.errors import InputError
from frazil.model.particles import Candidates, Pick
from frazil.primitives.fourier import rfft2
from frazil.primitives.masks import discs, soft_disc
from frazil.primitives.matching import HostFloats, Matcher
from frazil.primitives.peaks import Points, local_maxima, separated, subpixel

_EDGE_DIAMETERS = 0.1
_REACH_DIAMETERS = 1.1
_NULL_IMAGES = 2
_NULL_ROUNDS = 6
_COVER_DIAMETERS = 0.75
_BACKGROUND_FIRST = 0.7  # where the search for the threshold begins: with the best peaks on up to 0.3 of the area covered
_BACKGROUND_LEAST = 0.15  # share of the micrograph that must be left to measure the background on
_FEW = 2.0  # with so few peaks only half the share of false ones is allowed: a lone peak must be beyond doubt
_LAST_PART, _LAST_LEAST, _LAST_SHARE = 6, 3, 0.5
_SPARE_RATIO, _SPARE_LEAST = 2, 200  # how many peaks below the threshold are kept, for people who loosen it
_CONTAMINATION_RATIOS, _CONTAMINATION_DEVIATIONS = (3.0, 5.0), 4.0
_DISTURBED_DIAMETERS = 0.25
_SHADOW_DIAMETERS, _SHADOW_SHARE = 1.25, 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Which peaks become picks."""

    false_share: float = 0.2  # expected share of false picks at the threshold that is found from the micrograph itself
    score_min: float | None = None  # normalised cross-correlation; in place of the threshold found
    power_min: float | None = None  # z-scores of the local log power
    power_max: float | None = None
    min_distance_diameters: float = 0.75
    max_picks: int = 4000

    def __post_init__(self) -> None:
        if not 0.0 < self.false_share < 1.0 or self.max_picks < 1 or not self.min_distance_diameters >= 0.0:
            raise InputError("PICK_PARAMETERS", "Give a share of false picks between 0 and 1, and at least one pick.")


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks (n, 2) of a score map, highest first: the first `count` are those that noise does not explain."""

    points: Points
    count: int


class PeakSearch:
    """A reduced micrograph with what is needed to judge peaks over it; `matcher` correlates it with templates."""

    def __init__(self, reduced: Reduced, limits: Limits) -> None:
        self.reduced, self.limits, self.diameter_px = reduced, limits, reduced.diameter_px
        small = reduced.image
        self.xp: Any = namespace(small)
        self.matcher = Matcher(small, math.ceil(_REACH_DIAMETERS * self.diameter_px) + 2)
        inner = soft_disc(self.matcher.radius, 0.5 * self.diameter_px, 1.0)
        squares = Matcher(small * small, self.matcher.margin).correlate(inner / inner.sum())
        self.log_power: HostFloats = np.log(np.maximum(to_host(squares), 1e-6))

    def peaks(self, score: HostFloats) -> Points:
        """Return the peaks of a map that are far enough apart, highest first."""
        points = local_maxima(score, max(1.0, _EDGE_DIAMETERS * self.diameter_px))
        points = points[~self.reduced.blocked[points[:, 0], points[:, 1]]]
        return points[separated(points, self.limits.min_distance_diameters * self.diameter_px)]

    def accepted(
        self,
        score: HostFloats,
        score_of_noise: Callable[[Array], HostFloats],
        rng: np.random.Generator,
        *,
        rounds: int = _NULL_ROUNDS,
    ) -> Peaks:
        """Find the peaks of a map, and how many of them noise does not explain.

        Parameters
        ----------
        score: `(y, x)`, of the reduced micrograph.
        score_of_noise: the same map, up to a factor, of a padded image given by its half transform.
        rng: of the random phases.
        rounds: how often, at most, the background is measured.
        """
        points = self.peaks(score)
        values = score[points[:, 0], points[:, 1]]
        count, covering = 0, self._most(points, _BACKGROUND_FIRST)
        most = self._most(points, _BACKGROUND_LEAST)
        for _ in range(rounds):
            mask = self._covered(points[:covering])
            centre, spread = level_below(score[~mask])
            if spread <= 0.0:
                break
            null = self._null_peaks(mask, score_of_noise, rng)
            expected = _tail_count(null, (values - centre) / spread) / _NULL_IMAGES
            before, count = count, count_accepted(expected, self.limits.false_share)
            if count in (before, 0):
                break
            covering = min(count, most)
        return Peaks(points, count)

    def _covered(self, points: Points) -> npt.NDArray[np.bool_]:
        return self.reduced.blocked | discs(self.matcher.shape, points, _COVER_DIAMETERS * self.diameter_px)

    def _most(self, points: Points, background: float) -> int:
        """Return how many peaks can be covered so that a share of the micrograph is left as background."""
        low, high = 0, len(points)
        while low < high:
            middle = (low + high + 1) // 2
            if float(np.mean(~self._covered(points[:middle]))) < background:
                high = middle - 1
            else:
                low = middle
        return low

    def undisturbed(self, points: Points, reference: Points) -> Points:
        """Return the points that are not near anything of far more power than the reference points have."""
        values = self.log_power[reference[:, 0], reference[:, 1]]
        middle = float(np.median(values))
        low, high = (math.log(ratio) for ratio in _CONTAMINATION_RATIOS)
        spread = 1.4826 * float(np.median(np.abs(values - middle)))
        limit = middle + min(max(low, _CONTAMINATION_DEVIATIONS * spread), high)
        strong = self.log_power > limit
        if not strong.any():
            return points
        distance = scipy.ndimage.distance_transform_edt(~strong)
        return points[distance[points[:, 0], points[:, 1]] > _DISTURBED_DIAMETERS * self.diameter_px]

    def candidates(self, peaks: Peaks, score: HostFloats, diameter_map_angstrom: HostFloats | float) -> Candidates:
        """Return picks, in px of the full micrograph, with some that noise could explain; shadows of others are left out.

        `diameter_map_angstrom` `(y, x)`: of a particle at each pixel of the score map, or one for all.
        """
        found = peaks.points[: peaks.count]
        points = peaks.points[: (1 + _SPARE_RATIO) * peaks.count + _SPARE_LEAST]
        points = points[score[points[:, 0], points[:, 1]] > 0.0]
        if peaks.count:
            points = self.undisturbed(points, found)
        points = points[~shadows(points, score[points[:, 0], points[:, 1]], _SHADOW_DIAMETERS * self.diameter_px)]
        diameters = np.broadcast_to(diameter_map_angstrom, score.shape)[points[:, 0], points[:, 1]]
        threshold = float(score[found[-1, 0], found[-1, 1]]) if peaks.count else math.inf
        return Candidates(picks=self._records(points, score, diameters), score_min=threshold)

    def _records(self, points: Points, score: HostFloats, diameters_angstrom: npt.NDArray[Any]) -> tuple[Pick, ...]:
        places, power = subpixel(score, points), self._power(points)
        return tuple(
            Pick(
                x_px=float(place[1] * self.reduced.scale_x),
                y_px=float(place[0] * self.reduced.scale_y),
                score=float(score[y, x]),
                power=float(z),
                diameter_angstrom=float(diameter),
            )
            for (y, x), place, z, diameter in zip(points, places, power, diameters_angstrom, strict=True)
        )

    def _null_peaks(
        self, mask: npt.NDArray[np.bool_], score_of_noise: Callable[[Array], HostFloats], rng: np.random.Generator
    ) -> npt.NDArray[Any]:
        """Return the peaks of images of background alone, in deviations of their maps."""
        xp, small = self.xp, self.reduced.image
        background = xp.where(to_device(mask, xp), xp.zeros_like(small), small)
        amplitude = xp.abs(Matcher(background, self.matcher.margin).transform)
        null = []
        for _ in range(_NULL_IMAGES):
            white = rfft2(to_device(rng.standard_normal(self.matcher.padded.shape, dtype=np.float32), xp))
            unit = white / xp.maximum(xp.abs(white), xp.asarray(1e-20, dtype=amplitude.dtype))
            noise = score_of_noise(unit * amplitude)
            centre, spread = level_below(noise)
            peaks = self.peaks(noise)
            null.append((noise[peaks[:, 0], peaks[:, 1]] - centre) / max(spread, 1e-20))
        return np.concatenate(null)

    def _power(self, points: Points) -> HostFloats:
        """Return the z-score of the local log power at points."""
        middle = float(np.median(self.log_power))
        spread = 1.4826 * float(np.median(np.abs(self.log_power - middle)))
        return np.asarray((self.log_power[points[:, 0], points[:, 1]] - middle) / max(spread, 1e-6))


def shadows(points: Points, score: npt.NDArray[Any], reach_px: float) -> npt.NDArray[np.bool_]:
    """Say which peaks (n, 2), highest first, are shadows: near one of about twice their score, of which they see a part."""
    shadow = np.zeros(len(points), dtype=np.bool_)
    tree = cKDTree(points)
    for i, point in enumerate(points):
        shadow[i] = score[i] < _SHADOW_SHARE * score[tree.query_ball_point(point, reach_px)].max()
    return shadow


def count_accepted(expected: npt.NDArray[np.float64], false_share: float) -> int:
    """Return how many peaks to accept.

    The share of false ones may exceed neither `false_share` among all of them nor one half among the last sixth, which
    stops at the gap where particles end and noise begins.

    Parameters
    ----------
    expected: for each peak, highest first, how many false peaks at least as high are expected.
    false_share: highest share.
    """
    rank = np.arange(1, expected.size + 1)
    before = np.maximum(rank - np.maximum(_LAST_LEAST, rank // _LAST_PART), 0)
    until_then = np.where(before > 0, expected[np.maximum(before - 1, 0)], 0.0)
    last = (expected - until_then) / (rank - before)
    careful = false_share * rank / (rank + _FEW)
    passing = np.flatnonzero((expected / rank <= careful) & (last <= _LAST_SHARE))
    return int(passing[-1]) + 1 if passing.size else 0


def level_below(values: HostFloats) -> tuple[float, float]:
    """Return the median, and the standard deviation judged by the values below it: particles are above."""
    centre = float(np.median(values))
    below = values[values <= centre]
    return centre, 1.4826 * float(np.median(centre - below))


def _tail_count(null: npt.NDArray[Any], z: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return how many of the null peaks are at or above z; beyond the highest quarter an exponential tail is fitted."""
    null = np.sort(null)
    tail = max(12, null.size // 4)
    if null.size < tail + 1:
        return np.full(z.shape, float(null.size))
    start = null[-tail]
    decay = max(float(np.mean(null[-tail:] - start)), 1e-6)
    counted = null.size - np.searchsorted(null, z)
    return np.where(z > start, tail * np.exp(-np.maximum(z - start, 0.0) / decay), counted)
