"""Where every place of the field must be moved in every frame: a polynomial over the field, free in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]

EXPONENTS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0), (0, 3), (1, 2), (2, 1), (3, 0))
"""Powers of y and of x of every term, by degree."""

DEGREES = np.array([sum(powers) for powers in EXPONENTS])
_GRID = 9  # places per axis that stand for the whole field


@dataclass(frozen=True, slots=True)
class ShiftField:
    """The shift to apply, a smooth function of the place in the corrected micrograph, for each frame.

    Attributes
    ----------
    coefficients: (frame, term, 2) float64, (y, x) in px of the movie, of the terms `EXPONENTS`; 0 in frame 0.
    """

    coefficients: Matrix

    def at(self, places: Matrix) -> Matrix:
        """Return the shift to apply, (frame, place, 2) as (y, x) in px, at places of `relative_places`."""
        return np.asarray(np.einsum("pb,tbc->tpc", terms(places), self.coefficients))

    @property
    def middle(self) -> Matrix:
        """The shift to apply in the middle of the field, (frame, 2)."""
        return np.asarray(self.coefficients[:, 0])


def whole_frame(shifts: Matrix) -> ShiftField:
    """Return the field of shifts (frame, 2) that are alike everywhere."""
    coefficients = np.zeros((len(shifts), len(EXPONENTS), 2))
    coefficients[:, 0] = shifts
    return ShiftField(coefficients)


def relative_places(places_px: Matrix, shape: tuple[int, int]) -> Matrix:
    """Return places (n, 2), (y, x) in px of a frame of `shape`, as fractions of the frame from its middle: px / size - 1/2."""
    return np.asarray(places_px / np.array(shape) - 0.5)


def terms(places: Matrix) -> Matrix:
    """Return the terms of the polynomial at relative places (n, 2), (n, term)."""
    y, x = places[:, 0], places[:, 1]
    return np.stack([y**i * x**j for i, j in EXPONENTS], axis=1)


def grid_places(count: int = _GRID) -> Matrix:
    """Return a regular grid of relative places over the whole field, (count², 2)."""
    axis = (np.arange(count) + 0.5) / count - 0.5
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def mean_terms(centres: Matrix, side: Matrix) -> Matrix:
    """Return the means of the terms over tiles, (tile, term): a tile tells the mean motion of what it holds.

    Parameters
    ----------
    centres: (tile, 2) relative places. side: (2,) of every tile, relative to the frame.
    """
    inside = centres[:, None] + grid_places()[None] * side
    return np.asarray(terms(inside.reshape(-1, 2)).reshape(*inside.shape[:2], -1).mean(axis=1))


def orthonormal_basis(tile_terms: Matrix, rows: int, columns: int) -> tuple[Matrix, Matrix]:
    """Make polynomials that are orthonormal over the tiles of a grid, by degree: mean square 1, mean product 0.

    On them a fit with equally informed tiles falls apart into one small problem for each; their size is the root mean square
    over the field of the motion that they describe.

    Parameters
    ----------
    tile_terms: (tile, term) of `mean_terms`. rows, columns: of the grid; fewer than four allow lower powers only.

    Returns
    -------
    (tile, function) values, and (term, function) the functions as polynomials.
    """
    allowed = [b for b, (i, j) in enumerate(EXPONENTS) if i < rows and j < columns]
    values, triangle = np.linalg.qr(tile_terms[:, allowed])
    scale = np.sqrt(len(tile_terms)) * np.sign(np.diag(triangle))
    polynomials = np.zeros((len(EXPONENTS), len(allowed)))
    polynomials[allowed] = np.linalg.inv(triangle) * scale
    return values * scale, polynomials


def local_rms(field: ShiftField) -> float:
    """Return the root mean square, over field and frames, of what a place moves beyond the middle, px."""
    beyond = field.at(grid_places()) - field.middle[:, None]
    return float(np.sqrt((beyond**2).sum(axis=2).mean()))
