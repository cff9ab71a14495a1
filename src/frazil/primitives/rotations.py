"""Orientations as rotation matrices `A` (docs/conventions.md): Euler angles, small turns, even grids and distances.

Everything here is small and lives on the host in float64: matrices go to a device when slices are taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Matrices = npt.NDArray[np.float64]

_GOLDEN_ANGLE = np.pi * (1 + 5**0.5)


def euler_to_matrix(rot: npt.ArrayLike, tilt: npt.ArrayLike, psi: npt.ArrayLike) -> Matrices:
    """Return `A = Rz(psi) Ry(tilt) Rz(rot)` for angles in radians that broadcast together: (..., 3, 3)."""
    rot, tilt, psi = np.broadcast_arrays(np.asarray(rot, float), np.asarray(tilt, float), np.asarray(psi, float))
    ca, sa, cb, sb, cg, sg = np.cos(rot), np.sin(rot), np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
    rows = (
        np.stack([cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb], axis=-1),
        np.stack([-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb], axis=-1),
        np.stack([sb * ca, sb * sa, cb], axis=-1),
    )
    return np.stack(rows, axis=-2)


def matrix_to_euler_degrees(matrices: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return rot, tilt, psi in degrees, (..., 3); tilt in [0, 180], the others in [-180, 180].

    Where the tilt is 0 or 180 only the sum or difference of the others is defined: rot is 0 there.
    """
    a = np.asarray(matrices, np.float64)
    sine = np.hypot(a[..., 2, 0], a[..., 2, 1])
    pole = sine < 1e-7
    rot = np.where(pole, 0.0, np.arctan2(a[..., 2, 1], a[..., 2, 0]))
    tilt = np.arctan2(sine, a[..., 2, 2])
    at_pole = np.arctan2(a[..., 0, 1], a[..., 1, 1])
    psi = np.where(pole, at_pole, np.arctan2(a[..., 1, 2], -a[..., 0, 2]))
    return np.asarray(np.rad2deg(np.stack([rot, tilt, psi], axis=-1)))


def from_rotation_vectors(vectors: npt.NDArray[Any]) -> Matrices:
    """Return `exp([w]x)` for rotation vectors in radians (Rodrigues), (..., 3) to (..., 3, 3)."""
    w = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    zero = np.zeros(w.shape[:-1])
    x, y, z = w[..., 0], w[..., 1], w[..., 2]
    rows = (np.stack([zero, -z, y], axis=-1), np.stack([z, zero, -x], axis=-1), np.stack([-y, x, zero], axis=-1))
    cross = np.stack(rows, axis=-2)
    turned: Matrices = np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (cross @ cross)
    return turned


def random_matrices(count: int, random: np.random.Generator) -> Matrices:
    """Return uniformly distributed rotations (unit quaternions of normal deviates), (count, 3, 3)."""
    q = random.standard_normal((count, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = (
        np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], axis=-1),
        np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], axis=-1),
        np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=-1),
    )
    return np.stack(rows, axis=-2)


def sphere_points(count: int) -> npt.NDArray[np.float64]:
    """Return unit vectors spread evenly over the sphere (Fibonacci lattice), (count, 3)."""
    i = np.arange(count)
    z = 1 - (2 * i + 1) / count
    radius, azimuth = np.sqrt(1 - z * z), _GOLDEN_ANGLE * i
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)


def directions_to_matrices(directions: npt.NDArray[Any], psi: npt.NDArray[Any]) -> Matrices:
    """Return every orientation whose projection runs along a direction and is turned by a psi in radians.

    directions: (view, 3) unit vectors, the third rows of the matrices. psi: (angle,). Returns (view x angle, 3, 3).
    """
    rot = np.arctan2(directions[:, 1], directions[:, 0])
    tilt = np.arccos(np.clip(directions[:, 2], -1, 1))
    return euler_to_matrix(np.repeat(rot, psi.size), np.repeat(tilt, psi.size), np.tile(psi, rot.size))


def ball_of_turns(step_radians: float, reach: int) -> Matrices:
    """Return small turns on a cubic lattice of rotation vectors, the identity among them: reach 1 gives 19, reach 2 gives 57.

    A turn is kept when its vector is at most sqrt(reach^2 + 1) steps long.
    """
    axis = np.arange(-reach, reach + 1)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    kept = lattice[(lattice**2).sum(axis=1) <= reach**2 + 1]
    return from_rotation_vectors(kept * step_radians)


def angles_between(
    a: npt.NDArray[Any], b: npt.NDArray[Any], operators: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.float64]:
    """Return the angle of the turn from b to a in degrees, (...,); the smallest over a symmetry group's operators, if given.

    a, b: (..., 3, 3) that broadcast. operators: (operator, 3, 3): poses A and A S show the same.
    """
    if operators is None:
        trace = np.einsum("...ij,...ij->...", a, b)
    else:
        relative = np.einsum("...ki,...kj->...ij", b, a)
        trace = np.einsum("...ij,gij->...g", relative, operators).max(axis=-1)
    return np.asarray(np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1))))
