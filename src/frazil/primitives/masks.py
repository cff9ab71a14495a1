"""Discs and rings, hard and soft."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def soft_disc(radius: npt.NDArray[Any], edge_at: float, width: float) -> npt.NDArray[Any]:
    """Return 1 inside a disc and 0 outside, falling linearly over `width` around `edge_at`; dtype of `radius`."""
    return np.clip(0.5 - (radius - edge_at) / max(width, 1e-6), 0.0, 1.0)


def discs(shape: tuple[int, int], centres: npt.NDArray[Any], radius: float) -> Mask:
    """Return the union of discs.

    Parameters
    ----------
    shape: `(y, x)`.
    centres: (n, 2) as `(y, x)`, px.
    radius: px.
    """
    mask = np.zeros(shape, dtype=np.bool_)
    reach = int(np.ceil(radius))
    for y, x in centres:
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        rows, columns = np.ogrid[top : min(shape[0], int(y) + reach + 2), left : min(shape[1], int(x) + reach + 2)]
        mask[rows, columns] |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return mask
