"""Sums of values over the shells they belong to: a weighted histogram, which the array standard lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import Array, is_cupy, is_numpy, namespace


def shell_sums(values: Array, shells: Array, shell_count: int) -> Array:
    """Sum values over shells.

    Parameters
    ----------
    values: real, any shape.
    shells: integer, the same shape, >= 0; values of shells at and beyond `shell_count` are left out.
    shell_count: how many shells to return.

    Returns
    -------
    (shell_count,) float64.
    """
    if is_numpy(values):
        return shell_sums_numpy(values, shells, shell_count)
    if is_cupy(values):
        import cupy

        return cupy.bincount(shells.ravel(), values.ravel().astype(cupy.float64), shell_count)[:shell_count]
    return _shell_sums_standard(values, shells, shell_count)


def shell_sums_numpy(values: np.ndarray[Any, Any], shells: np.ndarray[Any, Any], shell_count: int) -> np.ndarray[Any, Any]:
    """Sum values over shells with numpy; see `shell_sums`."""
    return np.bincount(shells.ravel(), values.ravel(), shell_count)[:shell_count]


def _shell_sums_standard(values: Array, shells: Array, shell_count: int) -> Array:
    """Sum by sorting: what the array standard allows. Slower than a histogram."""
    xp = namespace(values)
    order = xp.argsort(xp.reshape(shells, (-1,)))
    ordered = xp.astype(xp.take(xp.reshape(values, (-1,)), order), xp.float64)
    total = xp.concat([xp.zeros(1, dtype=xp.float64), xp.cumulative_sum(ordered)])
    edges = xp.searchsorted(xp.take(xp.reshape(shells, (-1,)), order), xp.arange(shell_count + 1, dtype=shells.dtype))
    ends = xp.take(total, edges)
    return ends[1:] - ends[:-1]
