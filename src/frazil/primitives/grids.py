"""Coarse grids over images: means of blocks, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import Array, namespace


def block_means(image: Array, block_px: int) -> Array:
    """Average blocks of `block_px` x `block_px` pixels; blocks at the high ends reach back to be whole.

    Parameters
    ----------
    image: `(y, x)` real floating, at least one block on each axis.

    Returns
    -------
    `(ceil(y / block_px), ceil(x / block_px))`, dtype as `image`.
    """
    rows = _block_rows(image, block_px)
    return namespace(image).matrix_transpose(_block_rows(namespace(image).matrix_transpose(rows), block_px))


def interpolate_blocks(blocks: Array, shape: tuple[int, int], block_px: int) -> Array:
    """Interpolate values at block centres linearly to every pixel of `(y, x)`; beyond the outer centres they stay.

    The blocks are those of `block_means`, the last of an axis centred half a block from its end.
    """
    xp = namespace(blocks)
    factors = [xp.asarray(_hat_matrix(n, block_px), dtype=blocks.dtype) for n in shape]
    return factors[0] @ blocks @ xp.matrix_transpose(factors[1])


def _block_rows(image: Array, block_px: int) -> Array:
    xp = namespace(image)
    height, width = image.shape
    whole = height // block_px
    means = xp.mean(xp.reshape(image[: whole * block_px, :], (whole, block_px, width)), axis=1)
    if whole * block_px == height:
        return means
    return xp.concat([means, xp.mean(image[height - block_px :, :], axis=0, keepdims=True)])


def _hat_matrix(size: int, block_px: int) -> np.ndarray[Any, Any]:
    """Weights `(pixel, block)` of linear interpolation between block centres."""
    count = -(-size // block_px)
    centres = np.arange(count) * block_px + (block_px - 1) / 2
    centres[-1] = size - (block_px + 1) / 2
    pixels = np.arange(size)
    return np.stack([np.interp(pixels, centres, np.eye(count)[i]) for i in range(count)], axis=1)
