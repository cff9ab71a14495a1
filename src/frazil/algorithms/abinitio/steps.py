"""The steps of an ab-initio run, each bounded work on the state: stochastic online EM (algorithms 8.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.abinitio import schedule
from frazil.algorithms.abinitio.parameters import AbInitioParameters
from frazil.algorithms.abinitio.schedule import StepPlan
from frazil.algorithms.abinitio.state import AbInitioState, Volumes, empty_volumes
from frazil.algorithms.refine3d import dense, maps
from frazil.algorithms.refine3d.dense import Bank
from frazil.algorithms.refine3d.intake import Imaging, make_imaging
from frazil.algorithms.refine3d.layout import HalfPlane, centring_phases
from frazil.algorithms.refine3d.schedule import shift_disc
from frazil.algorithms.refine3d.tiles import Placement, Tile, make_tile
from frazil.array import Array, to_host
from frazil.kernels.posterior import Posterior
from frazil.kernels.slices import insert_slices
from frazil.primitives.rotations import directions_to_matrices, random_matrices
from frazil.primitives.symmetry import Symmetry, symmetry
from frazil.primitives.volumes import PADDING

_PRIOR = (0.01, 0.05)  # of a shell's mean coverage
_HOT, _HOTTEST = 4.0, 64.0  # temperature at the start, and at most
_SHARE, _COOLED_BY = (0.2, 0.005), 0.4  # effective share of hypotheses, from the start to this part of the run
_FEEDBACK, _FASTEST = 0.3, 1.5
_NOISE_STEP = (0.3, 2.0)


class Purpose(IntEnum):
    """What random numbers are for: each purpose has its own stream in each step."""

    SEEDS = 0
    BATCH = 1
    VIEWS = 2
    HELD_OUT = 3


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same during a run, and the images."""

    parameters: AbInitioParameters
    group: Symmetry
    imaging: Imaging

    @property
    def plane(self) -> HalfPlane:
        """The geometry of the images."""
        return self.imaging.plane

    @property
    def finest_radius(self) -> float:
        """The finest radius of any step."""
        return schedule.step_plan(self.plane, self.parameters, self.parameters.iterations - 1).radius


def make_run(parameters: AbInitioParameters, box_size_px: int, pixel_size_angstrom: float, xp: Any) -> Run:
    """Lay out a run for boxes of one size and pixel size."""
    diameter, finest = parameters.particle_diameter_angstrom, parameters.max_resolution_angstrom
    imaging = make_imaging(box_size_px, pixel_size_angstrom, diameter, finest, xp)
    return Run(parameters, symmetry(parameters.symmetry), imaging)


def random_for(parameters: AbInitioParameters, step: int, purpose: Purpose) -> np.random.Generator:
    """Return the random numbers of one step and purpose: counter-based, so nothing about them need be saved."""
    return np.random.Generator(np.random.Philox(key=[parameters.seed, step * len(Purpose) + purpose]))


def held_out(run: Run, state: AbInitioState) -> npt.NDArray[np.int64]:
    """Return the particles that judge the starts, sorted; none when there is but one start."""
    if run.parameters.restarts == 1:
        return np.zeros(0, np.int64)
    count = len(state.particles)
    share, most = schedule.HELD_OUT
    chosen = random_for(run.parameters, 0, Purpose.HELD_OUT).choice(count, min(int(share * count), most), replace=False)
    return np.sort(chosen)


def begin_start(run: Run, state: AbInitioState) -> None:
    """Begin a start: for each volume, some random particles at random orientations."""
    random = random_for(run.parameters, state.counters.step, Purpose.SEEDS)
    count = len(state.particles)
    state.particles.shift[:] = state.particles.centre
    volumes = empty_volumes(run.parameters.volume_count, run.finest_radius, run.plane.xp)
    radius = schedule.step_plan(run.plane, run.parameters, 0).radius
    for volume in range(run.parameters.volume_count):
        rows = np.sort(random.choice(count, min(schedule.SEED_IMAGES, count), replace=False))
        poses = random_matrices(rows.size, random)
        share = count / (rows.size * run.parameters.volume_count)
        _lay_down(run, state, volumes, volume, (rows, poses), (radius, share))
        volumes.weight[volume] = count / run.parameters.volume_count
    state.volumes, state.temperature = volumes, _HOT


