"""A few images made ready for comparison: centred, divided by the noise, with their CTF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.refine3d.layout import HalfPlane, centring_phases
from frazil.array import Array, to_host


@dataclass(frozen=True, slots=True)
class Tile:
    """Images of a tile, shifted to where they were last found and divided by the noise.

    Attributes
    ----------
    whitened: (image, coefficient) complex. ctf: (image, coefficient).
    offset: (image, 2) float32 host, Å: where they were last found, relative to where centring found them.
    """

    whitened: Array
    ctf: Array
    offset: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Placement:
    """What is known of the images of a tile: scale (image,), shift and centre (image, 2) in Å; host."""

    scale: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    centre: npt.NDArray[np.float32]


def make_tile(plane: HalfPlane, images: ParticleImages, rows: npt.NDArray[Any], placement: Placement, deviation: Array) -> Tile:
    """Load the images at sorted rows, up to as many coefficients as `deviation` (noise, standard deviation) has."""
    xp, count = plane.xp, int(deviation.shape[0])
    coefficients, ctf = images.take(rows, count)
    phases = centring_phases(plane, xp.asarray(placement.shift), count)
    scale = xp.asarray(1 / placement.scale)
    return Tile(coefficients * phases * (scale[:, None] / deviation), ctf, placement.shift - placement.centre)


def shifted(tile: Tile, phases: Array, count: int) -> Array:
    """Return the images times their CTF at every shift, (image, shift, count) complex.

    phases: (shift, coefficient) or (image, shift, coefficient).
    """
    product: Array = (tile.whitened[:, :count] * tile.ctf[:, :count])[:, None, :] * phases[..., :count]
    return product


def log_shift_prior(offset: npt.NDArray[Any], shifts: npt.NDArray[Any], sigma_angstrom: float) -> npt.NDArray[np.float32]:
    """Return the log prior of shifts around where centring found the particle, (image, shift) float32.

    offset: (image, 2). shifts: (shift, 2) or (image, shift, 2). Å.
    """
    distance = offset[:, None, :] + shifts
    return np.asarray(-(distance**2).sum(axis=-1) / (2 * sigma_angstrom**2), np.float32)


def shell_residual(plane: HalfPlane, difference: Array) -> npt.NDArray[np.float64]:
    """Return the sum over images of |difference|^2 per shell; difference: (image, coefficient) complex."""
    xp = plane.xp
    power = xp.sum(xp.real(difference) ** 2 + xp.imag(difference) ** 2, axis=0)
    return to_host(power @ plane.coefficient_shells[: power.shape[0], :]).astype(np.float64)
