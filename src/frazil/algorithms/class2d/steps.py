"""The steps of a run, each bounded work on the state; the driver in `stream` puts them in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from frazil.algorithms.class2d import schedule
from frazil.algorithms.class2d.centring import Centring, find_centres, make_centring, radial_profile
from frazil.algorithms.class2d.expectation import Search, expect
from frazil.algorithms.class2d.grid import Grid, make_grid
from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.class2d.maximisation import add_sums, maximise, rescale
from frazil.algorithms.class2d.parameters import Class2dParameters
from frazil.algorithms.class2d.references import Masks, build_references, make_masks, recentre
from frazil.algorithms.class2d.schedule import StepPlan
from frazil.algorithms.class2d.seeding import first_classes, grow, restart_starving
from frazil.algorithms.class2d.state import Class2dState, PassSums

_CENTRING_ITERATIONS = 4
_CENTRING_BATCH = 256
_BOOTSTRAP_BATCH = (300, 400)
_SCALE_SQUARED = (0.5, 9.0)
_SHIFT_SIGMA = 1 / 7  # of the particle's radius


class Purpose(IntEnum):
    """What random numbers are for: each purpose has its own stream in each step."""

    ORDER = 0
    ANGLES = 1
    SEEDS = 2
    REPLAY = 3
    RESTART = 4


@dataclass(slots=True)
class Work:
    """What this process has done: image visits of the E-step, and floating-point operations of its matrix products."""

    images: int = 0
    flop: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same during a run, and the images."""

    parameters: Class2dParameters
    grid: Grid
    masks: Masks
    centring: Centring
    images: ParticleImages
    work: Work = field(default_factory=Work)


def make_run(parameters: Class2dParameters, box_size_px: int, pixel_size_angstrom: float, xp: Any) -> Run:
    """Lay out a run for boxes of one size and pixel size."""
    grid = make_grid(box_size_px, pixel_size_angstrom, parameters.max_resolution_angstrom, xp)
    diameter = parameters.particle_diameter_angstrom
    masks = make_masks(grid, diameter, parameters.mask_diameter_angstrom)
    return Run(parameters, grid, masks, make_centring(grid, diameter), ParticleImages(grid))


def random_for(parameters: Class2dParameters, step: int, purpose: Purpose) -> np.random.Generator:
    """Return the random numbers of one step and purpose: counter-based, so nothing about them need be saved."""
    return np.random.Generator(np.random.Philox(key=[parameters.seed, step * len(Purpose) + purpose]))


def begin_bootstrap(run: Run, state: Class2dState) -> None:
    """Take noise and scale from the first particles, centre them, and begin the first classes."""
    live = state.live()
    power = run.images.power(live).astype(np.float64)
    state.first_noise = np.maximum(power.mean(axis=0) / 2, 1e-12)
    state.noise = state.first_noise.copy()
    state.reference_power = max(float(np.median(_band_power(run.grid, state, power))), 1e-12)
    _set_scale(run, state, live)
    for _ in range(_CENTRING_ITERATIONS):
        coefficients, ctf = run.images.take(live, run.centring.count)
        scale = run.grid.xp.asarray((1 / state.particles.scale[live]).astype(np.float32))
        shifts = run.grid.xp.asarray(state.particles.shift[live])
        state.profile = radial_profile(run.grid, run.centring, coefficients * scale[:, None], ctf, shifts)
        _centre(run, state, live)
    plan = schedule.bootstrap_plan(run.grid, run.parameters, 0)
    count = schedule.class_target(run.parameters, live.size, first=True)
    random = random_for(run.parameters, state.counters.step, Purpose.SEEDS)
    first_classes(state, run.grid, run.images, count, plan.radius + 1, random)


