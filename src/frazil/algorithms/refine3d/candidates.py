"""Candidate poses of a tile: distinct peaks of a dense comparison, and the pose a particle had before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d.dense import Bank, compare
from frazil.algorithms.refine3d.layout import HalfPlane
from frazil.algorithms.refine3d.tiles import Tile, log_shift_prior
from frazil.array import to_host
from frazil.kernels.orientations import best_over_shifts, distinct_best

_POOL = 20  # the best orientations per peak wanted among which distinct ones are looked for
_DISTINCT_DEGREES = 6.0
_NO_CUT = 1e30


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of candidate poses; host arrays, owners non-decreasing.

    owner: (row,) image of the tile. pose: (row, 3, 3) float32. shift: (row, 2) float32, Å, on top of where the tile put it.
    """

    owner: npt.NDArray[np.int64]
    pose: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]

    def take(self, rows: npt.NDArray[np.int64]) -> Candidates:
        """Return some of the rows."""
        return Candidates(self.owner[rows], self.pose[rows], self.shift[rows])


def present_poses(pose: npt.NDArray[np.float32]) -> Candidates:
    """Return the last pose of each image as its candidate."""
    count = len(pose)
    return Candidates(np.arange(count), pose, np.zeros((count, 2), np.float32))


def grid_peaks(plane: HalfPlane, bank: Bank, tile: Tile, shift_sigma_angstrom: float, keep: int) -> Candidates:
    """Return the best `keep` orientations of the grid that are 6 degrees apart, for each image."""
    xp = plane.xp
    cross, power, _ = compare(plane, bank, tile)
    prior = xp.asarray(log_shift_prior(tile.offset, bank.shifts, shift_sigma_angstrom))
    scores, shifts = (to_host(a) for a in best_over_shifts(cross, power, prior))
    images, orientations = scores.shape
    pool = min(_POOL * keep, orientations)
    best = np.argpartition(-scores, pool - 1, axis=1)[:, :pool]
    owner = np.repeat(np.arange(images), pool)
    flat: npt.NDArray[Any] = best.ravel()
    pose = bank.matrices[flat]
    rows = distinct_best(owner, scores[owner, flat], pose, keep, _NO_CUT, _DISTINCT_DEGREES)
    return Candidates(owner[rows], pose[rows], bank.shifts[shifts[owner[rows], flat[rows]]])


def merge(first: Candidates, second: Candidates) -> Candidates:
    """Return the rows of both, by owner."""
    owner = np.concatenate([first.owner, second.owner])
    order = np.argsort(owner, kind="stable")
    pose, shift = (np.concatenate(pair)[order] for pair in ((first.pose, second.pose), (first.shift, second.shift)))
    return Candidates(owner[order], pose, shift)
