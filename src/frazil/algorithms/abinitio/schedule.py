"""What each online step does: resolution, grids, batches, rates, temperature (algorithms 8.2).

Radii follow the particle: the recipe was measured at 64 px with a particle of two thirds of the box, where 4 and 9.3 cycles per
diameter are shells 6 and 14.
"""

from __future__ import annotations

from dataclasses import dataclass

from frazil.algorithms.abinitio.parameters import AbInitioParameters
from frazil.algorithms.refine3d.layout import HalfPlane

CONTEST_SHARE = 0.35  # of the iterations, done by every start before the best is chosen
HELD_OUT = (0.2, 1000)  # share of the particles, at most so many: judge starts, and are used like all others afterwards
SEED_IMAGES = 300  # laid down at random orientations to begin a volume
STARVING = 0.2  # share of the mean weight below which a volume begins anew
_FIRST_CYCLES, _LAST_CYCLES = 4.0, 9.3
_RISE = (0.3, 0.9)  # of the iterations: where resolution begins and ends to rise
_BATCH = (100, 300)
_COARSE_GRID, _FINE_GRID = (192, 24), (384, 36)  # views over the whole sphere, in-plane angles
_FINE_FROM_CYCLES = 6.0
_SHIFTS_FROM = 0.3
_RATE = (0.5, 0.3, 0.1)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One online step.

    Attributes
    ----------
    radius: coefficients compared and inserted, Fourier pixels. known_radius: up to where the step before has inserted: what
        lies beyond is noise divided by next to nothing. views, angles: of the grid, over the whole sphere and in plane.
    reach: of the disc of shifts, in steps; 0 for none. batch: particles. rate: share of the new statistics in the mix.
    """

    radius: float
    known_radius: float
    views: int
    angles: int
    reach: float
    batch: int
    rate: float


def step_plan(plane: HalfPlane, parameters: AbInitioParameters, iteration: int) -> StepPlan:
    """Return online step `iteration`."""
    u = _progress(parameters, iteration)
    radius = _radius(plane, parameters, iteration)
    cycles = radius * parameters.particle_diameter_angstrom / plane.box_angstrom
    grid = _COARSE_GRID if cycles < _FINE_FROM_CYCLES else _FINE_GRID
    return StepPlan(
        radius=radius,
        known_radius=_radius(plane, parameters, max(iteration - 1, 0)),
        views=grid[0],
        angles=grid[1],
        reach=0.0 if u < _SHIFTS_FROM else 1.0,
        batch=int(_BATCH[0] + (_BATCH[1] - _BATCH[0]) * u),
        rate=_RATE[0] + (_RATE[1] - _RATE[0]) * u / 0.3 if u < 0.3 else _RATE[1] + (_RATE[2] - _RATE[1]) * (u - 0.3) / 0.7,
    )


def contest_iterations(parameters: AbInitioParameters) -> int:
    """Return how many iterations every start makes before the best is chosen."""
    return max(1, round(CONTEST_SHARE * parameters.iterations)) if parameters.restarts > 1 else 0


def _radius(plane: HalfPlane, parameters: AbInitioParameters, iteration: int) -> float:
    rise = (_progress(parameters, iteration) - _RISE[0]) / (_RISE[1] - _RISE[0])
    cycles = _FIRST_CYCLES + (_LAST_CYCLES - _FIRST_CYCLES) * min(max(rise, 0.0), 1.0)
    return max(min(cycles * plane.box_angstrom / parameters.particle_diameter_angstrom, plane.limit), 2.0)


def _progress(parameters: AbInitioParameters, iteration: int) -> float:
    return iteration / max(parameters.iterations - 1, 1)