def online_step(run: Run, state: AbInitioState, volumes: Volumes, iteration: int, excluded: npt.NDArray[Any]) -> None:
    """Compare a random batch with the volumes there are, and mix what it says in."""
    parameters, counters = run.parameters, state.counters
    plan = schedule.step_plan(run.plane, parameters, iteration)
    pool = np.setdiff1d(np.arange(len(state.particles)), excluded)
    random = random_for(parameters, counters.step, Purpose.BATCH)
    batch = np.sort(random.choice(pool, min(plan.batch, pool.size), replace=False))
    bank, deviation = make_bank(run, state, volumes, plan)
    sums = dense.empty_bank_sums(run.plane, bank)
    weight, spread, residual = np.zeros(bank.volumes), 0.0, np.zeros(run.plane.shell_count)
    for part, tile in _tiles(run, state, batch, bank, deviation):
        found, moved = _posterior(run, bank, tile, state.temperature)
        weight += to_host(found.classes).astype(np.float64).sum(axis=0)
        spread += float(run.plane.xp.sum(1 / run.plane.xp.sum(found.weights**2, axis=(1, 2))))
        dense.add_to_bank(run.plane, sums, tile, found, moved)
        residual += dense.dense_residual(run.plane, bank, tile, to_host(found.best))
        _assign(state, part, bank, found)
    _mix(run, volumes, bank, sums, deviation, (plan.rate, len(state.particles) / batch.size, weight))
    _follow_noise(run, state, residual, plan.radius, batch.size)
    effective = spread / batch.size / (bank.templates.shape[0] * len(bank.shifts))
    _cool(state, iteration / parameters.iterations, effective)
    row = [counters.start, iteration, plan.radius, state.temperature, effective]
    state.history = np.concatenate([state.history, np.array([row], np.float64)])


