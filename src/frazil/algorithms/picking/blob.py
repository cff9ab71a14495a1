"""Blob picker: finds particles from their diameter alone, and learns their profile from the micrograph.

1. The micrograph is reduced until the diameter is 20 px, high-passed at the diameter and inverted; what is contaminated is
   left out (`detection.reduction`).
2. Shapes of a few sizes (balls, ellipses, rings) are matched with it by local normalised cross-correlation; each map is put
   in units of its own noise, so that shapes compare fairly.
3. The best peaks are averaged to a radial profile, which is the template of the next round, twice. It holds whatever these
   particles look like under this CTF: filled or hollow, with fringes or without. Where particles are long, the ellipses'
   map stays in the running: the higher of the two counts.
4. Peaks that noise does not explain are picks; some of the others are kept too (`detection.peaks`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.detection.peaks import Limits, Peaks, PeakSearch
from frazil.algorithms.detection.reduction import reduce_micrograph
from frazil.array import Array, to_device, to_host
from frazil.kernels.shells import shell_sums
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from frazil.model.particles import Candidates
from frazil.primitives.masks import soft_disc
from frazil.primitives.matching import HostFloats
from frazil.primitives.peaks import Points

TITLE = "Blob picker"
SHAPES = ("circle", "ellipse", "ring")

_SMALLEST = 0.6  # of the least diameter: projections are smaller than the particle is long
_SCALES = (3, 5)  # fewest and most sizes
_SCALE_RATIO = 1.3
_LONG, _MINOR = 1.15, 0.5  # ellipses have the axes given, or half the diameter where these are nearly alike
_TURNS = 8  # of an ellipse
_LEARN_REFERENCE, _LEARN_FROM, _LEARN_AT_LEAST, _LEARN_ROUNDS = 16, 40, 8, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobParameters(Limits):
    """What to look for. With one diameter given, it is the largest extent of the particle."""

    diameter_min_angstrom: float
    diameter_max_angstrom: float
    shapes: tuple[str, ...] = ("circle", "ring")

    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        if not 0.0 < self.diameter_min_angstrom <= self.diameter_max_angstrom < math.inf:
            raise InputError(
                "PICK_DIAMETER", "Give a particle diameter in Å: positive, the minimum no larger than the maximum."
            )
        if not self.shapes or not set(self.shapes) <= set(SHAPES):
            raise InputError("PICK_SHAPES", f"The shapes of the blob picker are {', '.join(SHAPES)}, not {self.shapes}.")

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


def search(
    micrograph: Array,
    parameters: BlobParameters,
    *,
    optics: Optics,
    seed: int,
    ctf: Ctf | None = None,  # noqa: ARG001 what every picker is told
) -> Candidates:
    """Search a dose-weighted micrograph, protein dark, for particles.

    Parameters
    ----------
    micrograph: `(y, x)`, real; pixels that are not finite count as background.
    parameters: the diameter, and thresholds where wanted.
    optics: with the pixel size of the micrograph.
    seed: of the random phases of the noise estimate.
    ctf: not used: a blob has no detail that the CTF could bring out (it is learnt from the micrograph, fringes and all).

    Returns
    -------
    Candidates, highest score first: `score` is the normalised cross-correlation with the learnt profile or an ellipse, `power`
    the z-score of the local log power. A constant image, or one smaller than two diameters, has none.
    """
    pixel_size = optics.pixel_size_angstrom
    diameter_px = parameters.diameter_angstrom / pixel_size
    reduced = reduce_micrograph(micrograph, diameter_px, parameters.diameter_max_angstrom / pixel_size)
    if reduced is None:
        return Candidates()
    blobs = _Blobs(PeakSearch(reduced, parameters), parameters)
    learnt, size_map = blobs.learn()
    rng = np.random.default_rng(seed)
    ends = [blobs.peaks([learnt], blobs.window(1.0), rng)] if set(parameters.shapes) != {"ellipse"} else []
    if "ellipse" in parameters.shapes:
        ends.append(blobs.peaks(*blobs.ellipses(), rng))
    peaks, score = max(ends, key=lambda end: end[0].count)  # at an equal share of false ones, more are better
    diameters = np.clip(size_map * blobs.angstrom_per_px, parameters.diameter_min_angstrom, parameters.diameter_max_angstrom)
    return blobs.search.candidates(peaks, score, diameters)


class _Blobs:
    """The templates of a search."""

    def __init__(self, search: PeakSearch, parameters: BlobParameters) -> None:
        self.search, self.parameters = search, parameters
        self.d, self.matcher, self.xp = search.diameter_px, search.matcher, search.xp
        self.angstrom_per_px = parameters.diameter_angstrom / self.d

    def learn(self) -> tuple[HostFloats, HostFloats]:
        """Match shapes, then learnt profiles; returns the last template and the best size at each pixel, px."""
        ranking, size_map = self._shapes()
        search, window = self.search, self.window(1.0)
        middle = 0.5 * (self._sizes[0] + self._sizes[-1])
        template = self._ball(middle, middle, 0.0)
        for _ in range(_LEARN_ROUNDS):
            points = search.peaks(ranking)
            points = search.undisturbed(points, points[:_LEARN_REFERENCE])[:_LEARN_FROM]
            if len(points) < _LEARN_AT_LEAST:
                break
            template = self._profile(points, window)
            ranking = to_host(self.matcher.ncc(template, window))
        return template, size_map

    def peaks(self, templates: list[HostFloats], window: HostFloats, rng: np.random.Generator) -> tuple[Peaks, HostFloats]:
        """Return the peaks of the best of templates at each pixel, and its score."""
        score = np.max([to_host(self.matcher.ncc(template, window)) for template in templates], axis=0)
        centred = [self.matcher.centred(template, window) for template in templates]

        def of_noise(transform: Array) -> HostFloats:
            maps = [to_host(self.matcher.correlate_transform(transform, one)) for one in centred]
            return np.asarray(np.max(maps, axis=0))

        return self.search.accepted(score, of_noise, rng), score

    def ellipses(self) -> tuple[list[HostFloats], HostFloats]:
        """Return ellipses turned every 22.5 degrees, and their window."""
        minor, major = self.parameters.diameter_min_angstrom, self.parameters.diameter_max_angstrom
        minor = minor if major > _LONG * minor else _MINOR * major
        axes = major / self.angstrom_per_px, minor / self.angstrom_per_px
        turned = [self._ball(*axes, math.pi * turn / _TURNS) for turn in range(_TURNS)]
        return turned, self.window(0.75 * axes[0] / self.d)

    def window(self, reach_diameters: float) -> HostFloats:
        """Return a soft disc."""
        return soft_disc(self.matcher.radius, reach_diameters * self.d, 1.0).astype(np.float32)

    @property
    def _sizes(self) -> list[float]:
        return [size / self.angstrom_per_px for size in self.parameters.scales_angstrom]

    def _shapes(self) -> tuple[HostFloats, HostFloats]:
        """Return the evidence for the best shape at each pixel, and its size."""
        best = np.full(self.matcher.shape, -np.inf, dtype=np.float32)
        size_map = np.zeros(self.matcher.shape, dtype=np.float32)
        shapes: list[tuple[float, list[HostFloats], HostFloats]] = []
        for size in self._sizes:
            window = self.window(0.75 * size / self.d)
            shapes += [(size, [self._ball(size, size, 0.0)], window)] if "circle" in self.parameters.shapes else []
            shapes += [(size, [self._ring(size)], window)] if "ring" in self.parameters.shapes else []
        if "ellipse" in self.parameters.shapes:
            shapes.append((self.d, *self.ellipses()))
        for size, templates, window in shapes:
            ncc = np.max([to_host(self.matcher.ncc(template, window)) for template in templates], axis=0)
            score = _evidence(ncc, float(window.sum()))
            size_map[score > best] = size
            best = np.maximum(best, score)
        return best, size_map

    def _ball(self, major: float, minor: float, turn: float) -> HostFloats:
        """Return the projection of an ellipsoid with these axes, px, high-passed like the micrograph; `turn` in rad."""
        along = self.matcher.x * math.cos(turn) + self.matcher.y * math.sin(turn)
        across = self.matcher.y * math.cos(turn) - self.matcher.x * math.sin(turn)
        inside = 1.0 - (2.0 * along / major) ** 2 - (2.0 * across / minor) ** 2
        return self.matcher.high_passed(np.sqrt(np.maximum(inside, 0.0)).astype(np.float32), self.d)

    def _ring(self, size: float) -> HostFloats:
        radius = self.matcher.radius
        shape = soft_disc(radius, 0.5 * size, 0.15 * size) - 0.8 * soft_disc(radius, 0.325 * size, 0.15 * size)
        return self.matcher.high_passed(shape.astype(np.float32), self.d)

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


def _evidence(ncc: Any, pixels: float) -> HostFloats:
    """Return the signed root of twice the log-likelihood ratio of a template against white noise of unknown strength.

    For small correlations it is their z-score, `ncc sqrt(pixels)`; near 1 it grows beyond all bounds.
    """
    return np.asarray(np.sign(ncc) * np.sqrt(-pixels * np.log1p(-np.minimum(ncc * ncc, 0.999))), dtype=np.float32)
