"""The M- and E-step's matrix products: into memory that is used again, and from mostly empty posteriors."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from frazil.array import Array, is_cupy, is_numpy, namespace

DENSE_FRACTION = 0.08
"""Above this share of non-zero weights the matrix product is faster than skipping zeros (measured, AVX2)."""


def as_real(coefficients: Array) -> Array:
    """Return complex rows as real rows of twice the length, so that a real product of two is the real part of the complex one.

    (row, coefficient) complex to (row, 2 coefficient) real: a view on numpy and cupy (pairs interleaved), a copy elsewhere.
    """
    if is_numpy(coefficients) or is_cupy(coefficients):
        return coefficients.view(coefficients.real.dtype)
    xp = namespace(coefficients)
    return xp.concat([xp.real(coefficients), xp.imag(coefficients)], axis=-1)


def as_complex(rows: Array) -> Array:
    """Undo `as_real`."""
    xp = namespace(rows)
    complex_type = xp.complex128 if rows.dtype == xp.float64 else xp.complex64
    if is_numpy(rows) or is_cupy(rows):
        return rows.view(complex_type)
    half = rows.shape[-1] // 2
    return xp.astype(rows[..., :half], complex_type) + 1j * xp.astype(rows[..., half:], complex_type)


def contiguous(matrix: Array) -> Array:
    """Return the matrix in row-major memory, which products with few rows read faster than a transposed view."""
    if is_numpy(matrix):
        return np.ascontiguousarray(matrix)
    return namespace(matrix).asarray(matrix, copy=True)


def multiply(left: Array, right: Array, into: Array) -> Array:
    """Return left @ right, written to the first rows of `into` on numpy and cupy: fresh pages cost a fifth of the product."""
    if is_numpy(left) or is_cupy(left):
        out = into[: left.shape[0]]
        namespace(left).matmul(left, right, out=out)
        return out
    return left @ right


def accumulate(target: Array, weights: Array, rows: Array, kept: int) -> Array:
    """Return target + weights^T rows; on numpy and cupy `target` itself is added to.

    Parameters
    ----------
    target: (hypothesis, m) real.
    weights: (row, hypothesis) real, mostly zero.
    rows: (row, m) real.
    kept: how many of the weights are not zero: chooses between the sparse loop and the matrix product.
    """
    if is_numpy(target):
        if kept < DENSE_FRACTION * weights.size:
            _accumulate(target, weights, rows)
        else:
            target += weights.T @ rows
        return target
    if is_cupy(target):
        target += weights.T @ rows
        return target
    return target + namespace(target).matrix_transpose(weights) @ rows


@numba.njit(cache=True, fastmath=True, nogil=True)
def _accumulate(target: Any, weights: Any, rows: Any) -> None:
    for r in range(weights.shape[0]):
        row = rows[r]
        for h in range(weights.shape[1]):
            weight = weights[r, h]
            if weight != 0:
                into = target[h]
                for i in range(row.size):
                    into[i] += weight * row[i]
