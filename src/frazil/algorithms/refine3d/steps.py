"""The steps of a refinement, each bounded work on the state; the driver in `stream` puts them in order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d import intake, maps, schedule
from frazil.algorithms.refine3d.centring import centre_on_reference
from frazil.algorithms.refine3d.dense import make_bank
from frazil.algorithms.refine3d.expectation import Search, expect
from frazil.algorithms.refine3d.fsc import last_shell_above
from frazil.algorithms.refine3d.intake import Imaging, make_imaging
from frazil.algorithms.refine3d.layout import HalfPlane
from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.schedule import PassPlan
from frazil.algorithms.refine3d.state import Kind, Refine3dState, Sums, empty_sums
from frazil.array import Array, namespace
from frazil.model.errors import FrazilError
from frazil.primitives.rotations import directions_to_matrices, random_matrices
from frazil.primitives.symmetry import Symmetry, symmetry

_NOISE_STEP = (0.3, 2.0)
_EVIDENCE_SHELLS = 3
_EVIDENCE_SIGMA = 3.0
_WINDOW_SHELLS = 2  # over which the images' own soft window carries correlation
_GROWTH = 1.4
_BEYOND_FSC = 2.0  # shells searched beyond the crossing of 0.143: their weight is next to nothing

JUMP_DEGREES = 10.0


class Purpose(IntEnum):
    """What random numbers are for: each purpose has its own stream in each step."""

    VIEWS = 0
    PHASES = 1


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same during a run, and the images."""

    parameters: Refine3dParameters
    group: Symmetry
    imaging: Imaging

    @property
    def plane(self) -> HalfPlane:
        """The geometry of the images."""
        return self.imaging.plane


def make_run(parameters: Refine3dParameters, box_size_px: int, pixel_size_angstrom: float, xp: Any) -> Run:
    """Lay out a run for boxes of one size and pixel size."""
    imaging = make_imaging(
        box_size_px,
        pixel_size_angstrom,
        parameters.particle_diameter_angstrom,
        parameters.max_resolution_angstrom,
        xp,
    )
    return Run(parameters, symmetry(parameters.symmetry), imaging)


def random_for(parameters: Refine3dParameters, step: int, purpose: Purpose) -> np.random.Generator:
    """Return the random numbers of one step and purpose: counter-based, so nothing about them need be saved."""
    return np.random.Generator(np.random.Philox(key=[parameters.seed, step * len(Purpose) + purpose]))


def make_plan(run: Run, state: Refine3dState, kind: Kind, *, update: bool) -> PassPlan:
    """Return the next pass of a kind over all particles, or of an update with new ones."""
    settled = not update and state.counters.passes > 1
    return schedule.make_plan(run.plane, run.parameters, kind, state.radius, settled=settled)


def make_search(run: Run, state: Refine3dState, plan: PassPlan, insert_radius: float) -> Search:
    """Prepare the search of the step in hand."""
    plane, xp = run.plane, run.plane.xp
    insert = plane.count(insert_radius)
    deviation = xp.asarray(np.sqrt(state.noise[plane.shell[:insert]]).astype(np.float32))
    from_start = _from_start(state, plan)
    cubes = _references(run, state, plan)
    banks = []
    if plan.grid_radius > 0:
        random = random_for(run.parameters, state.counters.step, Purpose.VIEWS)
        views = run.group.views(schedule.GRID_VIEWS, random_matrices(1, random)[0])
        psi = (np.arange(schedule.GRID_ANGLES) + random.uniform()) * (2 * np.pi / schedule.GRID_ANGLES)
        matrices = directions_to_matrices(views, psi)
        count = plane.count(plan.grid_radius)
        banks = [make_bank(plane, [cube], deviation, matrices, plan.grid_shifts, count) for cube in cubes]
    return Search(plan, run.group, cubes, banks, deviation, run.imaging.shift_sigma_angstrom, from_start)


def take_in(run: Run, state: Refine3dState, rows: npt.NDArray[Any]) -> None:
    """Give new particles their scale, and centre them: on the start map, or on their half set's once that is to be trusted.

    Before, both half sets share one map, at detail that they share anyway. (Centred on one profile at finer detail, noise
    refined to 20 Å.)
    """
    if rows.size == 0:
        return
    intake.take_in(run.imaging, state, rows)
    if state.counters.supported:
        _centre(run, state, rows, _half_references(run, state, _centring_radius(run, state)))
        return
    _centre(run, state, rows, _start_references(run, state, _centring_radius(run, state)))


