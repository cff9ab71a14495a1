"""The search around candidates, level by level, and the insertion of what the last level finds (recipe: refine3d 2, 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d.candidates import Candidates
from frazil.algorithms.refine3d.layout import HalfPlane, centring_phases
from frazil.algorithms.refine3d.schedule import Level
from frazil.algorithms.refine3d.tiles import Tile, log_shift_prior, shell_residual
from frazil.array import Array, to_host
from frazil.kernels.class2d_products import as_complex, as_real
from frazil.kernels.orientations import distinct_best
from frazil.kernels.slices import insert_slices, take_slices
from frazil.primitives.rotations import ball_of_turns
from frazil.primitives.volumes import PADDING

_ROWS = 64  # candidates compared at a time: their slices stay in cache
_INSERTED = 8  # orientations of an image that are inserted at most
_INSERTED_ABOVE = 0.01  # of the posterior
_DISTINCT_STEPS = 1.2


@dataclass(frozen=True, slots=True)
class Scores:
    """Log likelihoods around candidates, (row, shift, turn); poses (row, turn, 3, 3) and shifts (row, shift, 2); host."""

    value: npt.NDArray[np.float32]
    pose: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome for each image of a tile; host arrays.

    pose: (image, 3, 3). shift: (image, 2) Å on top of where the tile put it. probability: marginal of the best orientation.
    log_likelihood: (image,), relative to no particle: log of the mean over what the last level compared.
    """

    pose: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    log_likelihood: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Target:
    """Where images are compared and inserted: the reference cube of their half set, the noise (standard deviation per
    coefficient inserted), the sums, and the sigma of the shift prior in Å.
    """

    cube: Array
    deviation: Array
    numerator: Array
    denominator: Array
    shift_sigma_angstrom: float


def narrow(plane: HalfPlane, target: Target, tile: Tile, candidates: Candidates, level: Level) -> Candidates:
    """Move each candidate to the best of its surroundings, and keep the distinct ones that still compete."""
    scores = compare_around(plane, target, tile, candidates, level)
    rows = np.arange(len(candidates.owner))
    best = scores.value.reshape(rows.size, -1).argmax(axis=1)
    shift, turn = np.divmod(best, scores.value.shape[2])
    moved = Candidates(candidates.owner, scores.pose[rows, turn], scores.shift[rows, shift])
    value = scores.value.reshape(rows.size, -1)[rows, best]
    apart = _DISTINCT_STEPS * np.rad2deg(level.step_radians)
    return moved.take(distinct_best(moved.owner, value, moved.pose, level.keep, level.cut, apart))


def compare_around(plane: HalfPlane, target: Target, tile: Tile, candidates: Candidates, level: Level) -> Scores:
    """Return the log likelihood of every turn and shift of a level around every candidate."""
    xp, count = plane.xp, plane.count(level.radius)
    turns = ball_of_turns(level.step_radians, 1)
    pose = (turns[None] @ candidates.pose[:, None]).astype(np.float32)
    shift = candidates.shift[:, None, :] + level.shifts[None, :, :]
    value = np.empty((len(pose), len(level.shifts), len(turns)), np.float32)
    kx, ky = plane.frequency_x[:count], plane.frequency_y[:count]
    deviation = target.deviation[:count]
    lattice = centring_phases(plane, xp.asarray(level.shifts), count)
    for start in range(0, len(pose), _ROWS):
        part = slice(start, start + _ROWS)
        owner = xp.asarray(candidates.owner[part])
        slices = take_slices(target.cube, kx, ky, xp.asarray(pose[part].reshape(-1, 3, 3)), PADDING)
        slices = xp.reshape(slices, (-1, len(turns), count))
        ctf = xp.take(tile.ctf[:, :count], owner, axis=0) / deviation
        image = xp.take(tile.whitened[:, :count], owner, axis=0) * ctf
        image = image * centring_phases(plane, xp.asarray(candidates.shift[part]), count)
        cross = as_real(image[:, None, :] * lattice) @ xp.matrix_transpose(as_real(slices))
        power = (xp.real(slices) ** 2 + xp.imag(slices) ** 2) @ (ctf * ctf)[:, :, None]
        value[part] = to_host(cross - xp.matrix_transpose(power) / 2)
    value += log_shift_prior(tile.offset[candidates.owner], shift, target.shift_sigma_angstrom)[:, :, None]
    return Scores(value, pose, shift)


