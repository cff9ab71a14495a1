"""Blob picker: finds particles from their diameter alone, and learns their profile from the micrograph.

1. The micrograph is reduced until the diameter is 20 px, high-passed at the diameter and inverted.
2. Balls and rings of a few sizes are matched with it (local normalised cross-correlation); each map is put in units of its
   own noise, so that shapes compare fairly.
3. The best peaks are averaged to a radial profile, which is the template of the next round, twice. It holds whatever these
   particles look like under this CTF: filled or hollow, with fringes or without.
4. How many peaks noise would give is measured on images with the background's spectrum and random phases. Peaks are accepted
   as long as the expected share of false ones among them stays small; accepted particles are masked out, the background is
   measured again, and so on until nothing changes.
5. What is much larger than a particle is left out from the start; picks with far more power than the others, at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from frazil.algorithms.contamination import background_level, contamination, flattened
from frazil.array import Array, namespace, to_device, to_host
from frazil.kernels.shells import shell_sums
from frazil.model.errors import InputError
from frazil.model.particles import Pick
from frazil.primitives.fourier import fourier_crop, friendly_size, rfft2
from frazil.primitives.masks import Mask, discs, soft_disc
from frazil.primitives.matching import HostFloats, RadialMatcher, gaussian_high_pass
from frazil.primitives.peaks import Points, local_maxima, separated, subpixel

TITLE = "Blob picker"

_DIAMETER_PX = 20.0  # of a particle in the reduced micrograph
_SIDE_MIN_DIAMETERS = 2.0  # a micrograph smaller than this has no background
_CLIP_DEVIATIONS = 6.0
_SMALLEST = 0.6  # of the least diameter: projections are smaller than the particle is long
_SCALES = (3, 5)  # fewest and most sizes
_SCALE_RATIO = 1.3
_EDGE_DIAMETERS = 0.1
_LEARN_REFERENCE, _LEARN_FROM, _LEARN_AT_LEAST, _LEARN_ROUNDS = 16, 40, 8, 2
_NULL_IMAGES = 2
_NULL_ROUNDS = 6
_COVER_DIAMETERS = 0.75
_BACKGROUND_LEAST = 0.15  # share of the micrograph that must be left to measure the background on
_FEW = 2.0  # with so few peaks only half the share of false ones is allowed: a lone peak must be beyond doubt
_LAST_PART, _LAST_LEAST, _LAST_SHARE = 6, 3, 0.5
_CONTAMINATION_RATIOS, _CONTAMINATION_DEVIATIONS = (3.0, 5.0), 4.0
_DISTURBED_DIAMETERS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobParameters:
    """What to look for. With one diameter given, it is the largest extent of the particle.

    Thresholds that are None are found from the micrograph itself; given ones apply as well.
    """

    diameter_min_angstrom: float
    diameter_max_angstrom: float
    false_share: float = 0.2  # expected share of false picks at the threshold
    score_min: float | None = None  # normalised cross-correlation
    power_min: float | None = None  # z-scores of the local log power
    power_max: float | None = None
    min_distance_diameters: float = 0.75
    max_picks: int = 4000

    def __post_init__(self) -> None:
        if not 0.0 < self.diameter_min_angstrom <= self.diameter_max_angstrom < math.inf:
            raise InputError(
                "PICK_DIAMETER", "Give a particle diameter in Å: positive, the minimum no larger than the maximum."
            )
        if not 0.0 < self.false_share < 1.0 or self.max_picks < 1 or self.min_distance_diameters < 0.0:
            raise InputError("PICK_PARAMETERS", "Give a share of false picks between 0 and 1, and at least one pick.")

    @property
    def diameter_angstrom(self) -> float:
        """The nominal diameter: geometric mean of the least and the greatest."""
        return math.sqrt(self.diameter_min_angstrom * self.diameter_max_angstrom)

    @property
    def scales_angstrom(self) -> tuple[float, ...]:
        """The diameters of the templates."""
        low, high = _SMALLEST * self.diameter_min_angstrom, self.diameter_max_angstrom
        count = min(max(_SCALES[0], round(math.log(high / low) / math.log(_SCALE_RATIO)) + 1), _SCALES[1])
        return tuple(float(d) for d in np.geomspace(low, high, count))


Parameters = BlobParameters


def pick(micrograph: Array, parameters: BlobParameters, *, pixel_size_angstrom: float, seed: int) -> tuple[Pick, ...]:
    """Pick particles in a dose-weighted micrograph, protein dark.

    Parameters
    ----------
    micrograph: `(y, x)`, real; pixels that are not finite count as background.
    parameters: the diameter, and thresholds where wanted.
    pixel_size_angstrom: of the micrograph.
    seed: of the random phases of the noise estimate.

    Returns
    -------
    Picks, highest score first: `score` is the normalised cross-correlation with the learnt profile, `power` the z-score of
    the local log power. A constant image, or one smaller than two diameters, has none.
    """
    diameter_px = parameters.diameter_angstrom / pixel_size_angstrom
    if min(micrograph.shape) < _SIDE_MIN_DIAMETERS * diameter_px:
        return ()
    largest_px = parameters.diameter_max_angstrom / pixel_size_angstrom
    reduced = _reduced(micrograph, diameter_px, largest_px)
    if reduced is None:
        return ()
    d = diameter_px / math.sqrt(reduced.scale_y * reduced.scale_x)
    search = _Search(reduced, d, parameters)
    sizes = [s / parameters.diameter_angstrom * d for s in parameters.scales_angstrom]
    template, size_map = search.learn(sizes)
    points = search.accepted(template, np.random.default_rng(seed))
    return _records(search, points, size_map * np.float32(diameter_px * pixel_size_angstrom / d))


class _Search:
    """The reduced micrograph, and the maps made of it."""

    def __init__(self, reduced: _Reduced, diameter_px: float, parameters: BlobParameters) -> None:
        self.d, self.parameters, self.reduced = diameter_px, parameters, reduced
        small = reduced.image
        self.matcher = RadialMatcher(small, math.ceil(1.1 * diameter_px) + 2)
        self.xp: Any = namespace(small)
        inner = soft_disc(self.matcher.radius, 0.5 * diameter_px, 1.0)
        squares = RadialMatcher(small * small, self.matcher.margin).correlate(inner / inner.sum())
        self.log_power: HostFloats = np.log(np.maximum(to_host(squares), 1e-6))
        self.score: HostFloats = np.zeros(self.matcher.shape, np.float32)

    def peaks(self, score: HostFloats) -> Points:
        """Return the peaks of a map that are far enough apart, highest first."""
        points = local_maxima(score, max(1.0, _EDGE_DIAMETERS * self.d))
        points = points[~self.reduced.blocked[points[:, 0], points[:, 1]]]
        return points[separated(points, self.parameters.min_distance_diameters * self.d)]

    def learn(self, sizes_px: list[float]) -> tuple[HostFloats, HostFloats]:
        """Set `score` by matching shapes, then learnt profiles; returns the last template and the best size at each pixel."""
        ranking, size_map = self._shapes(sizes_px)
        template = self._shape(0.5 * (sizes_px[0] + sizes_px[-1]), hollow=False)
        window = self._window(self.d)
        for _ in range(_LEARN_ROUNDS):
            points = self.peaks(ranking)
            points = self._undisturbed(points, points[:_LEARN_REFERENCE])[:_LEARN_FROM]
            if len(points) < _LEARN_AT_LEAST:
                break
            template = self._profile(points, window)
            ranking = to_host(self.matcher.ncc(template, window))
        self.score = to_host(self.matcher.ncc(template, window))
        return template, size_map

    def accepted(self, template: HostFloats, rng: np.random.Generator) -> Points:
        """Return the peaks that noise does not explain."""
        points = self.peaks(self.score)
        values = self.score[points[:, 0], points[:, 1]]
        mask, count = self.reduced.blocked, 0
        if mask.all():
            return points[:0]
        for _ in range(_NULL_ROUNDS):
            centre, spread = _background_level(self.score[~mask])
            if spread <= 0.0:
                break
            expected = self._expected_false((values - centre) / spread, template, mask, rng)
            found = _count_accepted(expected, self.parameters.false_share)
            if found <= count:
                break
            count = found
            covered = self.reduced.blocked | discs(self.matcher.shape, points[:count], _COVER_DIAMETERS * self.d)
            if float(np.mean(~covered)) < _BACKGROUND_LEAST:
                break
            mask = covered
        return self._within_limits(points[:count])

    def _shapes(self, sizes_px: list[float]) -> tuple[HostFloats, HostFloats]:
        best = np.full(self.matcher.shape, -np.inf, dtype=np.float32)
        size_map = np.zeros(self.matcher.shape, dtype=np.float32)
        for size in sizes_px:
            window = self._window(0.75 * size)
            for hollow in (False, True):
                score = _evidence(to_host(self.matcher.ncc(self._shape(size, hollow=hollow), window)), float(window.sum()))
                size_map[score > best] = size
                best = np.maximum(best, score)
        return best, size_map

    def _shape(self, size: float, *, hollow: bool) -> HostFloats:
        """Return the projection of a ball, or a ring, high-passed like the micrograph."""
        radius = self.matcher.radius
        if hollow:
            shape = soft_disc(radius, 0.5 * size, 0.15 * size) - 0.8 * soft_disc(radius, 0.325 * size, 0.15 * size)
        else:
            shape = np.sqrt(np.maximum(1.0 - (2.0 * radius / size) ** 2, 0.0))
        return self.matcher.high_passed(shape.astype(np.float32), self.d)

    def _window(self, reach: float) -> HostFloats:
        return soft_disc(self.matcher.radius, reach, 1.0).astype(np.float32)

    def _profile(self, points: Points, window: HostFloats) -> HostFloats:
        """Return the radial average of the image around points, as a template."""
        reach = min(math.ceil(self.d), self.matcher.margin)
        mean = self.xp.mean(self.matcher.patches(points, reach), axis=0)
        y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
        rings = np.round(np.hypot(y, x)).astype(np.int64)
        ones = np.ones(rings.shape, np.float32)
        sums = to_host(shell_sums(mean, to_device(rings, self.xp), reach + 1))
        profile = sums / np.bincount(rings.ravel(), ones.ravel())[: reach + 1]
        profile = np.convolve(np.pad(profile, 1, mode="edge"), [0.2, 0.6, 0.2], mode="valid")
        taper = np.clip((self.d - self.matcher.radius) / (0.25 * self.d), 0.0, 1.0)
        shape = np.asarray(np.interp(self.matcher.radius, np.arange(reach + 1), profile))
        shape = (shape - (shape * window).sum() / window.sum()) * taper
        return np.asarray(shape, dtype=np.float32)

    def _expected_false(
        self, z: npt.NDArray[Any], template: HostFloats, mask: Mask, rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Return how many peaks at or above each z (n,) one micrograph of background alone would have."""
        xp = self.xp
        small = self.reduced.image
        background = xp.where(to_device(mask, xp), xp.zeros_like(small), small)
        amplitude = xp.abs(RadialMatcher(background, self.matcher.margin).transform)
        null = []
        for _ in range(_NULL_IMAGES):
            white = rng.standard_normal(self.matcher.padded.shape, dtype=np.float32)
            noise = to_host(self.matcher.correlate_noise(template, amplitude, rfft2(to_device(white, xp))))
            centre, spread = _background_level(noise)
            peaks = self.peaks(noise)
            null.append((noise[peaks[:, 0], peaks[:, 1]] - centre) / max(spread, 1e-20))
        return _tail_count(np.concatenate(null), z) / _NULL_IMAGES

    def _within_limits(self, points: Points) -> Points:
        if len(points) == 0:
            return points
        points = self._undisturbed(points, points)
        z = self.power(points)
        score = self.score[points[:, 0], points[:, 1]]
        keep = np.ones(len(points), dtype=np.bool_)
        p = self.parameters
        for values, low, high in ((z, p.power_min, p.power_max), (score, p.score_min, None)):
            keep &= (values >= low) if low is not None else True
            keep &= (values <= high) if high is not None else True
        return points[keep][: p.max_picks]

    def power(self, points: Points) -> HostFloats:
        """Return the z-score of the local log power at points."""
        middle = float(np.median(self.log_power))
        spread = 1.4826 * float(np.median(np.abs(self.log_power - middle)))
        return np.asarray((self.log_power[points[:, 0], points[:, 1]] - middle) / max(spread, 1e-6))

    def _undisturbed(self, points: Points, reference: Points) -> Points:
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
        return points[distance[points[:, 0], points[:, 1]] > _DISTURBED_DIAMETERS * self.d]