def begin_sums(run: Run, plan: PassPlan) -> Sums:
    """Return the empty sums of a pass over all particles."""
    return empty_sums(plan.insert_radius, run.plane.shell_count, run.plane.xp)


def begin_update(state: Refine3dState) -> Sums:
    """Return the empty sums of an update, as fine as what they will be added to."""
    accumulated = _accumulated(state)
    empty = [namespace(a).zeros_like(a) for a in accumulated.numerator]
    coverage = [namespace(a).zeros_like(a) for a in accumulated.denominator]
    return Sums(empty, coverage, np.zeros_like(accumulated.residual), accumulated.radius)


def add_update(state: Refine3dState, sums: Sums) -> Sums:
    """Return the sums over all particles, those of an update added."""
    total = _accumulated(state)
    return Sums(
        [a + b for a, b in zip(total.numerator, sums.numerator, strict=True)],
        [a + b for a, b in zip(total.denominator, sums.denominator, strict=True)],
        total.residual + sums.residual,
        total.radius,
        total.images + sums.images,
    )


def insert_piece(run: Run, state: Refine3dState, search: Search, rows: npt.NDArray[Any], sums: Sums) -> None:
    """Find and insert the next particles of a pass or unit.

    Dense passes against half maps to be trusted centre particles anew: what the start map could not place lies beyond the
    shifts that any search goes through, and its pose stays wrong.
    """
    if search.plan.kind == Kind.DENSE and state.counters.supported:
        _centre(run, state, rows, search.cubes)
    expect(run.plane, run.imaging.images, state.particles, rows, search, sums)


def maximise(run: Run, state: Refine3dState, plan: PassPlan, sums: Sums, *, update: bool) -> None:
    """Take sums in: measure the FSC of the half maps, follow the noise, and decide how far the next search goes."""
    state.accumulated = sums
    if not update and not _from_start(state, plan):  # of the start map not even the scale is known
        _follow_noise(run, state, sums)
    plane = run.plane
    size = plane.working_size(sums.radius)
    cubes = maps.half_cubes(plane, run.group, sums)
    half_maps = maps.unregularised_maps(plane, cubes, sums.radius, size)
    mask = maps.sphere_mask(plane, run.parameters.particle_diameter_angstrom, size)
    state.fsc = maps.masked_fsc(plane, half_maps, mask)
    if not state.counters.supported and plan.kind != Kind.DENSE and _evidence(run, cubes, sums.radius, mask):
        state.counters.supported = 1
    _set_radius(run, state, sums)
    _note(state, plan, update=update)


def _centring_radius(run: Run, state: Refine3dState) -> float:
    """Return the detail at which particles are centred: of the start map, later of the half maps up to a bound."""
    if not state.counters.supported:
        return schedule.start_radius(run.plane, run.parameters)
    return min(state.radius, schedule.centring_limit(run.plane, run.parameters))


def _centre(run: Run, state: Refine3dState, rows: npt.NDArray[Any], cubes: list[Array]) -> None:
    """Centre particles on the reference of their half set."""
    table, diameter = state.particles, run.parameters.particle_diameter_angstrom
    noise = state.noise if state.counters.supported else state.first_noise
    radius = _centring_radius(run, state)
    for half, cube in enumerate(cubes):
        members, images = rows[table.half[rows] == half], run.imaging.images
        centre_on_reference(run.plane, run.group, images, table, members, (cube, radius), noise, diameter)


def _accumulated(state: Refine3dState) -> Sums:
    if state.accumulated is None:
        raise FrazilError("NOTHING_REFINED", "Refine the first particles before taking in new ones.")
    return state.accumulated


def _set_radius(run: Run, state: Refine3dState, sums: Sums) -> None:
    """Let the search go on to finer detail as far as half maps agree, and at most 1.4 times as far as before.

    Both halves began with one map and a mask that carries correlation some shells on. Agreement counts only once it is seen
    beyond what the start map and the mask can explain; until then nothing finer than the start map is used.
    """
    plane, parameters, counters = run.plane, run.parameters, state.counters
    start = schedule.start_radius(plane, parameters)
    if not counters.supported:
        state.radius, state.resolved = start, start
        return
    last = last_shell_above(state.fsc)
    state.resolved = max(start, _crossing(state.fsc, last))
    finest = min(plane.limit, sums.radius)
    state.radius = float(min(max(last + _BEYOND_FSC, start), _GROWTH * state.radius, finest))


