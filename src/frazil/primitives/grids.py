"""Coarse grids over images: means of blocks, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import Array, namespace


def block_means(image: Array, block_px: int) -> Array:
    """Average blocks of `block_px` x `block_px` pixels; a remainder at the high end of an axis is left out.

    Parameters
    ----------
    image: `(y, x)` real floating, at least one block on each axis.

    Returns
    -------
    `(y // block_px, x // block_px)`, dtype as `image`.
    """
    xp = namespace(image)
    height, width = (n // block_px for n in image.shape)
    blocks = xp.reshape(image[: height * block_px, : width * block_px], (height, block_px, width, block_px))
    return xp.mean(xp.mean(blocks, axis=1), axis=2)


def interpolate_blocks(blocks: Array, shape: tuple[int, int], block_px: int) -> Array:
    """Interpolate values at the centres of the blocks of `block_means` linearly to every pixel of `(y, x)`.

    Beyond the outer centres the slope goes on.
    """
    xp = namespace(blocks)
    factors = [xp.asarray(_hat_matrix(n, block_px), dtype=blocks.dtype) for n in shape]
    return factors[0] @ blocks @ xp.matrix_transpose(factors[1])


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