def _count_accepted(expected: npt.NDArray[np.float64], false_share: float) -> int:
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


def _evidence(ncc: HostFloats, pixels: float) -> HostFloats:
    """Return the signed root of twice the log-likelihood ratio of a template against white noise of unknown strength.

    For small correlations it is their z-score, `ncc sqrt(pixels)`; near 1 it grows beyond all bounds.
    """
    return np.asarray(np.sign(ncc) * np.sqrt(-pixels * np.log1p(-np.minimum(ncc * ncc, 0.999))), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Reduced:
    """The reduced micrograph: inverted, flat, in units of its noise; what is contaminated; by how much it was reduced."""

    image: Array
    blocked: Mask
    scale_y: float
    scale_x: float


def _reduced(micrograph: Array, diameter_px: float, largest_px: float) -> _Reduced | None:
    """Return the reduced micrograph; None for a constant one."""
    xp = namespace(micrograph)
    image = _about_zero(xp.astype(micrograph, xp.float32))
    if image is None:
        return None
    factor = max(1.0, diameter_px / _DIAMETER_PX)
    height, width = image.shape
    shape = (min(height, friendly_size(round(height / factor))), min(width, friendly_size(round(width / factor))))
    scale_y, scale_x = height / shape[0], width / shape[1]
    sigma = diameter_px / math.sqrt(scale_y * scale_x)
    flat = flattened(-to_host(fourier_crop(image, shape)))
    blocked = contamination(flat, largest_px * sigma / diameter_px)
    limit = np.float32(_CLIP_DEVIATIONS * background_level(flat)[1])  # before the high pass spreads what is too strong
    flat = np.where(blocked, np.float32(0.0), np.clip(flat, -limit, limit))
    matcher = RadialMatcher(to_device(flat, xp), math.ceil(3.0 * sigma))
    small = matcher.filtered(gaussian_high_pass((matcher.padded.shape[0], matcher.padded.shape[1]), sigma, xp))
    host = to_host(small)[~blocked]
    spread = 1.4826 * float(np.median(np.abs(host))) if host.size else 0.0
    if spread <= 0.0:
        return None
    small = xp.clip(small / spread, -_CLIP_DEVIATIONS, _CLIP_DEVIATIONS)
    return _Reduced(xp.where(to_device(blocked, xp), xp.zeros_like(small), small), blocked, scale_y, scale_x)


def _about_zero(image: Array) -> Array | None:
    """Return the image less its mean, pixels that are not finite put to 0; None when it is constant."""
    xp = namespace(image)
    finite, zero = xp.isfinite(image), xp.zeros_like(image)
    count = max(1.0, float(xp.sum(xp.astype(finite, xp.float64))))
    mean = float(xp.sum(xp.where(finite, image, zero), dtype=xp.float64)) / count
    image = xp.where(finite, image - mean, zero)
    return image if float(xp.max(xp.abs(image))) > 1e-5 * abs(mean) else None


def _background_level(values: HostFloats) -> tuple[float, float]:
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


def _records(search: _Search, points: Points, diameters_angstrom: HostFloats) -> tuple[Pick, ...]:
    """Make the records, in px of the full micrograph."""
    low, high = search.parameters.diameter_min_angstrom, search.parameters.diameter_max_angstrom
    places, power = subpixel(search.score, points), search.power(points)
    return tuple(
        Pick(
            x_px=float(place[1] * search.reduced.scale_x),
            y_px=float(place[0] * search.reduced.scale_y),
            score=float(search.score[y, x]),
            power=float(z),
            diameter_angstrom=float(np.clip(diameters_angstrom[y, x], low, high)),
        )
        for (y, x), place, z in zip(points, places, power, strict=True)
    )
