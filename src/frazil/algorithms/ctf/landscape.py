"""How the defocus changes across a micrograph: one plane or low-order surface, fitted to the spectra of all tiles at once.

Each tile's spectrum is averaged over equal phase (astigmatism is the same everywhere) and its likelihood taken as a function of
its defocus alone, for spectra that are exponentially distributed (Whittle 1953). The surface maximises the sum over all tiles;
what it is allowed to be, constant, plane or quadratic, is decided by how much the likelihood gains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf.fit import Fit
from frazil.algorithms.ctf.model import aberration_at, wavelength_angstrom
from frazil.algorithms.ctf.quality import equi_phase_frequency
from frazil.algorithms.ctf.rings import CROSS_PX, ring_visibility
from frazil.algorithms.ctf.spectrum import Spectrum, Tiles
from frazil.algorithms.ctf.window import Floats
from frazil.model.ctf import TERMS, Ctf, DefocusField, field_terms
from frazil.model.optics import Optics

TILT_MAX_DEGREES = 62.0
_TABLE_STEP = 25.0
_COARSE_STEP = 250.0  # of the difference across the field, and of the mean
_MEAN_REACH = 500.0
_BACKGROUND_DEGREE = 6
_TILE_BACKGROUND_DEGREE = 3
_ITERATIONS = 20
_PLANE_TERMS, _ALL_TERMS = 2, TERMS
# Twice the gain in log likelihood that a plane, and then a curved surface, must bring.
_PLANE_GAIN = 12.0
_CURVED_GAIN = 20.0
TILES_MIN = 6
_CONTRAST_MIN = 0.3  # beyond this, what washed-out rings must have been is no longer inferred

Profiles = tuple[Floats, Floats, Floats]


@dataclass(frozen=True, slots=True)
class _Tables:
    """Log likelihood (tile, defocus), of independent data, its slope, and the information of each tile (tile, defocus)."""

    defocus: Floats
    likelihood: Floats
    slope: Floats
    information: Floats

    def at(self, table: Floats, offsets: Floats) -> Floats:
        """Return a table's values (..., tile) at each tile's defocus, interpolated."""
        place = np.clip((offsets - self.defocus[0]) / _TABLE_STEP, 0.0, self.defocus.size - 1.001)
        low = place.astype(np.int64)
        part = place - low
        tile = np.arange(table.shape[0])
        return np.asarray(table[tile, low] * (1.0 - part) + table[tile, low + 1] * part)


def fit_field(tiles: Tiles, fit: Fit, ctf: Ctf, optics: Optics, shape: tuple[int, int]) -> DefocusField:
    """Return how the defocus differs from the micrograph's across the field, as far as the tiles tell.

    Parameters
    ----------
    tiles: of the micrograph.
    fit, ctf: to the average of the tiles, and its record.
    optics: of the micrograph.
    shape: of the micrograph, `(y, x)`.

    Returns
    -------
    The field; flat when nothing else gains enough likelihood. Planes are searched for up to a tilt of 62 degrees.
    """
    if len(tiles.x) < TILES_MIN:
        return DefocusField()
    sides = (shape[1] * optics.pixel_size_angstrom, shape[0] * optics.pixel_size_angstrom)
    problem = _Problem.of(tiles, fit, ctf, optics, 0.5 * math.tan(math.radians(TILT_MAX_DEGREES)) * math.hypot(*sides))
    flat = problem.tables(DefocusField(), DefocusField())
    constant, _ = _climbed(flat, problem.terms[:, :1], np.zeros(1))
    rough = _best_plane(flat, problem.terms[:, : 1 + _PLANE_TERMS], sides)
    plane, plane_field = problem.climbed(_field(rough), DefocusField(), _PLANE_TERMS)
    _, curved_field = problem.climbed(plane_field, DefocusField(), _ALL_TERMS)
    curved, curved_field = problem.climbed(curved_field, DefocusField(), _ALL_TERMS)
    choices = (
        (2.0 * constant, DefocusField()),
        (2.0 * plane - _PLANE_GAIN, plane_field),
        (2.0 * curved - _PLANE_GAIN - _CURVED_GAIN, curved_field),
    )
    return max(choices, key=lambda choice: choice[0])[1]


def refine_field(tiles: Tiles, fit: Fit, ctf: Ctf, optics: Optics, field: DefocusField) -> DefocusField:
    """Return a field that is not flat once more, from a fit to the average that was levelled by it."""
    terms = _ALL_TERMS if any(field.coefficients_angstrom[_PLANE_TERMS:]) else _PLANE_TERMS
    reach = float(np.abs(field.at(tiles.x, tiles.y)).max()) + _MEAN_REACH
    return _Problem.of(tiles, fit, ctf, optics, reach).climbed(field, field, terms)[1]


def levelled(tiles: Tiles, field: DefocusField, mean_defocus_angstrom: float, optics: Optics) -> Spectrum:
    """Return the average of the tiles' spectra, each stretched so that its rings fall on those of the mean defocus."""
    m = tiles.powers.shape[2] - 1
    rows, columns = np.arange(-m, m + 1, dtype=np.float32)[:, None], np.arange(m + 1, dtype=np.float32)[None, :]
    ring = np.rint(np.hypot(rows, columns)).astype(np.int64)
    s2 = np.maximum((np.arange(ring.max() + 1) * tiles.step_per_angstrom) ** 2, 1e-12)
    c = 0.5 * wavelength_angstrom(optics.voltage_kv) ** 2 * optics.spherical_aberration_mm * 1e7
    path = s2 * (mean_defocus_angstrom - c * s2)
    power = np.zeros((2 * m + 1, m + 1), dtype=np.float32)
    for tile, share, offset in zip(tiles.powers, tiles.shares, field.at(tiles.x, tiles.y), strict=True):
        local = mean_defocus_angstrom + float(offset)
        root = local + np.sqrt(np.maximum(local * local - 4.0 * c * path, 0.0))
        stretch = np.sqrt(np.clip(2.0 * path / np.maximum(root, 1.0) / s2, 0.25, 4.0)).astype(np.float32)[ring]
        row = np.clip(np.rint(rows * stretch), -m, m).astype(np.int32) + m
        column = np.minimum(np.rint(columns * stretch), m).astype(np.int32)
        power += np.float32(share) * tile[row, column]
    return Spectrum(power, tiles.step_per_angstrom, len(tiles.powers), tiles.rejected, tiles.window)


