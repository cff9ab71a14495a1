"""Compiled twin of `kernels.radial`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Images = np.ndarray[Any, Any]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _add_row(total: Images, transform: Images, y2: np.float32, kx: Images, table: Images) -> None:
    for x in range(total.shape[0]):
        total[x] += transform[x] * table[int(np.sqrt(y2 + kx[x] * kx[x]) + np.float32(0.5))]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_weighted(total: Images, transform: Images, ky: Images, kx: Images, table: Images) -> None:
    """See `kernels.radial.add_weighted`; frequencies are in entries of the table."""
    for y in range(total.shape[0]):
        _add_row(total[y], transform[y], ky[y] * ky[y], kx, table)
