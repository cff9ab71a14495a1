"""From inserted slices to maps: symmetry, half maps and their FSC, and the references of the next search (algorithms 9.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d.fsc import fourier_shell_correlation
from frazil.algorithms.refine3d.layout import HalfPlane
from frazil.algorithms.refine3d.state import Sums
from frazil.array import Array, to_host
from frazil.kernels.shells import shell_sums
from frazil.kernels.slices import complete_plane, symmetrise_cubes
from frazil.primitives.symmetry import Symmetry
from frazil.primitives.volumes import (
    PADDING,
    cube_radius,
    cube_to_volume,
    resample,
    soft_sphere,
    volume_to_cube,
)

_RIDGE = 0.05  # of a shell's mean coverage: what keeps unregularised maps finite where few slices pass
_FSC_RANGE = (0.003, 0.999)
_MASK_RADII = 1.05
_MASK_EDGE = 0.2  # of the particle's radius


@dataclass(frozen=True, slots=True)
class HalfCubes:
    """Sums completed and symmetrised: of both half sets, or of several volumes.

    numerator, denominator: half cubes, one per half set. radius: |k| of every cell. shell: the same, rounded.
    coverage: (half, shell) float64 host; mean denominator.
    """

    numerator: list[Array]
    denominator: list[Array]
    radius: Array
    shell: Array
    coverage: npt.NDArray[np.float64]


def half_cubes(plane: HalfPlane, group: Symmetry, sums: Sums) -> HalfCubes:
    """Complete and symmetrise the sums of both half sets."""
    return finished_cubes(plane, group, sums.numerator, sums.denominator, sums.radius)


def finished_cubes(
    plane: HalfPlane, group: Symmetry, numerators: list[Array], denominators: list[Array], limit: float
) -> HalfCubes:
    """Complete and symmetrise sums, of half sets or of volumes, that hold slices up to a limit in Fourier pixels."""
    xp = plane.xp
    numerator, denominator = [], []
    for above, below in zip(numerators, denominators, strict=True):
        num, den = symmetrise_cubes(complete_plane(above), complete_plane(below), group.operators, PADDING * limit)
        numerator.append(num)
        denominator.append(den)
    radius = cube_radius(numerator[0])
    shell = xp.astype(xp.round(radius), xp.int32)
    members = to_host(shell_sums(xp.ones_like(radius), shell, plane.shell_count))
    coverage = [to_host(shell_sums(den, shell, plane.shell_count)) / np.maximum(members, 1) for den in denominator]
    return HalfCubes(numerator, denominator, radius, shell, np.stack(coverage))


def join_low_resolution(cubes: HalfCubes, radius: float) -> None:
    """Give both half sets the mean of their sums up to a radius, in place: a copy would be the largest thing in memory."""
    low = cubes.radius <= radius
    for pair in (cubes.numerator, cubes.denominator):
        mean = (pair[0][low] + pair[1][low]) * 0.5
        for half in pair:
            half[low] = mean


def unregularised_maps(
    plane: HalfPlane, cubes: HalfCubes, radius: float, size: int, *, inner_radius: float = 0.0
) -> tuple[Array, Array]:
    """Return both half maps between two radii, (size, size, size) float32 each, without any prior but a small ridge."""
    ridge = np.full((2, plane.shell_count), _RIDGE) * cubes.coverage
    first, second = (_to_map(plane, cubes, half, ridge[half], (inner_radius, radius), size) for half in (0, 1))
    return first, second


def regularised_maps(
    plane: HalfPlane, cubes: HalfCubes, fsc: npt.NDArray[np.float64], radius: float, size: int
) -> tuple[Array, Array]:
    """Return both half maps, each shell weighted by the signal that the FSC says is in it (Scheres 2012; algorithms 9.3)."""
    clipped = np.clip(fsc, *_FSC_RANGE)
    prior = cubes.coverage * ((1 - clipped) / clipped)
    first, second = (_to_map(plane, cubes, half, prior[half], (0.0, radius), size) for half in (0, 1))
    return first, second


def power_regularised_maps(
    plane: HalfPlane, cubes: HalfCubes, radius: float, size: int, bounds: tuple[float, float]
) -> list[Array]:
    """Return each map with the prior `1 / (4 P)` for the power P of each shell, kept between shares of its mean coverage.

    What there is where no half sets are (algorithms 8.2): a stronger prior shrinks the map until poses cannot be told.
    """
    xp = plane.xp
    members = np.maximum(to_host(shell_sums(xp.ones_like(cubes.radius), cubes.shell, plane.shell_count)), 1)
    maps = []
    for index, coverage in enumerate(cubes.coverage):
        table = xp.asarray((bounds[1] * np.append(coverage, 1.0) + 1e-12).astype(np.float32))
        shell = xp.clip(cubes.shell, 0, plane.shell_count)
        ridge = xp.reshape(xp.take(table, xp.reshape(shell, (-1,))), shell.shape)
        first = xp.abs(cubes.numerator[index] / (cubes.denominator[index] + ridge)) ** 2
        power = to_host(shell_sums(first, cubes.shell, plane.shell_count)) / members
        prior = np.clip(1 / (4 * np.maximum(power, 1e-30)), bounds[0] * coverage, bounds[1] * coverage)
        maps.append(_to_map(plane, cubes, index, prior, (0.0, radius), size))
    return maps


def sphere_mask(plane: HalfPlane, particle_diameter_angstrom: float, size: int) -> Array:
    """Return the soft sphere that masks references, in a box of the given side over the same extent."""
    voxel = plane.box_angstrom / size
    radius = _MASK_RADII * particle_diameter_angstrom / 2 / voxel
    edge = max(_MASK_EDGE * particle_diameter_angstrom / 2 / voxel, 2.0)
    return soft_sphere(size, min(radius, size / 2 - edge / 2 - 1), edge, plane.xp)


def masked_fsc(plane: HalfPlane, maps: tuple[Array, Array], mask: Array) -> npt.NDArray[np.float64]:
    """Return the FSC of half maps under a mask over the shells of the particle box; 0 where the maps have none."""
    curve = np.zeros(plane.shell_count)
    found = fourier_shell_correlation(maps[0] * mask, maps[1] * mask)
    curve[: found.size] = found[: plane.shell_count]
    return curve


def reference_cube(plane: HalfPlane, volume: Array, radius: float) -> Array:
    """Return the half cube whose slices are what images show of a volume, up to a radius and zero beyond.

    volume: (size, size, size) over the extent of the particle box, masked; in units of the particle images.
    """
    xp, size = plane.xp, volume.shape[0]
    scale = (plane.box_size_px / size) ** 3 / plane.box_size_px
    cube = xp.astype(volume_to_cube(volume, radius), xp.complex64) * scale
    return xp.where(cube_radius(cube) <= radius, cube, xp.zeros_like(cube))


def start_cube(plane: HalfPlane, start: npt.NDArray[np.float32], mask: Array, radius: float) -> Array:
    """Return the half cube of the start map at a working size."""
    size = mask.shape[0]
    return reference_cube(plane, resample(plane.xp.asarray(start), size) * mask, radius)


def _to_map(
    plane: HalfPlane, cubes: HalfCubes, half: int, ridge: npt.NDArray[np.float64], radii: tuple[float, float], size: int
) -> Array:
    xp = plane.xp
    table = xp.asarray(np.append(ridge, ridge[-1]).astype(np.float32))
    shell = xp.clip(cubes.shell, 0, plane.shell_count)
    added = xp.reshape(xp.take(table, xp.reshape(shell, (-1,))), shell.shape)
    total = cubes.denominator[half] + added
    safe = xp.where(total > 0, total, xp.ones_like(total))
    inside = (cubes.radius >= radii[0]) & (cubes.radius <= radii[1]) & (total > 0)
    quotient = xp.where(inside, cubes.numerator[half] / safe, xp.asarray(0, dtype=cubes.numerator[half].dtype))
    del total, safe, inside, added, shell
    scale = plane.box_size_px * (size / plane.box_size_px) ** 3
    return xp.astype(cube_to_volume(quotient, size) * scale, xp.float32)