@dataclass(frozen=True, slots=True)
class _Problem:
    """Tiles' spectra `powers` (tile, n) at frequencies `q`, `count` pixels each, and the fit to their average."""

    tiles: Tiles
    fit: Fit
    optics: Optics
    reach: float
    q: Floats
    count: Floats
    powers: Floats

    @staticmethod
    def of(tiles: Tiles, fit: Fit, ctf: Ctf, optics: Optics, reach: float) -> _Problem:
        return _Problem(tiles, fit, optics, reach, *ring_profiles(tiles, fit.fitted.s.min(), fit.fitted.s.max(), ctf, optics))

    @property
    def terms(self) -> Floats:
        """The terms of a surface (tile, 6), a constant first."""
        return np.stack([np.ones_like(self.tiles.x), *field_terms(self.tiles.x, self.tiles.y)], axis=1)

    def climbed(self, start: DefocusField, levelled_by: DefocusField, terms: int) -> tuple[float, DefocusField]:
        """Return the log likelihood of the best field near a start, and the field."""
        tables = self.tables(start, levelled_by)
        seed = np.array([0.0, *start.coefficients_angstrom[:terms]])
        value, found = _climbed(tables, self.terms[:, : 1 + terms], seed)
        return value, _field(found)

    def tables(self, assumed: DefocusField, levelled_by: DefocusField) -> _Tables:
        """Return the tables for a field near the assumed one, when the fit was made to an average levelled by another."""
        tiles, at, q = self.tiles, self.fit.refined.at, self.q
        wavelength = wavelength_angstrom(self.optics.voltage_kv)
        offsets, left = (f.at(tiles.x, tiles.y) for f in (assumed, DefocusField(_minus(assumed, levelled_by))))
        # What was not levelled has washed out the rings that the fit saw.
        contrast = np.abs(tiles.shares @ np.exp(2j * np.pi * wavelength * left[:, None] * q**2))
        amplitude = self.fit.refined.amplitude(q) / np.maximum(contrast, _CONTRAST_MIN)
        amplitude *= ring_visibility(q, at.mean, self.optics, tiles.window)

        def rings(defocus: Floats) -> tuple[Floats, Floats]:
            chi = aberration_at(
                q[None, :],
                0.0 * q[None, :],
                defocus_u_angstrom=defocus[:, None],
                defocus_v_angstrom=defocus[:, None],
                defocus_angle_degrees=0.0,
                phase_shift_degrees=at.phase_shift,
                optics=self.optics,
            )
            return -amplitude * np.cos(2.0 * chi), amplitude * np.sin(2.0 * chi)

        seen = tiles.shares @ rings(at.mean + offsets)[0]
        mean = np.log(np.maximum(tiles.shares @ self.powers, 1e-12))
        ratio = self.powers / np.exp(smooth(mean - seen, q, self.count, _BACKGROUND_DEGREE) + seen)
        ratio /= np.maximum(smooth(ratio, q, self.count, _TILE_BACKGROUND_DEGREE), 0.05)  # a tile's own fog and brightness
        defocus = np.arange(max(-self.reach, 1_000.0 - at.mean), self.reach + _TABLE_STEP, _TABLE_STEP)
        value, slope = rings(at.mean + defocus)
        slope *= 2.0 * np.pi * wavelength * q**2
        # Overlapping windowed tiles count a pixel of the micrograph more than once.
        independent = self.count * (tiles.area_px / (len(tiles.x) * tiles.length_px**2))
        inverse = np.exp(seen - value) * independent  # over the expected power, of ratios to the mean's
        likelihood = -(ratio @ inverse.T) - (value @ independent)
        score = ratio @ (inverse * slope).T - (slope @ independent)
        information = np.broadcast_to(slope**2 @ independent, score.shape)
        shares = tiles.shares[:, None] * len(tiles.x)
        return _Tables(defocus, likelihood * shares, score * shares, information * shares)