def bootstrap_step(run: Run, state: Class2dState, index: int) -> None:
    """Make online step `index` of the bootstrap, over the next batch of a fixed random order."""
    live = state.live()
    order = random_for(run.parameters, 0, Purpose.ORDER).permutation(live)
    size = min(max(live.size // 2, _BOOTSTRAP_BATCH[0]), _BOOTSTRAP_BATCH[1], live.size)
    batch = np.sort(order[(index * size + np.arange(size)) % live.size])
    plan = schedule.bootstrap_plan(run.grid, run.parameters, index)
    online_step(run, state, batch, plan)
    if schedule.restarts_after_bootstrap_step(index):
        _restart(run, state, schedule.RESTART_BELOW, plan.radius)


def begin_unit(run: Run, state: Class2dState, start: int, end: int) -> None:
    """Take in the particles of rows [start, end): scale and centre them, make room for them, grow the classes."""
    new = np.flatnonzero(~state.particles.removed[start:end]) + start
    if new.size == 0:
        return
    _set_scale(run, state, new)
    _centre(run, state, new)
    live = state.live().size
    if live > new.size:
        rescale(state, live / (live - new.size))
    target = schedule.class_target(run.parameters, live, first=False)
    random = random_for(run.parameters, state.counters.step, Purpose.SEEDS)
    grow(state, run.grid, run.images, target, state.radius, random)


def unit_step(run: Run, state: Class2dState, index: int) -> None:
    """Make online step `index` of the unit in hand: its particles and as many old ones, at least a unit's worth."""
    start = state.counters.unit_start
    live = state.live()
    new, old = live[live >= start], live[live < start]
    if new.size == 0:
        return
    random = random_for(run.parameters, state.counters.step, Purpose.REPLAY)
    replayed = random.choice(old, min(max(new.size, run.parameters.unit_images), old.size), replace=False)
    plan = schedule.unit_plan(run.grid, run.parameters, index, new.size, live.size)
    online_step(run, state, np.sort(np.concatenate([replayed, new])), plan)
    if index == 0:
        _restart(run, state, schedule.RESTART_BELOW_IN_UNITS, plan.radius)


def online_step(run: Run, state: Class2dState, batch: np.ndarray[Any, Any], plan: StepPlan) -> None:
    """Assign a batch and mix its statistics in."""
    search = begin_step(run, state, plan)
    sums = _expect(run, state, batch, search)
    state.particles.generation[batch] = state.counters.generation
    maximise(state, run.grid, sums, plan, state.live().size)


def begin_step(run: Run, state: Class2dState, plan: StepPlan) -> Search:
    """Count a step, recentre the classes and prepare the search."""
    state.counters.step += 1
    state.radius = plan.radius
    recentre(run.grid, run.masks, state.classes, plan.radius)
    return make_search(run, state, plan)


def make_search(run: Run, state: Class2dState, plan: StepPlan) -> Search:
    """Prepare the search of the step in hand: a function of the state, so that a pass can go on after a restart."""
    grid, xp = run.grid, run.grid.xp
    angles = schedule.angle_count(grid, run.parameters, plan.radius)
    first = random_for(run.parameters, state.counters.step, Purpose.ANGLES).uniform()
    deviation = np.sqrt(state.noise[grid.shells_of(grid.count(plan.radius))])
    bias = np.zeros_like(state.bias) if plan.uniform else state.bias
    return Search(
        references=build_references(grid, run.masks, state.classes, plan.radius),
        deviation=xp.asarray(deviation.astype(np.float32)),
        bias=xp.asarray(bias),
        angles=(np.arange(angles) + first) * (2 * np.pi / angles),
        shifts=schedule.shift_disc(grid, plan.radius, plan.reach),
        shift_sigma_angstrom=_SHIFT_SIGMA * run.masks.radius_angstrom,
    )


def pass_piece(run: Run, state: Class2dState, search: Search, plan: StepPlan, size: int) -> bool:
    """Do the next `size` particles of a pass over all; at the end take the sums in and return True."""
    live = state.live()
    done = state.sums.visited if state.sums is not None else 0
    batch = live[done : done + size]
    sums = _expect(run, state, batch, search)
    state.particles.generation[batch] = state.counters.generation + 1
    state.sums = add_sums(state.sums, sums)
    if state.sums.visited < live.size:
        return False
    maximise(state, run.grid, state.sums, plan, live.size)
    state.sums = None
    state.counters.generation += 1
    state.counters.pass_images = int(live.size)
    state.counters.removed_since_pass = 0
    return True


def _expect(run: Run, state: Class2dState, batch: np.ndarray[Any, Any], search: Search) -> PassSums:
    templates = search.bias.shape[0] * search.angles.size
    run.work.images += int(batch.size)
    run.work.flop += batch.size * templates * search.count * (4.0 * search.shifts.shape[0] + 2)
    return expect(run.grid, run.images, state.particles, batch, search)


def _restart(run: Run, state: Class2dState, threshold: float, radius: float) -> None:
    random = random_for(run.parameters, state.counters.step, Purpose.RESTART)
    restart_starving(state, run.grid, run.images, threshold, radius, random)


def _band_power(grid: Grid, state: Class2dState, power: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the whitened power of images above an eighth of the sampling rate, (particle,)."""
    members = np.bincount(grid.shell, minlength=grid.shell_count).astype(np.float64)
    members[: grid.box_size_px // 8] = 0
    result: np.ndarray[Any, Any] = (power / (2 * state.first_noise)) @ members / members.sum()
    return result


def _set_scale(run: Run, state: Class2dState, positions: np.ndarray[Any, Any]) -> None:
    """Give each image a scale from its power: protects against stripes and ice."""
    power = _band_power(run.grid, state, run.images.power(positions).astype(np.float64))
    squared = np.clip(power / state.reference_power, *_SCALE_SQUARED)
    state.particles.scale[positions] = np.sqrt(squared).astype(np.float32)


def _centre(run: Run, state: Class2dState, positions: np.ndarray[Any, Any]) -> None:
    xp, table = run.grid.xp, state.particles
    weight = xp.asarray((state.profile / (2 * state.noise)).astype(np.float32))
    for start in range(0, positions.size, _CENTRING_BATCH):
        part = positions[start : start + _CENTRING_BATCH]
        coefficients, ctf = run.images.take(part, run.centring.count)
        scaled = coefficients * xp.asarray((1 / table.scale[part]).astype(np.float32))[:, None]
        table.centre[part] = find_centres(run.grid, run.centring, scaled, ctf, weight)
        table.shift[part] = table.centre[part]
