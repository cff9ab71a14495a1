"""The E-step of a piece of a pass, and the insertion that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.refine3d import dense
from frazil.algorithms.refine3d.candidates import Candidates, grid_peaks, merge, present_poses
from frazil.algorithms.refine3d.dense import Bank
from frazil.algorithms.refine3d.layout import HalfPlane
from frazil.algorithms.refine3d.levels import Outcome, Target, narrow, settle
from frazil.algorithms.refine3d.schedule import PassPlan
from frazil.algorithms.refine3d.state import Kind, PoseTable, Sums
from frazil.algorithms.refine3d.tiles import Placement, Tile, make_tile
from frazil.array import Array, to_host
from frazil.primitives.rotations import angles_between
from frazil.primitives.symmetry import Symmetry

_LEVEL_TILE = 32  # images refined together
_JUMP_LIMIT = 180.0


@dataclass(frozen=True, slots=True)
class Search:
    """What images are compared with in one pass: a function of the state, so that a pass can go on after a restart.

    Attributes
    ----------
    plan: of the pass. group: symmetry.
    cubes: references of the two half sets. banks: their slices on the grid; none for local passes.
    deviation: (insert count,) real; standard deviation of the noise at each coefficient.
    shift_sigma_angstrom: of the prior around where centring found each particle.
    fit_scale: the references' scale is unknown: the likelihood is profiled over it.
    """

    plan: PassPlan
    group: Symmetry
    cubes: list[Array]
    banks: list[Bank]
    deviation: Array
    shift_sigma_angstrom: float
    fit_scale: bool


def expect(
    plane: HalfPlane, images: ParticleImages, table: PoseTable, rows: npt.NDArray[Any], search: Search, sums: Sums
) -> None:
    """Find the poses of particles and insert them.

    Parameters
    ----------
    table: its rows get pose, shift, probability, likelihood and jump.
    rows: sorted. sums: added to, in a fixed order.
    """
    for half in (0, 1):
        members = rows[table.half[rows] == half]
        if members.size == 0:
            continue
        if search.plan.kind == Kind.DENSE:
            _dense(plane, images, table, members, search, sums, half)
        else:
            _refine(plane, images, table, members, search, sums, half)
    sums.images += int(rows.size)
    sums.visited += int(rows.size)


def _dense(
    plane: HalfPlane,
    images: ParticleImages,
    table: PoseTable,
    rows: npt.NDArray[Any],
    search: Search,
    sums: Sums,
    half: int,
) -> None:
    """Insert particles at every orientation of the grid by its posterior."""
    bank = search.banks[half]
    total = dense.empty_bank_sums(plane, bank)
    for start in range(0, rows.size, bank.tile_images):
        part = rows[start : start + bank.tile_images]
        tile = make_tile(plane, images, part, _placement(table, part), search.deviation)
        found, moved = dense.dense_posterior(plane, bank, tile, search.shift_sigma_angstrom, fit_scale=search.fit_scale)
        dense.add_to_bank(plane, total, tile, found, moved)
        best = to_host(found.best)
        sums.residual += dense.dense_residual(plane, bank, tile, best)
        probability = to_host(plane.xp.max(plane.xp.sum(found.weights, axis=1), axis=1))
        pose, shift = bank.matrices[best[:, 2]], bank.shifts[best[:, 1]]
        _record(table, part, Outcome(pose, shift, probability, to_host(found.log_likelihood)), search.group)
    dense.insert_bank(plane, bank, total, search.deviation, [sums.numerator[half]], [sums.denominator[half]])


def _refine(
    plane: HalfPlane,
    images: ParticleImages,
    table: PoseTable,
    rows: npt.NDArray[Any],
    search: Search,
    sums: Sums,
    half: int,
) -> None:
    """Refine the candidates of particles level by level and insert them at the last."""
    target = Target(
        search.cubes[half], search.deviation, sums.numerator[half], sums.denominator[half], search.shift_sigma_angstrom
    )
    for start in range(0, rows.size, _LEVEL_TILE):
        part = rows[start : start + _LEVEL_TILE]
        tile = make_tile(plane, images, part, _placement(table, part), search.deviation)
        candidates = _candidates(plane, table, part, tile, search, half)
        for level in search.plan.levels[:-1]:
            candidates = narrow(plane, target, tile, candidates, level)
        outcome, residual = settle(plane, target, tile, candidates, search.plan.levels[-1])
        sums.residual += residual
        _record(table, part, outcome, search.group)


def _candidates(
    plane: HalfPlane, table: PoseTable, part: npt.NDArray[Any], tile: Tile, search: Search, half: int
) -> Candidates:
    """Return the grid's peaks in global passes, and the last pose of every particle that has one."""
    known = present_poses(table.pose[part])
    if search.plan.kind == Kind.LOCAL:
        return known
    bank, keep = search.banks[half], search.plan.levels[0].keep
    parts = []
    for start in range(0, part.size, bank.tile_images):
        piece = slice(start, start + bank.tile_images)
        few = Tile(tile.whitened[piece], tile.ctf[piece], tile.offset[piece])
        peaks = grid_peaks(plane, bank, few, search.shift_sigma_angstrom, keep)
        parts.append(Candidates(peaks.owner + start, peaks.pose, peaks.shift))
    peaks = Candidates(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("owner", "pose", "shift")))
    return merge(known.take(np.flatnonzero(table.generation[part] >= 0)), peaks)


def _placement(table: PoseTable, part: npt.NDArray[Any]) -> Placement:
    return Placement(table.scale[part], table.shift[part], table.centre[part])


def _record(table: PoseTable, part: npt.NDArray[Any], found: Outcome, group: Symmetry) -> None:
    jump = angles_between(found.pose.astype(np.float64), table.pose[part].astype(np.float64), group.operators)
    table.jump[part] = np.where(table.generation[part] >= 0, jump, _JUMP_LIMIT)
    table.pose[part] = found.pose
    table.shift[part] += found.shift
    table.probability[part] = found.probability
    table.log_likelihood[part] = found.log_likelihood