def _field(found: Floats) -> DefocusField:
    """Return the field of a surface's coefficients, its constant first; those that are missing are 0."""
    return DefocusField((*(float(c) for c in found[1:]), *(0.0,) * (1 + _ALL_TERMS - found.size)))


def _minus(a: DefocusField, b: DefocusField) -> tuple[float, ...]:
    return tuple(x - y for x, y in zip(a.coefficients_angstrom, b.coefficients_angstrom, strict=True))


def ring_profiles(tiles: Tiles, s_min: float, s_max: float, ctf: Ctf | None = None, optics: Optics | None = None) -> Profiles:
    """Return frequencies (n,), pixels that each stands for, and the tiles' power there (tile, n), averaged over rings.

    With a CTF the averages are of equal phase. The lines through the origin are left out.
    """
    m = tiles.powers.shape[2] - 1
    rows, columns = (a.ravel() for a in np.meshgrid(np.arange(-m, m + 1), np.arange(m + 1), indexing="ij"))
    s = np.hypot(rows, columns) * tiles.step_per_angstrom
    keep = (s >= s_min) & (s <= s_max) & (columns > CROSS_PX) & (np.abs(rows) > CROSS_PX)
    rows, columns, q = rows[keep], columns[keep], s[keep]
    if ctf is not None and optics is not None:
        q = equi_phase_frequency(columns * tiles.step_per_angstrom, rows * tiles.step_per_angstrom, ctf, optics)
    bins = np.rint(q / tiles.step_per_angstrom).astype(np.int64)
    order = np.argsort(bins, kind="stable")
    firsts = np.flatnonzero(np.diff(bins[order], prepend=-1))
    count = np.diff(np.append(firsts, bins.size)).astype(np.float64)
    flat = tiles.powers.reshape(len(tiles.powers), -1)
    gathered = flat[:, ((rows + m) * (m + 1) + columns)[order]]
    powers = np.add.reduceat(gathered, firsts, axis=1) / count
    return np.asarray(bins[order][firsts] * tiles.step_per_angstrom, dtype=np.float64), count, powers.astype(np.float64)


