"""From sufficient statistics to references: regularise, mask, recentre (recipe: class2d 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.class2d.centring import outside_mask, soft_mask
from frazil.algorithms.class2d.grid import Grid
from frazil.algorithms.class2d.state import ClassStatistics
from frazil.algorithms.class2d.transforms import images_to_padded, padded_to_images, phase
from frazil.array import Array, namespace, to_host

_TAU_FUDGE = 4.0
_REGULARISATION = (0.01, 1.0)  # bounds of 1/(T tau^2), in shell means of the denominator
_SMALL = 0.05  # of the shell mean of the denominator, where an average must only not divide by zero
_FLOOR = 1e-4
_RECENTRE_FROM = 0.024  # particle radii; smaller offsets are left alone
_RECENTRE_AT_MOST = 0.095  # particle radii per step


@dataclass(frozen=True, slots=True)
class Masks:
    """Real-space weights for a particle of one diameter, (size, size) float32 backend."""

    particle: Array  # soft disc
    background: Array  # 0 or 1, beyond the particle
    near: Array  # 0 or 1, where a class's centre of mass is measured
    core: Array  # positions (flat) inside the particle radius
    radius_angstrom: float


def make_masks(grid: Grid, particle_diameter_angstrom: float, mask_diameter_angstrom: float = 0.0) -> Masks:
    """Lay out the masks of a run; a mask diameter of 0 means 1.1 times the particle's."""
    xp, radius = grid.xp, particle_diameter_angstrom / 2
    mask_radius = mask_diameter_angstrom / 2 or 1.1 * radius
    distance = to_host(grid.pixel_radius)
    edge = max(0.2 * radius, 3 * grid.pixel_size_angstrom)
    return Masks(
        particle=soft_mask(grid, mask_radius, edge),
        background=outside_mask(grid, max(1.15 * radius, mask_radius + 0.05 * radius)),
        near=xp.asarray((distance < 1.3 * radius).astype(np.float32)),
        core=xp.asarray(np.flatnonzero(distance.ravel() < max(radius, 2 * grid.pixel_size_angstrom))),
        radius_angstrom=radius,
    )


def build_references(grid: Grid, masks: Masks, classes: ClassStatistics, radius: float) -> Array:
    """Return the padded transforms of the masked references up to a radius, (class, padded, padded) complex64."""
    images = reference_images(grid, masks, classes, radius)
    return images_to_padded(grid, images * masks.particle)


def reference_images(grid: Grid, masks: Masks, classes: ClassStatistics, radius: float) -> Array:
    """Return the regularised averages, background level removed, not masked: (class, size, size) float32.

    S / (den + lambda), lambda = clip(1 / (T tau^2), .01 D, 1 D), D the shell mean of a class's denominator and tau^2 the
    spectrum of the signal pooled over classes, weighted by their size.
    """
    xp = namespace(classes.numerator)
    numerator = _cells(grid, classes.numerator[0, ...] + classes.numerator[1, ...])
    denominator = _cells(grid, classes.denominator[0, ...] + classes.denominator[1, ...])
    level = _shell_mean(grid, denominator)
    spread = level @ xp.matrix_transpose(grid.cell_shells)
    average = numerator / (denominator + _SMALL * spread + 1e-6)
    power = _shell_mean(grid, xp.real(average) ** 2 + xp.imag(average) ** 2) - 1 / (level + 1e-3)
    share = classes.weight / max(classes.weight.sum(), 1e-30)
    tau = xp.sum(power * xp.asarray(share.astype(np.float32))[:, None], axis=0)
    tau = xp.where(tau > 1e-6, tau, xp.asarray(1e-6, dtype=tau.dtype))
    inverse = (1 / (_TAU_FUDGE * tau))[None, :]
    low, high = (bound * level for bound in _REGULARISATION)
    ridge = xp.where(inverse < low, low, xp.where(inverse > high, high, inverse)) + _FLOOR
    inside = xp.asarray((grid.cell_radius <= radius + 0.5).astype(np.float32))
    values = numerator / (denominator + ridge @ xp.matrix_transpose(grid.cell_shells)) * inside
    return _level(masks, padded_to_images(grid, _from_cells(grid, values)))


