"""What each pass does: resolution, grids, levels, shifts (docs/refinement.md).

Angles follow the particle: at c cycles per particle diameter a turn by 1 / (pi c) rad moves its edge by a period / (2 pi).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d.layout import HalfPlane
from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.state import Kind

GRID_VIEWS = 768  # over the whole sphere, 7.5 degrees apart
GRID_ANGLES = 48
_GRID_CYCLES = 10.0  # finest detail that such a grid can compare
_CENTRING_CYCLES = 7.0  # finest detail at which particles are centred on half maps, by orientations 15 degrees apart
_FIRST_LEVEL_RADIANS = math.radians(3.0)
_LEVEL_CYCLES = 1.5  # detail compared at a level, in units of what its step resolves
_FINEST_STEP_RADIANS = math.radians(0.05)
_KEEP = (8, 3, 2)  # candidates that go into each level, the last number for all further ones
_CUT = (40.0, 16.0, 10.0)  # nats below the best at which a candidate is dropped after each level


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the search around candidates.

    Attributes
    ----------
    step_radians: of the ball of turns. radius: coefficients compared, Fourier pixels.
    shifts: (shift, 2) float32, Å, around each candidate's.
    keep: candidates per image that enter. cut: nats below the best at which others are dropped afterwards.
    """

    step_radians: float
    radius: float
    shifts: npt.NDArray[np.float32]
    keep: int
    cut: float


@dataclass(frozen=True, slots=True)
class PassPlan:
    """One pass.

    Attributes
    ----------
    kind: see `Kind`. radius: finest coefficients compared. insert_radius: finest coefficients inserted.
    grid_radius: coefficients compared on the grid; 0 for local passes. grid_shifts: (shift, 2) float32, Å.
    levels: from coarse to fine; none for dense passes.
    """

    kind: Kind
    radius: float
    insert_radius: float
    grid_radius: float
    grid_shifts: npt.NDArray[np.float32]
    levels: tuple[Level, ...]


def cycles(plane: HalfPlane, parameters: Refine3dParameters, radius: float) -> float:
    """Return the cycles per particle diameter of a radius in Fourier pixels."""
    return radius * parameters.particle_diameter_angstrom / plane.box_angstrom


def finest_step(plane: HalfPlane, parameters: Refine3dParameters, radius: float) -> float:
    """Return the angular step, rad, that resolves a radius at the particle's edge."""
    return max(1 / (math.pi * cycles(plane, parameters, radius)), _FINEST_STEP_RADIANS)


def leak_shells(plane: HalfPlane, parameters: Refine3dParameters) -> int:
    """Return over how many shells masking a particle carries correlation: beyond them half maps speak for themselves."""
    return math.ceil(2 * plane.box_angstrom / parameters.particle_diameter_angstrom)


def start_radius(plane: HalfPlane, parameters: Refine3dParameters) -> float:
    """Return the radius up to which the start map is used."""
    return min(plane.box_angstrom / parameters.start_resolution_angstrom, plane.limit)


def grid_limit(plane: HalfPlane, parameters: Refine3dParameters) -> float:
    """Return the finest radius at which the grid's orientations can be compared."""
    return _GRID_CYCLES * plane.box_angstrom / parameters.particle_diameter_angstrom


def centring_limit(plane: HalfPlane, parameters: Refine3dParameters) -> float:
    """Return the finest radius at which particles are centred."""
    return _CENTRING_CYCLES * plane.box_angstrom / parameters.particle_diameter_angstrom


def make_plan(plane: HalfPlane, parameters: Refine3dParameters, kind: Kind, radius: float, *, settled: bool) -> PassPlan:
    """Return the pass of a kind at a radius; `settled`: particles have been placed by a pass before."""
    insert = min(plane.limit, max(1.4 * radius, radius + leak_shells(plane, parameters) + 4))
    step = finest_step(plane, parameters, radius)
    if kind == Kind.DENSE:
        radius = min(radius, grid_limit(plane, parameters))
        return PassPlan(kind, radius, insert, radius, shift_disc(plane, radius, 1.5), ())
    grid_radius = min(radius, grid_limit(plane, parameters))
    first = max(_FIRST_LEVEL_RADIANS, step) if kind == Kind.GLOBAL else 2 * step
    levels = _levels(plane, parameters, first, radius, kind)
    if kind == Kind.LOCAL:
        return PassPlan(kind, radius, insert, 0.0, np.zeros((1, 2), np.float32), levels)
    return PassPlan(kind, radius, insert, grid_radius, shift_disc(plane, grid_radius, 1.0 if settled else 1.5), levels)


def shift_disc(plane: HalfPlane, radius: float, reach: float, period_share: float = 0.25) -> npt.NDArray[np.float32]:
    """Return shifts on a square lattice within `reach` steps, (shift, 2) x, y in Å; a step is a share of the finest period."""
    count = int(reach + 1e-6)
    axis = np.arange(-count, count + 1)
    y, x = (a.ravel() for a in np.meshgrid(axis, axis, indexing="ij"))
    inside = np.hypot(x, y) <= reach + 1e-6
    return (np.stack([x[inside], y[inside]], axis=1) * (plane.box_angstrom * period_share / radius)).astype(np.float32)


def _levels(plane: HalfPlane, parameters: Refine3dParameters, first: float, radius: float, kind: Kind) -> tuple[Level, ...]:
    last = finest_step(plane, parameters, radius)
    count = max(1, 1 + math.ceil(math.log2(first / last) - 0.1))
    levels = []
    for i in range(count):
        step = first * (last / first) ** (i / max(count - 1, 1))
        reached = _LEVEL_CYCLES / (math.pi * step) * plane.box_angstrom / parameters.particle_diameter_angstrom
        level_radius = radius if i == count - 1 else min(radius, max(reached, 4.0))
        rank = i if kind == Kind.GLOBAL else i + 1
        keep = _KEEP[min(rank, len(_KEEP) - 1)] if kind == Kind.GLOBAL else 2
        shifts = shift_disc(plane, level_radius, 1.5 if i < count - 1 or count == 1 else 1.0, 0.2)
        levels.append(Level(step, level_radius, shifts, keep, _CUT[min(rank, len(_CUT) - 1)]))
    return tuple(levels)