def restart_starving(run: Run, state: AbInitioState, volumes: Volumes) -> int:
    """Let volumes with few particles begin anew from the worst-fitting quarter of the biggest one's; return how many did."""
    mean = volumes.weight.mean()
    starving = np.flatnonzero(volumes.weight < schedule.STARVING * mean)
    biggest = int(volumes.weight.argmax())
    members = np.flatnonzero(state.volume_index == biggest)
    if members.size < 8:
        return 0
    worst = np.sort(members[np.argsort(state.particles.log_likelihood[members], kind="stable")[: members.size // 4]])
    for volume in starving:
        share = float(volumes.weight[biggest]) / 2
        plane = run.plane
        empty = empty_volumes(1, run.finest_radius, plane.xp)
        volumes.numerator[volume], volumes.denominator[volume] = empty.numerator[0], empty.denominator[0]
        radius = schedule.step_plan(plane, run.parameters, state.counters.iteration).radius
        poses = state.particles.pose[worst].astype(np.float64)
        _lay_down(run, state, volumes, int(volume), (worst, poses), (radius, share / worst.size))
        volumes.numerator[biggest] = volumes.numerator[biggest] * 0.5
        volumes.denominator[biggest] = volumes.denominator[biggest] * 0.5
        volumes.weight[volume] = volumes.weight[biggest] = share
    return int(starving.size)


def mean_log_likelihood(run: Run, state: AbInitioState, volumes: Volumes, rows: npt.NDArray[Any], iteration: int) -> float:
    """Return the mean log likelihood of particles, marginal over poses and volumes, at the resolution of an iteration."""
    plan = schedule.step_plan(run.plane, run.parameters, iteration)
    bank, deviation = make_bank(run, state, volumes, plan)
    total = 0.0
    for _, tile in _tiles(run, state, rows, bank, deviation):
        found, _ = _posterior(run, bank, tile, 1.0)
        total += float(run.plane.xp.sum(found.log_likelihood))
    return total / rows.size - float(np.log(bank.templates.shape[0] * len(bank.shifts)))


def assign(run: Run, state: AbInitioState, volumes: Volumes, rows: npt.NDArray[Any]) -> None:
    """Give particles their volume, pose and shift."""
    plan = schedule.step_plan(run.plane, run.parameters, run.parameters.iterations - 1)
    bank, deviation = make_bank(run, state, volumes, plan)
    for part, tile in _tiles(run, state, rows, bank, deviation):
        found, _ = _posterior(run, bank, tile, 1.0)
        _assign(state, part, bank, found)
        state.particles.generation[part] = 0


def make_bank(run: Run, state: AbInitioState, volumes: Volumes, plan: StepPlan) -> tuple[Bank, Array]:
    """Take the slices of the present volumes on a grid turned at random; return it, and the noise (standard deviation)."""
    plane, xp = run.plane, run.plane.xp
    random = random_for(run.parameters, state.counters.step, Purpose.VIEWS)
    views = run.group.views(plan.views, random_matrices(1, random)[0])
    psi = (np.arange(plan.angles) + random.uniform()) * (2 * np.pi / plan.angles)
    count = plane.count(plan.radius)
    deviation = xp.asarray(np.sqrt(state.noise[plane.shell[:count]]).astype(np.float32))
    size = plane.working_size(plan.radius)
    mask = maps.sphere_mask(plane, run.parameters.particle_diameter_angstrom, size)
    references = current_maps(run, volumes, plan.known_radius, size)
    cubes = [maps.reference_cube(plane, volume * mask, plan.radius) for volume in references]
    shifts = shift_disc(plane, plan.radius, plan.reach)
    return dense.make_bank(plane, cubes, deviation, directions_to_matrices(views, psi), shifts, count), deviation


def current_maps(run: Run, volumes: Volumes, radius: float, size: int) -> list[Array]:
    """Return the maps of all volumes up to a radius, (size, size, size) float32 over the extent of the box."""
    cubes = maps.finished_cubes(run.plane, run.group, volumes.numerator, volumes.denominator, run.finest_radius)
    return maps.power_regularised_maps(run.plane, cubes, radius, size, _PRIOR)


def _tiles(
    run: Run, state: AbInitioState, rows: npt.NDArray[Any], bank: Bank, deviation: Array
) -> list[tuple[npt.NDArray[Any], Tile]]:
    table, tiles = state.particles, []
    for start in range(0, rows.size, bank.tile_images):
        part = rows[start : start + bank.tile_images]
        placement = Placement(table.scale[part], table.shift[part], table.centre[part])
        tiles.append((part, make_tile(run.plane, run.imaging.images, part, placement, deviation)))
    return tiles


def _posterior(run: Run, bank: Bank, tile: Tile, temperature: float) -> tuple[Posterior, Array]:
    return dense.dense_posterior(run.plane, bank, tile, run.imaging.shift_sigma_angstrom, temperature=temperature)


def _assign(state: AbInitioState, part: npt.NDArray[Any], bank: Bank, found: Posterior) -> None:
    table, best = state.particles, to_host(found.best)
    state.volume_index[part] = best[:, 0]
    table.pose[part] = bank.matrices[best[:, 2]]
    table.shift[part] += bank.shifts[best[:, 1]]
    table.probability[part] = to_host(found.classes).max(axis=1)
    table.log_likelihood[part] = to_host(found.log_likelihood)


def _mix(
    run: Run,
    volumes: Volumes,
    bank: Bank,
    sums: dense.BankSums,
    deviation: Array,
    rates: tuple[float, float, npt.NDArray[np.float64]],
) -> None:
    """S <- (1 - rate) S + rate (particles / batch) sums; rates: rate, particles / batch, weight of each volume in the batch."""
    rate, scale, weight = rates
    batch = empty_volumes(bank.volumes, run.finest_radius, run.plane.xp)
    dense.insert_bank(run.plane, bank, sums, deviation, batch.numerator, batch.denominator)
    for volume in range(bank.volumes):
        pairs = ((volumes.numerator, batch.numerator), (volumes.denominator, batch.denominator))
        for total, new in pairs:
            total[volume] = total[volume] * (1 - rate) + new[volume] * (rate * scale)
    volumes.weight = volumes.weight * (1 - rate) + weight * (rate * scale)


def _lay_down(
    run: Run,
    state: AbInitioState,
    volumes: Volumes,
    volume: int,
    seeds: tuple[npt.NDArray[Any], npt.NDArray[np.float64]],
    extent: tuple[float, float],
) -> None:
    """Insert particles (rows, poses) into a volume up to a radius, each as if it stood for a share of all; extent: both."""
    (rows, poses), (radius, share), plane = seeds, extent, run.plane
    xp, count = plane.xp, plane.count(radius)
    table = state.particles
    coefficients, ctf = run.imaging.images.take(rows, count)
    inverse = xp.asarray((share / state.noise[plane.shell[:count]]).astype(np.float32))
    centred = coefficients * centring_phases(plane, xp.asarray(table.shift[rows]), count)
    values = centred * (ctf * inverse * xp.asarray(1 / table.scale[rows])[:, None])
    turns = xp.asarray(poses.astype(np.float32))
    kx, ky = plane.frequency_x[:count], plane.frequency_y[:count]
    target = (volumes.numerator[volume], volumes.denominator[volume])
    insert_slices(*target, values, ctf * ctf * inverse, kx, ky, turns, PADDING)


def _follow_noise(run: Run, state: AbInitioState, residual: npt.NDArray[np.float64], radius: float, images: int) -> None:
    """Half a step, in the logarithm, from the noise assumed to the residual found, in the shells that were compared."""
    plane = run.plane
    members = np.bincount(plane.shell[: plane.count(radius)], minlength=plane.shell_count)
    used = members > 0
    ratio = np.ones(plane.shell_count)
    ratio[used] = residual[used] / (2 * members[used] * images)
    state.noise = state.noise * np.clip(ratio, *_NOISE_STEP) ** 0.5


def _cool(state: AbInitioState, progress: float, effective: float) -> None:
    """Choose the next temperature so that the effective share of hypotheses falls as planned: neither frozen nor wasted.

    A fixed temperature freezes strong particles into the poses of a random start, and leaves weak ones all poses alike.
    """
    if progress > _COOLED_BY:
        state.temperature = max(1.0, 0.8 * state.temperature)
        return
    first, last = np.log(_SHARE)
    wanted = np.exp(first + (last - first) * progress / _COOLED_BY)
    change = np.clip((wanted / effective) ** _FEEDBACK, 1 / _FASTEST, _FASTEST)
    state.temperature = float(np.clip(state.temperature * change, 1.0, _HOTTEST))
