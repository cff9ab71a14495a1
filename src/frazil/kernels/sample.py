"""Rotated references: bilinear samples of centred Fourier grids at rotated half-plane frequencies."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from frazil.array import Array, is_cupy, is_numpy, namespace, to_host


def sample_rotated(grids: Array, frequency_x: Array, frequency_y: Array, angles: Array, padding: int) -> Array:
    """Return the transforms of 2D references, rotated in the plane, at given frequencies.

    A reference turned by psi shows the density at r at `A r`, A = [[cos, sin], [-sin, cos]], hence its transform at k
    is the reference's at `A^T k` (docs/conventions.md).

    Parameters
    ----------
    grids: (class, size, size) complex, transforms about the image centre, zero frequency at [size/2, size/2], sampled
        `padding` times finer than the frequencies' unit.
    frequency_x, frequency_y: (coefficient,) real, Fourier pixels of the unpadded box; |k| < size / (2 padding) - 1.
    angles: (angle,) float64 host array, radians.
    padding: oversampling of the grids.

    Returns
    -------
    (class, angle, coefficient) complex, of the grids' dtype.
    """
    cosines, sines = np.cos(angles), np.sin(angles)
    if is_numpy(grids):
        real = grids.real.dtype
        out = np.empty((grids.shape[0], angles.size, frequency_x.size), grids.dtype)
        _sample(grids, frequency_x, frequency_y, cosines.astype(real), sines.astype(real), padding, out)
        return out
    if is_cupy(grids):
        return _sample_cuda(grids, frequency_x, frequency_y, np.stack([cosines, sines]), padding)
    host = [to_host(a) for a in (grids, frequency_x, frequency_y)]
    return namespace(grids).asarray(sample_rotated_twin(host[0], host[1], host[2], angles, padding))


def sample_rotated_twin(
    grids: np.ndarray[Any, Any],
    frequency_x: np.ndarray[Any, Any],
    frequency_y: np.ndarray[Any, Any],
    angles: np.ndarray[Any, Any],
    padding: int,
) -> np.ndarray[Any, Any]:
    """Do what `sample_rotated` does in plain numpy: the oracle of the compiled versions."""
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x = padding * (c * frequency_x - s * frequency_y) + grids.shape[-1] // 2
    y = padding * (s * frequency_x + c * frequency_y) + grids.shape[-2] // 2
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - column).astype(grids.real.dtype), (y - row).astype(grids.real.dtype)
    top = grids[:, row, column] * (1 - fx) + grids[:, row, column + 1] * fx
    bottom = grids[:, row + 1, column] * (1 - fx) + grids[:, row + 1, column + 1] * fx
    result: np.ndarray[Any, Any] = top * (1 - fy) + bottom * fy
    return result


@numba.njit(cache=True, fastmath=True, nogil=True)
def _sample(grids, frequency_x, frequency_y, cosines, sines, padding, out):  # type: ignore[no-untyped-def]
    real = frequency_x.dtype.type  # keeps single precision single: int64 would promote to double
    one = real(1)
    half = real(grids.shape[-1] // 2)
    for k in range(grids.shape[0]):
        grid = grids[k]
        for j in range(cosines.size):
            c = cosines[j] * real(padding)
            s = sines[j] * real(padding)
            for i in range(frequency_x.size):
                x = c * frequency_x[i] - s * frequency_y[i] + half
                y = s * frequency_x[i] + c * frequency_y[i] + half
                column = int(x)
                row = int(y)
                fx = x - real(column)
                fy = y - real(row)
                top = grid[row, column] * (one - fx) + grid[row, column + 1] * fx
                bottom = grid[row + 1, column] * (one - fx) + grid[row + 1, column + 1] * fx
                out[k, j, i] = top * (one - fy) + bottom * fy


def _sample_cuda(grids: Array, frequency_x: Array, frequency_y: Array, rotation: np.ndarray[Any, Any], padding: int) -> Array:
    import cupy

    from frazil.kernels import class2d_cuda

    rotations = cupy.asarray(rotation.astype(np.float32))
    out = cupy.empty((grids.shape[0], rotation.shape[1], frequency_x.size), cupy.complex64)
    shape = (rotation.shape[1], frequency_x.size, grids.shape[-1], padding, out.size)
    inputs = (cupy.ascontiguousarray(a) for a in (grids, frequency_x, frequency_y))
    arguments = (*inputs, rotations, out)
    class2d_cuda.function("sample.cu", "sample_rotated")(
        (class2d_cuda.blocks(math.prod(out.shape)),),
        (class2d_cuda.THREADS,),
        (*arguments, *(np.int64(v) if i == 4 else np.int32(v) for i, v in enumerate(shape))),
    )
    return out
