"""Centring: the circularly symmetric average finds every particle before there are classes (recipe: class2d 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.class2d.grid import Grid
from frazil.algorithms.class2d.transforms import coefficients_of, shift_phases, working_images
from frazil.array import Array, namespace, to_host

_REACH = 0.5  # search radius, particle radii; the prior's sigma is half of it
_RIDGE = 1e-3
_CYCLES = 6.6  # finest detail used, cycles per particle diameter


@dataclass(frozen=True, slots=True)
class Centring:
    """What centring needs beside images.

    Attributes
    ----------
    count: coefficients used, the lowest. mask: (size, size) soft particle mask. background: (size, size) 0 or 1, outside.
    particle_radius_angstrom: half the diameter.
    """

    count: int
    mask: Array
    background: Array
    particle_radius_angstrom: float


def soft_mask(grid: Grid, radius_angstrom: float, edge_angstrom: float) -> Array:
    """Return a (size, size) float32 disc whose raised-cosine edge is centred on the radius."""
    xp = grid.xp
    ramp = xp.clip((radius_angstrom - grid.pixel_radius) / edge_angstrom + 0.5, 0, 1)
    return xp.astype(0.5 - 0.5 * xp.cos(xp.pi * ramp), xp.float32)


def outside_mask(grid: Grid, radius_angstrom: float) -> Array:
    """Return a (size, size) float32 map of the pixels beyond the radius, the box's rim left out; never empty."""
    xp = grid.xp
    rim = grid.box_angstrom / 2 - grid.pixel_size_angstrom
    inner = min(radius_angstrom, rim - 2 * grid.pixel_size_angstrom)
    return xp.astype((grid.pixel_radius > inner) & (grid.pixel_radius < rim), xp.float32)


def make_centring(grid: Grid, particle_diameter_angstrom: float) -> Centring:
    """Choose resolution and masks for a particle of the given diameter."""
    radius = particle_diameter_angstrom / 2
    return Centring(
        count=grid.count(max(_CYCLES * grid.box_angstrom / particle_diameter_angstrom, 4.0)),
        mask=soft_mask(grid, 1.1 * radius, edge_angstrom=0.2 * radius),
        background=outside_mask(grid, 1.15 * radius),
        particle_radius_angstrom=radius,
    )


def radial_profile(grid: Grid, centring: Centring, coefficients: Array, ctf: Array, shifts: Array) -> np.ndarray[Any, Any]:
    """Return the transform of the circularly symmetric average, one value per shell (float64 host).

    coefficients, ctf: (particle, count); shifts: (particle, 2) real, Å. The profile is masked in real space.
    """
    xp = namespace(coefficients)
    shells = grid.coefficient_shells[: centring.count, :]
    centred = coefficients * shift_phases(grid, shifts, centring.count)
    numerator = xp.sum(xp.real(centred) * ctf, axis=0) @ shells
    denominator = xp.sum(ctf * ctf, axis=0) @ shells
    profile = numerator / (1.02 * denominator + _RIDGE)
    image = working_images(grid, xp.astype((shells @ profile)[None, :], coefficients.dtype))
    level = xp.sum(image * centring.background) / xp.sum(centring.background)
    masked = coefficients_of(grid, (image - level) * centring.mask, centring.count)
    members = xp.sum(shells, axis=0)
    mean = (xp.real(masked)[0, :] @ shells) / xp.where(members > 0, members, xp.ones_like(members))
    return to_host(mean).astype(np.float64)


def find_centres(grid: Grid, centring: Centring, coefficients: Array, ctf: Array, weight: Array) -> np.ndarray[Any, Any]:
    """Return where each particle sits, (particle, 2) x, y in Å from the box centre (float32 host).

    The position of the highest log posterior of the symmetric reference over whole pixels of the working box.

    Parameters
    ----------
    coefficients, ctf: (particle, count).
    weight: (shell,) profile divided by twice the noise variance (an image is twice the real part of its half plane).
    """
    xp = namespace(coefficients)
    per_coefficient = grid.coefficient_shells[: centring.count, :] @ weight
    log_ratio = working_images(grid, coefficients * (ctf * per_coefficient)) * grid.box_size_px
    reach = _REACH * centring.particle_radius_angstrom
    prior = grid.pixel_radius**2 / (2 * (reach / 2) ** 2)
    allowed = grid.pixel_radius <= max(reach, 1.5 * grid.pixel_size_angstrom)
    score = xp.where(allowed, log_ratio - prior, xp.asarray(-1e30, dtype=log_ratio.dtype))
    best = to_host(xp.argmax(xp.reshape(score, (coefficients.shape[0], -1)), axis=1))
    offset = to_host(grid.offset)
    return np.stack([offset[best % grid.size], offset[best // grid.size]], axis=1)