def half_images(grid: Grid, masks: Masks, classes: ClassStatistics, radius: float) -> Array:
    """Return the masked averages of the two half sets, (half, class, size, size) float32."""
    xp = namespace(classes.numerator)
    inside = xp.asarray((grid.cell_radius <= radius + 0.5).astype(np.float32))
    halves = []
    for half in (0, 1):
        denominator = _cells(grid, classes.denominator[half, ...])
        spread = _shell_mean(grid, denominator) @ xp.matrix_transpose(grid.cell_shells)
        values = _cells(grid, classes.numerator[half, ...]) / (denominator + _SMALL * spread + _FLOOR) * inside
        halves.append(_level(masks, padded_to_images(grid, _from_cells(grid, values))) * masks.particle)
    return xp.stack(halves)


def recentre(grid: Grid, masks: Masks, classes: ClassStatistics, radius: float) -> None:
    """Move every class whose average has its mass off centre, both halves alike, at most a tenth of the radius."""
    xp = namespace(classes.numerator)
    offset = centres_of_mass(grid, masks, reference_images(grid, masks, classes, radius))
    length = np.hypot(offset[:, 0], offset[:, 1])
    move = (length > _RECENTRE_FROM * masks.radius_angstrom) & (classes.weight > 0)
    if not move.any():
        return
    share = np.minimum(1, _RECENTRE_AT_MOST * masks.radius_angstrom / np.maximum(length, 1e-9)) * move
    steps = xp.asarray((offset * share[:, None]).astype(np.float32))
    frequency = xp.astype(xp.arange(grid.padded_size) - grid.padded_size // 2, xp.float32)
    turn = 2 * xp.pi / (grid.padded_size * grid.pixel_size_angstrom)
    along_x = phase(xp, turn * steps[:, :1] * frequency)
    along_y = phase(xp, turn * steps[:, 1:] * frequency)
    classes.numerator = classes.numerator * (along_y[:, :, None] * along_x[:, None, :])


def centres_of_mass(grid: Grid, masks: Masks, images: Array) -> np.ndarray[Any, Any]:
    """Return where the mass of each image sits, (image, 2) x, y in Å (float64 host): density above a quarter of its 95 %."""
    xp = namespace(images)
    flat = xp.reshape(images, (images.shape[0], -1))
    core = xp.sort(xp.take(flat, masks.core, axis=1), axis=1)
    high = core[:, round(0.95 * (core.shape[1] - 1))]
    dense = images - 0.25 * high[:, None, None]
    dense = xp.where(dense > 0, dense, xp.zeros_like(dense)) * masks.near
    mass = xp.sum(dense, axis=(1, 2)) + 1e-9
    x = xp.sum(xp.sum(dense, axis=1) * grid.offset, axis=1) / mass
    y = xp.sum(xp.sum(dense, axis=2) * grid.offset, axis=1) / mass
    return to_host(xp.stack([x, y], axis=1)).astype(np.float64)


def _cells(grid: Grid, grids: Array) -> Array:
    xp = namespace(grids)
    return xp.take(xp.reshape(grids, (grids.shape[0], -1)), grid.cells, axis=1)


def _from_cells(grid: Grid, values: Array) -> Array:
    xp = namespace(values)
    empty = xp.zeros((values.shape[0], 1), dtype=values.dtype)
    whole = xp.take(xp.concat([values, empty], axis=1), grid.cell_lookup, axis=1)
    return xp.reshape(whole, (values.shape[0], grid.padded_size, grid.padded_size))


def _shell_mean(grid: Grid, values: Array) -> Array:
    xp = namespace(values)
    members = xp.sum(grid.cell_shells, axis=0)
    return (values @ grid.cell_shells) / xp.where(members > 0, members, xp.ones_like(members))


def _level(masks: Masks, images: Array) -> Array:
    xp = namespace(images)
    level = xp.sum(images * masks.background, axis=(1, 2), keepdims=True) / xp.sum(masks.background)
    return images - level