def _evidence(run: Run, cubes: maps.HalfCubes, radius: float, mask: Array) -> bool:
    """Say whether the half maps agree where neither the start map nor the mask's leakage reaches.

    Only what was inserted there is looked at: coarser detail, on which both halves were aligned to one map, is left out of the
    maps before they are masked. Noise passes once in a thousand times. (After a dense pass of uncertain particles the maps are
    all but spherical, and agree or not by chance: it is not asked then.)
    """
    plane, diameter = run.plane, run.parameters.particle_diameter_angstrom
    first = int(np.ceil(schedule.start_radius(plane, run.parameters))) + _WINDOW_SHELLS
    shells = np.arange(first, min(first + _EVIDENCE_SHELLS, int(radius) + 1))
    if shells.size == 0:
        return False
    fine = maps.unregularised_maps(plane, cubes, radius, mask.shape[0], inner_radius=first - 0.5)
    curve = maps.masked_fsc(plane, fine, mask)
    filled = np.pi / 6 * (diameter / plane.box_angstrom) ** 3
    independent = (4 * np.pi * shells**2).sum() * min(filled, 1.0) / run.group.order
    return bool(curve[shells].mean() > max(0.143, _EVIDENCE_SIGMA / np.sqrt(independent)))


def _crossing(fsc: npt.NDArray[np.float64], last: int) -> float:
    if last >= fsc.size - 1:
        return float(last)
    return float(last + np.clip((fsc[last] - 0.143) / max(fsc[last] - fsc[last + 1], 1e-9), 0, 1))


def _from_start(state: Refine3dState, plan: PassPlan) -> bool:
    """Say whether a pass compares with the start map."""
    return plan.kind == Kind.DENSE and state.counters.passes == 0


def _references(run: Run, state: Refine3dState, plan: PassPlan) -> list[Array]:
    """Return the two references of a search: of the start map for the first pass, of each half set for others."""
    from_start = _from_start(state, plan)
    return _start_references(run, state, plan.radius) if from_start else _half_references(run, state, plan.radius)


def _start_references(run: Run, state: Refine3dState, radius: float) -> list[Array]:
    plane = run.plane
    mask = maps.sphere_mask(plane, run.parameters.particle_diameter_angstrom, plane.working_size(radius))
    return [maps.start_cube(plane, state.start, mask, radius)] * 2


def _half_references(run: Run, state: Refine3dState, radius: float) -> list[Array]:
    """Return the references of both half sets, each shell weighted by what the FSC says of it."""
    plane, parameters = run.plane, run.parameters
    size = plane.working_size(radius)
    mask = maps.sphere_mask(plane, parameters.particle_diameter_angstrom, size)
    cubes = maps.half_cubes(plane, run.group, _accumulated(state))
    join = plane.box_angstrom / max(parameters.low_resolution_join_angstrom, parameters.start_resolution_angstrom)
    maps.join_low_resolution(cubes, join)
    volumes = maps.regularised_maps(plane, cubes, state.fsc, radius, size)
    return [maps.reference_cube(plane, volume * mask, radius) for volume in volumes]


def _follow_noise(run: Run, state: Refine3dState, sums: Sums) -> None:
    """Take the noise from the residual at the best poses, in the shells that were inserted."""
    plane = run.plane
    members = np.bincount(plane.shell[: plane.count(sums.radius)], minlength=plane.shell_count)
    used = members > 0
    ratio = np.ones(plane.shell_count)
    ratio[used] = sums.residual[used] / (2 * members[used] * sums.images)
    state.noise = state.noise * np.clip(ratio, *_NOISE_STEP)


def _note(state: Refine3dState, plan: PassPlan, *, update: bool) -> None:
    live = state.live()
    table = state.particles
    jumped = float((table.jump[live] > JUMP_DEGREES).mean())
    probability = float(np.median(table.probability[live]))
    generation = state.counters.generation
    row = [live.size, plan.kind, plan.radius, state.resolved, jumped, probability, generation, float(update)]
    state.history = np.concatenate([state.history, np.array([row], np.float64)])