def smooth(values: Floats, q: Floats, weight: Floats, degree: int) -> Floats:
    """Return the smooth part of values (..., n) by weighted least squares."""
    x = 2.0 * (q - q[0]) / (q[-1] - q[0]) - 1.0
    basis = np.polynomial.chebyshev.chebvander(x, degree) * np.sqrt(weight)[:, None]
    orthonormal = np.linalg.qr(basis)[0]
    part: npt.NDArray[np.float64] = (values * np.sqrt(weight)) @ orthonormal @ orthonormal.T
    return part / np.sqrt(weight)


def planes(sides: tuple[float, float]) -> Floats:
    """Return differences of defocus (n, 2) across the sides of a field, Å, of every plane up to the steepest tilt."""
    steepest = math.tan(math.radians(TILT_MAX_DEGREES))
    axes = [np.arange(-(steepest * side // _COARSE_STEP), steepest * side // _COARSE_STEP + 1) * _COARSE_STEP for side in sides]
    x, y = (a.ravel() for a in np.meshgrid(*axes))
    inside = np.hypot(x / sides[0], y / sides[1]) <= steepest
    return np.stack([x[inside], y[inside]], axis=1)


def _best_plane(tables: _Tables, terms: Floats, sides: tuple[float, float]) -> Floats:
    """Return the best of all planes on a coarse grid: mean, and differences across the field in x and y."""
    across = planes(sides)
    slopes = across @ terms[:, 1:].T
    nearest = np.rint((slopes - tables.defocus[0]) / _TABLE_STEP).astype(np.int64)
    best, best_score = np.zeros(3), -np.inf
    tile = np.arange(len(terms))
    for mean in np.arange(-_MEAN_REACH, _MEAN_REACH + 1.0, _COARSE_STEP):
        index = np.clip(nearest + round(mean / _TABLE_STEP), 0, tables.defocus.size - 1)
        score = tables.likelihood[tile, index].sum(axis=1)
        i = int(np.argmax(score))
        if score[i] > best_score:
            best, best_score = np.array([mean, *across[i]]), float(score[i])
    return best


def _climbed(tables: _Tables, terms: Floats, start: Floats) -> tuple[float, Floats]:
    """Return the log likelihood of the best surface near a start, and its coefficients: Fisher scoring with halved steps."""
    p = start.copy()
    value = float(tables.at(tables.likelihood, terms @ p).sum())
    for _ in range(_ITERATIONS):
        offsets = terms @ p
        slope, information = tables.at(tables.slope, offsets), tables.at(tables.information, offsets)
        normal = np.einsum("ta,t,tb->ab", terms, information, terms)
        normal += np.eye(len(p)) * (1e-9 * np.trace(normal) + 1e-30)
        step = np.linalg.solve(normal, terms.T @ slope)
        for _ in range(8):
            trial = float(tables.at(tables.likelihood, terms @ (p + step)).sum())
            if trial > value:
                break
            step *= 0.5
        else:
            break
        p, gain, value = p + step, trial - value, trial
        if gain < 1e-3:
            break
    return value, p
