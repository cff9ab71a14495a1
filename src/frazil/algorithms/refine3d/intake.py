"""How particles enter a 3D run: scale from their power, the noise from all of them, centres from the radial average."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.centring import Centring, find_centres, make_centring, radial_profile
from frazil.algorithms.class2d.grid import Grid, make_grid
from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.refine3d.layout import HalfPlane, make_half_plane
from frazil.algorithms.refine3d.state import PoseTable

_CENTRING_CYCLES = 8.0
_CENTRING_ITERATIONS = 4
_CENTRING_BATCH = 256
_PROFILE_IMAGES = 2000
_SCALE_SQUARED = (0.5, 9.0)
_SHIFT_SIGMA = 1 / 7  # of the particle's radius


class Spectra(Protocol):
    """What a run's state knows of its images as a whole; see `Refine3dState`."""

    particles: PoseTable
    noise: npt.NDArray[np.float64]
    first_noise: npt.NDArray[np.float64]
    profile: npt.NDArray[np.float64]
    reference_power: float


@dataclass(frozen=True, slots=True)
class Imaging:
    """The images of a run and the geometry of what is done with them.

    shift_sigma_angstrom: of the prior around where centring finds a particle.
    """

    plane: HalfPlane
    centring_grid: Grid
    centring: Centring
    images: ParticleImages
    shift_sigma_angstrom: float


def make_imaging(
    box_size_px: int,
    pixel_size_angstrom: float,
    particle_diameter_angstrom: float,
    max_resolution_angstrom: float,
    centring_resolution_angstrom: float,
    xp: Any,
) -> Imaging:
    """Lay out a run for boxes of one size and pixel size.

    One radial profile, of all particles, centres them: where half sets must stay independent, centring has to be limited to a
    resolution at which they share a reference anyway (else noise refines to 20 Å, as was measured).
    """
    plane = make_half_plane(box_size_px, pixel_size_angstrom, max_resolution_angstrom, xp)
    grid = make_grid(box_size_px, pixel_size_angstrom, particle_diameter_angstrom / _CENTRING_CYCLES, xp)
    centring = make_centring(grid, particle_diameter_angstrom)
    count = min(centring.count, plane.count(plane.box_angstrom / centring_resolution_angstrom))
    sigma = _SHIFT_SIGMA * particle_diameter_angstrom / 2
    return Imaging(plane, grid, replace(centring, count=count), ParticleImages(plane), sigma)


def take_in(imaging: Imaging, state: Spectra, rows: npt.NDArray[Any]) -> None:
    """Give new particles their scale and centre; the first ones also set noise, reference power and radial profile."""
    if rows.size == 0:
        return
    power = imaging.images.power(rows).astype(np.float64)
    first = state.reference_power == 0
    if first:
        state.first_noise = np.maximum(power.mean(axis=0) / 2, 1e-12)
        state.noise = state.first_noise.copy()
        state.reference_power = max(float(np.median(_band_power(imaging.plane, state, power))), 1e-12)
    squared = np.clip(_band_power(imaging.plane, state, power) / state.reference_power, *_SCALE_SQUARED)
    state.particles.scale[rows] = np.sqrt(squared).astype(np.float32)
    if first:
        _find_profile(imaging, state, rows[:_PROFILE_IMAGES])
    _centre(imaging, state, rows)


def _band_power(plane: HalfPlane, state: Spectra, power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the whitened power of images above an eighth of the sampling rate, (particle,)."""
    members = np.bincount(plane.shell, minlength=plane.shell_count).astype(np.float64)
    members[: min(plane.box_size_px // 8, int(plane.limit / 2))] = 0
    result: npt.NDArray[np.float64] = (power / (2 * state.first_noise)) @ members / members.sum()
    return result


def _find_profile(imaging: Imaging, state: Spectra, rows: npt.NDArray[Any]) -> None:
    xp, table = imaging.plane.xp, state.particles
    for _ in range(_CENTRING_ITERATIONS):
        coefficients, ctf = imaging.images.take(rows, imaging.centring.count)
        scaled = coefficients * xp.asarray(1 / table.scale[rows])[:, None]
        shifts = xp.asarray(table.shift[rows])
        profile = radial_profile(imaging.centring_grid, imaging.centring, scaled, ctf, shifts)
        state.profile[: profile.size] = profile
        _centre(imaging, state, rows)


def _centre(imaging: Imaging, state: Spectra, rows: npt.NDArray[Any]) -> None:
    xp, table, shells = imaging.plane.xp, state.particles, imaging.centring_grid.shell_count
    weight = xp.asarray((state.profile / (2 * state.noise))[:shells].astype(np.float32))
    for start in range(0, rows.size, _CENTRING_BATCH):
        part = rows[start : start + _CENTRING_BATCH]
        coefficients, ctf = imaging.images.take(part, imaging.centring.count)
        scaled = coefficients * xp.asarray(1 / table.scale[part])[:, None]
        table.centre[part] = find_centres(imaging.centring_grid, imaging.centring, scaled, ctf, weight)
        table.shift[part] = table.centre[part]