def settle(
    plane: HalfPlane, target: Target, tile: Tile, candidates: Candidates, level: Level
) -> tuple[Outcome, npt.NDArray[np.float64]]:
    """Compare at the last level, insert every image by the posterior over all its candidates.

    Returns the best poses, and the sum over images of |x - C m|^2 per shell at them.
    """
    scores = compare_around(plane, target, tile, candidates, level)
    owner = candidates.owner
    first = np.searchsorted(owner, np.arange(tile.whitened.shape[0]))
    flat = scores.value.reshape(len(owner), -1)
    top = np.maximum.reduceat(flat.max(axis=1), first)
    weight = np.exp(scores.value - top[owner, None, None])
    total = np.add.reduceat(weight.reshape(len(owner), -1).sum(axis=1), first)
    weight /= total[owner, None, None]
    marginal = weight.sum(axis=1)
    _insert(plane, target, tile, candidates, level, (scores.pose, weight, marginal))

    winner = _best_rows(owner, marginal.max(axis=1))
    turn = marginal[winner].argmax(axis=1)
    best_shift = scores.value[winner, :, turn].argmax(axis=1)
    pose, shift = scores.pose[winner, turn], scores.shift[winner, best_shift]
    compared = np.add.reduceat(np.full(len(owner), flat.shape[1]), first)
    outcome = Outcome(
        pose=pose,
        shift=shift,
        probability=marginal[winner, turn],
        log_likelihood=(top + np.log(total / compared)).astype(np.float32),
    )
    return outcome, _residual(plane, target, tile, pose, shift, plane.count(level.radius))


def _best_rows(owner: npt.NDArray[np.int64], value: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the row of the highest value of each owner."""
    order = np.lexsort((-value, owner))
    first = np.searchsorted(owner[order], np.unique(owner))
    rows: npt.NDArray[np.int64] = order[first]
    return rows


def _insert(
    plane: HalfPlane,
    target: Target,
    tile: Tile,
    candidates: Candidates,
    level: Level,
    posterior: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> None:
    """Insert each image at its likely orientations, marginalised over shifts; their weights sum to one.

    posterior: poses (row, turn, 3, 3), weights (row, shift, turn), and these summed over shifts.
    """
    xp, count = plane.xp, int(target.deviation.shape[0])
    pose, weight, marginal = posterior
    row, turn = _likely(candidates.owner, marginal)
    share = np.bincount(candidates.owner[row], marginal[row, turn], tile.whitened.shape[0])[candidates.owner[row]]
    lattice = as_real(centring_phases(plane, xp.asarray(level.shifts), count))
    kx, ky = plane.frequency_x[:count], plane.frequency_y[:count]
    for start in range(0, row.size, _ROWS):
        rows, turns, part = row[start : start + _ROWS], turn[start : start + _ROWS], share[start : start + _ROWS, None]
        by_shift = xp.asarray((weight[rows, :, turns] / part).astype(np.float32))
        phases = as_complex(by_shift @ lattice) * centring_phases(plane, xp.asarray(candidates.shift[rows]), count)
        image = xp.asarray(candidates.owner[rows])
        ctf = xp.take(tile.ctf, image, axis=0) / target.deviation
        values = xp.take(tile.whitened, image, axis=0) * ctf * phases
        weights = ctf * ctf * xp.asarray((marginal[rows, turns, None] / part).astype(np.float32))
        turned = xp.asarray(pose[rows, turns])
        insert_slices(target.numerator, target.denominator, values, weights, kx, ky, turned, PADDING)


def _likely(owner: npt.NDArray[np.int64], marginal: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return row and turn of the orientations worth inserting: the best of each image, and up to seven others."""
    turns = marginal.shape[1]
    flat = marginal.ravel()
    image = np.repeat(owner, turns)
    order = np.lexsort((-flat, image))
    first = np.searchsorted(image[order], np.unique(owner))
    rank = np.arange(order.size) - np.repeat(first, np.diff(np.append(first, order.size)))
    kept = order[(rank == 0) | ((rank < _INSERTED) & (flat[order] > _INSERTED_ABOVE))]
    row, turn = np.divmod(kept, turns)
    return row, turn


def _residual(
    plane: HalfPlane, target: Target, tile: Tile, pose: npt.NDArray[Any], shift: npt.NDArray[Any], count: int
) -> npt.NDArray[np.float64]:
    """Return the sum over images of |x - C m|^2 at the given poses per shell; beyond `count` coefficients m counts as zero."""
    xp, insert = plane.xp, int(target.deviation.shape[0])
    slices = take_slices(target.cube, plane.frequency_x[:count], plane.frequency_y[:count], xp.asarray(pose), PADDING)
    centred = tile.whitened * centring_phases(plane, xp.asarray(shift), insert)
    near = centred[:, :count] - tile.ctf[:, :count] * slices / target.deviation[:count]
    return shell_residual(plane, xp.concat([near, centred[:, count:]], axis=1))
