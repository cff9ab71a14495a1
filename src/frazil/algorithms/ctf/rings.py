"""What a CTF is fitted to: the logarithm of the spectrum, whose noise is the same everywhere; pixels, or averages of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf.model import thon_lag_angstrom
from frazil.algorithms.ctf.spectrum import Spectrum
from frazil.algorithms.ctf.window import Floats, Window
from frazil.model.optics import Optics

CROSS_PX = 1.5  # the lines through the origin carry what is wrong with the camera's rows and columns
_CLIP_DEVIATIONS = 4.0  # Bragg spots and other sharp features are cut here
_BACKGROUND_DEGREE = 6
SECTORS, FINE_SECTORS = 18, 36


@dataclass(frozen=True, slots=True)
class Samples:
    """Points of the half plane: frequencies in 1/Å, logarithm of the power, and how many pixels each stands for; all (n,)."""

    sx: Floats
    sy: Floats
    value: Floats
    weight: Floats

    @property
    def s(self) -> Floats:
        """Radius in 1/Å."""
        return np.hypot(self.sx, self.sy)

    def within(self, s_min: float, s_max: float) -> Samples:
        """Return the points of a ring."""
        s = self.s
        keep = (s >= s_min) & (s <= s_max)
        return Samples(self.sx[keep], self.sy[keep], self.value[keep], self.weight[keep])


def pixels(spectrum: Spectrum, s_min: float, s_max: float) -> Samples:
    """Return the pixels of a ring but those of the central cross, sharp features cut to 4 deviations of their ring."""
    sx, sy = np.broadcast_arrays(*spectrum.frequencies())
    s = np.hypot(sx, sy)
    limit = CROSS_PX * spectrum.step_per_angstrom
    keep = (s >= s_min) & (s <= s_max) & (sx > limit) & (np.abs(sy) > limit)
    power = spectrum.power[keep].astype(np.float64)
    value = np.log(np.maximum(power, 1e-12 * max(float(power.max(initial=0.0)), 1e-30)))
    ring = np.round(s[keep] / spectrum.step_per_angstrom).astype(np.int64)
    return Samples(sx[keep].copy(), sy[keep].copy(), _clipped(value, ring), np.ones(value.size))


def sectors(samples: Samples, step_per_angstrom: float, count: int = SECTORS) -> Samples:
    """Average pixels in rings one Fourier pixel wide and so many sectors of the half plane."""
    ring = np.round(samples.s / step_per_angstrom).astype(np.int64)
    azimuth = np.arctan2(samples.sy, samples.sx)
    sector = np.clip(((azimuth / np.pi + 0.5) * count).astype(np.int64), 0, count - 1)
    index = (ring - ring.min(initial=0)) * count + sector
    held = np.bincount(index)
    full = held > 0
    s, angle, value = (np.bincount(index, quantity)[full] / held[full] for quantity in (samples.s, azimuth, samples.value))
    return Samples(s * np.cos(angle), s * np.sin(angle), value, held[full].astype(np.float64))


def rings(samples: Samples, step_per_angstrom: float) -> Samples:
    """Average pixels in rings one Fourier pixel wide; they come to lie on the x axis."""
    ring = np.round(samples.s / step_per_angstrom).astype(np.int64)
    count = np.bincount(ring)
    full = count > 0
    s, value = (np.bincount(ring, quantity)[full] / count[full] for quantity in (samples.s, samples.value))
    return Samples(s, np.zeros_like(s), value, count[full].astype(np.float64))


class Background:
    """Smooth radial functions, Chebyshev polynomials of degree 6 in s: what of a spectrum is not Thon rings.

    It works on values multiplied by the square root of their weight, where least squares are plain.
    """

    def __init__(self, samples: Samples) -> None:
        s = samples.s
        low, high = float(s.min()), float(s.max())
        x = (2.0 * s - (low + high)) / max(high - low, 1e-12)
        self.root = np.sqrt(samples.weight)
        columns = np.polynomial.chebyshev.chebvander(x, _BACKGROUND_DEGREE).T
        basis: Floats = np.asarray(np.ascontiguousarray(columns) * self.root, dtype=np.float64)
        gram = inner(basis, basis)
        gram += np.eye(len(gram)) * (1e-12 * np.trace(gram))
        self._q: Floats = np.einsum("jk,kn->jn", np.linalg.inv(np.linalg.cholesky(gram)), basis)

    def removed(self, values: Floats) -> Floats:
        """Return root-weighted values `(..., n)` less their smooth part, root-weighted."""
        weighted = values * self.root
        return np.asarray(weighted - np.einsum("...k,kn->...n", self.smooth_parts(weighted), self._q))

    def smooth_parts(self, weighted: Floats) -> Floats:
        """Return the components (..., k) of root-weighted values along orthonormal smooth functions."""
        return inner(weighted, self._q)


def inner(a: Floats, b: Floats) -> Floats:
    """Return the inner products (..., m) of vectors `(..., n)` with vectors `(m, n)`.

    Not by BLAS: for a handful of long vectors its threads cost more than they bring, and much more on a busy machine.
    """
    return np.asarray(np.einsum("...n,mn->...m", a, b))


def ring_visibility(s: Floats, mean_defocus_angstrom: Floats | float, optics: Optics, window: Window) -> Floats:
    """Return what is left of the Thon rings' contrast in a spectrum of windowed tiles: rings that are too fine are lost."""
    return window.visibility(thon_lag_angstrom(s, mean_defocus_angstrom, optics))


def _clipped(value: Floats, ring: npt.NDArray[Any]) -> Floats:
    order = np.argsort(ring, kind="stable")
    clipped = value.copy()
    for members in np.split(order, np.flatnonzero(np.diff(ring[order])) + 1):
        if members.size < 8:
            continue
        middle = np.median(value[members])
        reach = _CLIP_DEVIATIONS * 1.4826 * np.median(np.abs(value[members] - middle))
        clipped[members] = np.clip(value[members], middle - reach, middle + reach)
    return clipped
