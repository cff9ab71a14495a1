"""Weights that depend on the frequency alone, applied to a transform without an image of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import Array, is_numpy, namespace


def add_weighted(total: Array, transform: Array, width: int, table: np.ndarray[Any, Any], step: float) -> Array:
    """Add to a total the half transform of an image, each coefficient times the nearest entry of a table over |k|.

    Parameters
    ----------
    total, transform: (y, width // 2 + 1) complex64; on numpy the total is added to in place.
    width: x size of the image.
    table: (entry,) host, at |k| = 0, step, 2 step, ... cycles per px; it reaches to the transform's corner.
    step: between entries.

    Returns
    -------
    The new total.
    """
    xp = namespace(total)
    ky, kx = np.fft.fftfreq(transform.shape[0]) / step, np.fft.rfftfreq(width) / step
    if is_numpy(total):
        from frazil.kernels._radial_numba import add_weighted as compiled

        compiled(total, transform, ky.astype(np.float32), kx.astype(np.float32), table.astype(np.float32))
        return total
    y, x = xp.asarray(ky[:, None], dtype=xp.float32), xp.asarray(kx[None], dtype=xp.float32)
    nearest = xp.astype(xp.round(xp.sqrt(y * y + x * x)), xp.int32)
    weights = xp.take(xp.asarray(table, dtype=xp.float32), xp.reshape(nearest, (-1,)))
    return total + transform * xp.reshape(weights, nearest.shape)
