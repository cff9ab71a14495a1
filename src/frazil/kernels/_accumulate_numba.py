"""Compiled twin of `kernels.accumulate`: one pass over memory for a batch of frames."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Images = np.ndarray[Any, Any]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_row(
    transform: Images, phase_y: np.complex64, phase_x: Images, plain: Images, weighted: Images, weight: Images, decay: Images
) -> None:
    for x in range(plain.shape[0]):
        value = transform[x] * (phase_y * phase_x[x])
        plain[x] += value
        weighted[x] += value * weight[x]
        weight[x] *= decay[x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_frames(
    plain: Images, weighted: Images, weight: Images, decay: Images, transforms: Images, phases_y: Images, phases_x: Images
) -> None:
    """See `kernels.accumulate.add_frames`."""
    for y in range(plain.shape[0]):
        for t in range(transforms.shape[0]):
            _add_row(transforms[t, y], phases_y[t, y], phases_x[t], plain[y], weighted[y], weight[y], decay[y])
