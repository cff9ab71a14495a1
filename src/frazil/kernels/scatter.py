"""The adjoint of rotated sampling: weighted rows of coefficients are laid back, unrotated, on Fourier grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from frazil.array import Array, is_cupy, is_numpy, namespace, to_host


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of half-plane coefficients bound for grids.

    Attributes
    ----------
    values: (row, coefficient) complex numerators.
    weights: (row, coefficient) real denominators.
    angles: (row,) float64 host array, radians: the in-plane angle at which the reference shows the row.
    target: (row,) int64 host array: the grid a row goes to; negative rows are skipped.
    """

    values: Array
    weights: Array
    angles: np.ndarray[Any, Any]
    target: np.ndarray[Any, Any]


def scatter_rotated(
    rows: Rows, frequency_x: Array, frequency_y: Array, shape: tuple[int, int], padding: int
) -> tuple[Array, Array]:
    """Spread rows bilinearly over centred Fourier grids, each coefficient with its Hermitian mate.

    The order of summation is fixed: the result does not depend on threads or timing.

    Parameters
    ----------
    rows: what to spread; coefficients sit at integer frequencies of a non-redundant half plane.
    frequency_x, frequency_y: (coefficient,) real, Fourier pixels; |k| < size / (2 padding) - 1.
    shape: (grid count, size) of the output grids.
    padding: oversampling of the grids.

    Returns
    -------
    (grid, size, size) complex numerator and (grid, size, size) real denominator.
    """
    if is_numpy(rows.values):
        numerator = np.zeros((shape[0], shape[1], shape[1]), rows.values.dtype)
        denominator = np.zeros(numerator.shape, rows.weights.dtype)
        real = rows.weights.dtype
        rotation = (np.cos(rows.angles).astype(real), np.sin(rows.angles).astype(real))
        _scatter(rows.values, rows.weights, *rotation, rows.target, frequency_x, frequency_y, padding, numerator, denominator)
        return _with_mates(numerator), _with_mates(denominator)
    if is_cupy(rows.values):
        return _scatter_cuda(rows, frequency_x, frequency_y, shape, padding)
    xp = namespace(rows.values)
    host = Rows(to_host(rows.values), to_host(rows.weights), rows.angles, rows.target)
    pair = scatter_rotated_twin(host, to_host(frequency_x), to_host(frequency_y), shape, padding)
    return xp.asarray(pair[0]), xp.asarray(pair[1])


def scatter_rotated_twin(
    rows: Rows,
    frequency_x: np.ndarray[Any, Any],
    frequency_y: np.ndarray[Any, Any],
    shape: tuple[int, int],
    padding: int,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Do what `scatter_rotated` does in plain numpy: the oracle of the compiled versions."""
    size = shape[1]
    numerator = np.zeros((shape[0], size * size), rows.values.dtype)
    denominator = np.zeros(numerator.shape, rows.weights.dtype)
    for value, weight, angle, target in zip(rows.values, rows.weights, rows.angles, rows.target, strict=True):
        if target < 0:
            continue
        c, s = np.cos(angle), np.sin(angle)
        x = padding * (c * frequency_x - s * frequency_y) + size // 2
        y = padding * (s * frequency_x + c * frequency_y) + size // 2
        column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = (x - column).astype(weight.dtype), (y - row).astype(weight.dtype)
        for dy, wy in ((0, 1 - fy), (1, fy)):
            for dx, wx in ((0, 1 - fx), (1, fx)):
                cell = (row + dy) * size + column + dx
                np.add.at(numerator[target], cell, wx * wy * value)
                np.add.at(denominator[target], cell, wx * wy * weight)
    grids = (shape[0], size, size)
    return _with_mates(numerator.reshape(grids)), _with_mates(denominator.reshape(grids))


def _with_mates(grids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    whole = grids.copy()
    whole[:, 1:, 1:] += np.conj(grids[:, :0:-1, :0:-1])
    return whole


@numba.njit(cache=True, fastmath=True, nogil=True)
def _scatter(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - a flat kernel
    values, weights, cosines, sines, target, frequency_x, frequency_y, padding, numerator, denominator
):
    real = weights.dtype.type  # keeps single precision single: int64 would promote to double
    one = real(1)
    half = real(numerator.shape[-1] // 2)
    for j in range(target.size):
        if target[j] < 0:
            continue
        num = numerator[target[j]]
        den = denominator[target[j]]
        c = cosines[j] * real(padding)
        s = sines[j] * real(padding)
        for i in range(frequency_x.size):
            x = c * frequency_x[i] - s * frequency_y[i] + half
            y = s * frequency_x[i] + c * frequency_y[i] + half
            column = int(x)
            row = int(y)
            fx = x - real(column)
            fy = y - real(row)
            v = values[j, i]
            w = weights[j, i]
            w00 = (one - fx) * (one - fy)
            w01 = fx * (one - fy)
            w10 = (one - fx) * fy
            w11 = fx * fy
            num[row, column] += w00 * v
            num[row, column + 1] += w01 * v
            num[row + 1, column] += w10 * v
            num[row + 1, column + 1] += w11 * v
            den[row, column] += w00 * w
            den[row, column + 1] += w01 * w
            den[row + 1, column] += w10 * w
            den[row + 1, column + 1] += w11 * w


def _scatter_cuda(
    rows: Rows, frequency_x: Array, frequency_y: Array, shape: tuple[int, int], padding: int
) -> tuple[Array, Array]:
    """Gather per cell instead of scattering, so that no atomics are needed: rows are sorted by grid first."""
    import cupy

    from frazil.kernels import class2d_cuda

    order = np.argsort(rows.target, kind="stable")
    order = order[rows.target[order] >= 0]
    first = np.searchsorted(rows.target[order], np.arange(shape[0] + 1)).astype(np.int32)
    rotation = np.stack([np.cos(rows.angles[order]), np.sin(rows.angles[order])]).astype(np.float32)
    kx, ky = to_host(frequency_x).astype(np.int64), to_host(frequency_y).astype(np.int64)
    reach = int(max(kx.max(), np.abs(ky).max()))
    lookup = np.full((2 * reach + 1, reach + 1), -1, np.int32)
    lookup[ky + reach, kx] = np.arange(kx.size)
    numerator = cupy.empty((shape[0], shape[1], shape[1]), cupy.complex64)
    denominator = cupy.empty(numerator.shape, cupy.float32)
    arrays = (cupy.asarray(order.astype(np.int32)), cupy.asarray(first), cupy.asarray(rotation), cupy.asarray(lookup))
    scalars = (np.int32(order.size), np.int32(kx.size), np.int32(reach), np.int32(shape[1]), np.int32(padding))
    class2d_cuda.function("scatter.cu", "scatter_rotated")(
        (class2d_cuda.blocks(shape[1] * shape[1]), shape[0]),
        (class2d_cuda.THREADS,),
        (
            cupy.ascontiguousarray(rows.values),
            cupy.ascontiguousarray(rows.weights),
            *arrays,
            numerator,
            denominator,
            *scalars,
        ),
    )
    return numerator, denominator
