"""Passes over an image that tell its slow part from its outliers: sums of blocks, interpolation between them, comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import Array, is_numpy, namespace
from frazil.kernels.gain import bin_image


def block_sums(image: Array, good: Array, block_px: int) -> tuple[Array, Array]:
    """Sum the good pixels of blocks of `block_px` x `block_px`; a remainder at the high end of an axis is left out.

    Parameters
    ----------
    image: `(y, x)` real floating, finite where good. good: `(y, x)` bool.

    Returns
    -------
    Sums and numbers of good pixels, `(y // block_px, x // block_px)` each, dtype as `image`.
    """
    if is_numpy(image):
        from frazil.kernels._blocks_numba import block_sums as compiled

        return compiled(image, good, block_px)
    xp = namespace(image)
    kept = xp.where(good, image, xp.zeros_like(image))
    return bin_image(kept, block_px), bin_image(xp.astype(good, image.dtype), block_px)


def interpolate_blocks(blocks: Array, shape: tuple[int, int], block_px: int, offset: float = 0.0) -> Array:
    """Interpolate values at the centres of blocks linearly to every pixel of `(y, x)`, and add a constant.

    Beyond the outer centres the slope goes on.
    """
    if is_numpy(blocks):
        from frazil.kernels._blocks_numba import interpolate as compiled

        return compiled(blocks, shape, block_px, offset)
    xp = namespace(blocks)
    factors = [xp.asarray(_hat_matrix(n, block_px), dtype=blocks.dtype) for n in shape]
    return factors[0] @ blocks @ xp.matrix_transpose(factors[1]) + offset


def outliers(image: Array, mean: Array, good: Array, limit: float) -> Array:
    """Mark good pixels farther from the mean than `limit` times its root, or than `limit` where the mean is below 1.

    Parameters
    ----------
    image, mean: `(y, x)` real floating. good: `(y, x)` bool.

    Returns
    -------
    `(y, x)` bool.
    """
    if is_numpy(image):
        from frazil.kernels._blocks_numba import outliers as compiled

        return compiled(image, mean, good, limit)
    xp = namespace(image)
    return good & ((image - mean) ** 2 > limit * limit * xp.clip(mean, 1.0, None))


def _hat_matrix(size: int, block_px: int) -> np.ndarray[Any, Any]:
    """Weights `(pixel, block)` of linear interpolation between block centres."""
    count = size // block_px
    matrix = np.zeros((size, count))
    if count == 1:
        return matrix + 1.0
    pixels = np.arange(size)
    position = (pixels - (block_px - 1) / 2) / block_px
    left = np.clip(np.floor(position).astype(int), 0, count - 2)
    matrix[pixels, left] = 1 - (position - left)
    matrix[pixels, left + 1] = position - left
    return matrix
