"""What each step of a run does: resolution, shifts, angles, rates (recipe: class2d 3.4, 3.5, 3.8).

Radii follow the particle, not the box: they are given in cycles per particle diameter. The recipe was measured on boxes of
64 px and particles of two thirds of the box, where 4, 8 and 10.5 cycles are shells 6, 12 and 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.class2d.grid import Grid
from frazil.algorithms.class2d.parameters import Class2dParameters

BOOTSTRAP_STEPS = 16
UNIT_STEPS = 2
RENEWAL_FROM = 4  # of the bootstrap's steps, the first that a renewal makes again
PASS_GROWTH = 0.25  # a full pass is due when the run grew by this share
REMOVED_WEIGHT = 2  # one removed particle counts as this many new ones
RESTART_BELOW = 0.25  # of the mean class size, while bootstrapping
RESTART_BELOW_IN_UNITS = 0.1
_FULL_SIZE = 2000  # particles at which the online resolution is reached

_FIRST_CYCLES, _BOOTSTRAP_CYCLES, _ONLINE_CYCLES = 4.0, 8.0, 10.5
_ANGLES_PER_CYCLE = 2.5
_ANGLE_COUNT = (24, 180)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One E- and M-step.

    Attributes
    ----------
    radius: coefficients up to here, Fourier pixels.
    reach: radius of the disc of shifts tried around the last one, in shift steps.
    rate: share of the new statistics in the mix; 1 forgets the old ones.
    balance: strength of the prior that favours small classes in the step after this one.
    uniform: the classes' prior is uniform in this step.
    """

    radius: float
    reach: float
    rate: float
    balance: float
    uniform: bool = False


def bootstrap_plan(grid: Grid, parameters: Class2dParameters, index: int) -> StepPlan:
    """Return online step `index` of the bootstrap."""
    u = index / (BOOTSTRAP_STEPS - 1)
    rise = min(max((u - 0.2) / 0.8, 0), 1)
    return StepPlan(
        radius=_radius(grid, parameters, _FIRST_CYCLES + (_BOOTSTRAP_CYCLES - _FIRST_CYCLES) * rise),
        reach=2.0 if u < 0.5 else 1.5,
        rate=max(0.25, (index + 1.0) ** -0.6),
        balance=1 - 0.5 * u,
    )


def restarts_after_bootstrap_step(index: int) -> bool:
    """Say whether starving classes begin anew after this step: not at the end, where they must settle."""
    return index / (BOOTSTRAP_STEPS - 1) < 0.85


def unit_plan(grid: Grid, parameters: Class2dParameters, index: int, new_images: int, live_images: int) -> StepPlan:
    """Return online step `index` of a unit that brings `new_images` to a run of `live_images`, them included."""
    return StepPlan(
        radius=online_radius(grid, parameters, live_images),
        reach=2.0 if index == 0 else 1.5,
        rate=max(new_images / live_images, 0.2),
        balance=0.5,
    )


def pass_plan(grid: Grid, parameters: Class2dParameters, live_images: int) -> StepPlan:
    """Return the full pass that a grown run makes."""
    return StepPlan(radius=online_radius(grid, parameters, live_images), reach=1.5, rate=1.0, balance=0.5)


def final_plan(grid: Grid, parameters: Class2dParameters, index: int) -> StepPlan:
    """Return final pass `index`: finer each time; the last, which assigns, with a uniform prior."""
    count = parameters.final_passes
    online = _radius(grid, parameters, _ONLINE_CYCLES)
    finest = min(grid.limit, 2 * online)
    share = index / (count - 1) if count > 1 else 1.0
    return StepPlan(
        radius=online + (finest - online) * share,
        reach=1.5,
        rate=1.0,
        balance=0.5 * (1 - (index + 1) / count),
        uniform=index == count - 1,
    )


def online_radius(grid: Grid, parameters: Class2dParameters, live_images: int) -> float:
    """Return the resolution limit of updates: it rises with the number of particles seen."""
    first = min(parameters.bootstrap_images, _FULL_SIZE - 1)
    share = min(max((live_images - first) / (_FULL_SIZE - first), 0), 1)
    return _radius(grid, parameters, _BOOTSTRAP_CYCLES + (_ONLINE_CYCLES - _BOOTSTRAP_CYCLES) * share)


def class_target(parameters: Class2dParameters, live_images: int, first: bool) -> int:
    """Return how many classes a run of `live_images` particles supports; `first`: it has none yet."""
    supported = live_images // (30 if first else parameters.images_per_class)
    return max(1, min(parameters.class_count, supported))


def renewal_is_due(parameters: Class2dParameters, live_images: int) -> bool:
    """Say whether a run has come so far that its classes are arranged anew, once: there are particles for all of them.

    Classes that were split off while there was little to see keep junk and views together that more particles tell apart.
    (Measured, K = 20, 2,000 particles, two stacks with two seeds each: 69 % instead of 60 % of the junk ends in classes that
    are mostly junk, 1.0 instead of 1.4 % of the good particles are rejected, for a sixth more time.)
    """
    return live_images >= parameters.images_per_class * parameters.class_count


def shift_disc(grid: Grid, radius: float, reach: float) -> np.ndarray[Any, Any]:
    """Return the shifts tried, (shift, 2) x, y in Å (float32): a lattice of a quarter of the finest period."""
    step = grid.box_angstrom / (4 * radius)
    count = int(reach + 1e-6)
    axis = np.arange(-count, count + 1)
    y, x = (a.ravel() for a in np.meshgrid(axis, axis, indexing="ij"))
    inside = np.hypot(x, y) <= reach + 1e-6
    return (np.stack([x[inside], y[inside]], axis=1) * step).astype(np.float32)


def angle_count(grid: Grid, parameters: Class2dParameters, radius: float) -> int:
    """Return how many in-plane angles are tried: steps of 1/2.5 Fourier pixel at the particle's edge, a multiple of 4."""
    circumference = 2 * math.pi * radius * parameters.particle_diameter_angstrom / (2 * grid.box_angstrom)
    wanted = 4 * math.ceil(_ANGLES_PER_CYCLE * circumference / 4)
    return min(max(wanted, _ANGLE_COUNT[0]), _ANGLE_COUNT[1])


def _radius(grid: Grid, parameters: Class2dParameters, cycles: float) -> float:
    return min(cycles * grid.box_angstrom / parameters.particle_diameter_angstrom, grid.limit)
