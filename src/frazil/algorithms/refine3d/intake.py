"""How particles enter a 3D run: scale from their power, the noise from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.refine3d.layout import HalfPlane, make_half_plane
from frazil.algorithms.refine3d.state import PoseTable

_SCALE_SQUARED = (0.5, 9.0)
_SHIFT_SIGMA = 1 / 7  # of the particle's radius


class Spectra(Protocol):
    """What a run's state knows of its images as a whole; see `Refine3dState`."""

    particles: PoseTable
    noise: npt.NDArray[np.float64]
    first_noise: npt.NDArray[np.float64]
    reference_power: float


@dataclass(frozen=True, slots=True)
class Imaging:
    """The images of a run and the geometry of what is done with them.

    shift_sigma_angstrom: of the prior around where centring finds a particle.
    """

    plane: HalfPlane
    images: ParticleImages
    shift_sigma_angstrom: float


def make_imaging(
    box_size_px: int, pixel_size_angstrom: float, particle_diameter_angstrom: float, max_resolution_angstrom: float, xp: Any
) -> Imaging:
    """Lay out a run for boxes of one size and pixel size."""
    plane = make_half_plane(box_size_px, pixel_size_angstrom, max_resolution_angstrom, xp)
    return Imaging(plane, ParticleImages(plane), _SHIFT_SIGMA * particle_diameter_angstrom / 2)


def take_in(imaging: Imaging, state: Spectra, rows: npt.NDArray[Any]) -> None:
    """Give new particles their scale; the first ones also set noise and reference power."""
    if rows.size == 0:
        return
    power = imaging.images.power(rows).astype(np.float64)
    if state.reference_power == 0:
        state.first_noise = np.maximum(power.mean(axis=0) / 2, 1e-12)
        state.noise = state.first_noise.copy()
        state.reference_power = max(float(np.median(_band_power(imaging.plane, state, power))), 1e-12)
    squared = np.clip(_band_power(imaging.plane, state, power) / state.reference_power, *_SCALE_SQUARED)
    state.particles.scale[rows] = np.sqrt(squared).astype(np.float32)


def _band_power(plane: HalfPlane, state: Spectra, power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the whitened power of images above an eighth of the sampling rate, (particle,)."""
    members = np.bincount(plane.shell, minlength=plane.shell_count).astype(np.float64)
    members[: min(plane.box_size_px // 8, int(plane.limit / 2))] = 0
    result: npt.NDArray[np.float64] = (power / (2 * state.first_noise)) @ members / members.sum()
    return result
