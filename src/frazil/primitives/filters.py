"""Smoothing of images: local means that follow illumination, and low-pass filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import Array, namespace, to_device
from frazil.kernels.blocks import block_sums, interpolate_blocks
from frazil.primitives.fourier import frequency_radius, irfft2, raised_cosine, rfft2

_SMOOTHING_BLOCKS = 1.5
_BLOCK_SHARE = 0.25  # a block with fewer good pixels takes the value of its surroundings


def local_mean(image: Array, good: Array | None = None, block_px: int = 16) -> Array:
    """Smooth an image over some 3 blocks: what is left is illumination and thickness, not particles.

    Means of blocks over the good pixels, blurred by a Gaussian of 1.5 blocks and interpolated linearly.

    Parameters
    ----------
    image: `(y, x)` real floating.
    good: `(y, x)` bool or None; pixels that count. Where none is near, the mean of all good pixels stands.
    block_px: side of a block; it shrinks for images smaller than two blocks.

    Returns
    -------
    `(y, x)`, dtype as `image`.
    """
    xp = namespace(image)
    block_px = max(1, min(block_px, min(image.shape) // 2))
    counted = xp.ones(image.shape, dtype=xp.bool) if good is None else good
    sums, counts = block_sums(image, counted, block_px)
    overall = float(xp.sum(sums, dtype=xp.float64)) / max(float(xp.sum(counts, dtype=xp.float64)), 1.0)
    sums, weights = (sums - overall * counts) / block_px**2, counts / block_px**2
    if good is not None:
        near_sums, near_weights = _blur(sums, odd=False), _blur(weights, odd=False)
        near = xp.where(near_weights > 1e-3, near_sums / xp.where(near_weights > 1e-3, near_weights, 1.0), 0.0)
        sums = xp.where(weights > _BLOCK_SHARE, sums / xp.where(weights > _BLOCK_SHARE, weights, 1.0), near)
    return interpolate_blocks(_blur(sums, odd=True), (image.shape[0], image.shape[1]), block_px, overall)


def lowpass(image: Array, pixel_size_angstrom: float, resolution_angstrom: float) -> Array:
    """Remove detail finer than a resolution, with a soft edge of a tenth of its frequency on either side.

    Parameters
    ----------
    image: `(..., y, x)` real floating.
    pixel_size_angstrom: Å per pixel. resolution_angstrom: Å.
    """
    shape = (image.shape[-2], image.shape[-1])
    cutoff = pixel_size_angstrom / resolution_angstrom
    radius = frequency_radius(shape, namespace(image), dtype=image.dtype)
    return irfft2(rfft2(image) * raised_cosine(radius, 0.9 * cutoff, 1.1 * cutoff), shape)


def edge_taper(shape: tuple[int, int], width_px: int, xp: Any) -> tuple[Array, Array]:
    """Return the two factors `(y, 1)` and `(1, x)` of a window that is 1 inside and falls as a sine over the edges."""
    factors = []
    for size in shape:
        width = min(width_px, size // 2)
        factor = np.ones(size, np.float32)
        if width:
            rise = np.sin(np.pi / 2 * (np.arange(width) + 0.5) / width).astype(np.float32)
            factor[:width], factor[size - width :] = rise, rise[::-1]
        factors.append(to_device(factor, xp))
    return xp.reshape(factors[0], (-1, 1)), xp.reshape(factors[1], (1, -1))


def _blur(blocks: Array, *, odd: bool) -> Array:
    """Blur by a Gaussian of `_SMOOTHING_BLOCKS`: a small matrix product on each axis.

    Beyond an edge the values are those at the edge; with `odd` they go on as they came, mirrored through the edge's value,
    which leaves slopes as they are.
    """
    xp = namespace(blocks)
    reach = int(4 * _SMOOTHING_BLOCKS)
    for axis in (0, 1):
        n = blocks.shape[axis]
        matrix, rows = np.zeros((n, n), np.float64), np.arange(n)
        for step in range(-reach, reach + 1):
            height = np.exp(-(step**2) / (2 * _SMOOTHING_BLOCKS**2))
            inside = np.clip(rows + step, 0, n - 1)
            mirrored = np.clip(2 * inside - (rows + step), 0, n - 1)
            np.add.at(matrix, (rows, inside), 2 * height if odd else height)
            if odd:
                np.add.at(matrix, (rows, mirrored), -height)
        factor = xp.asarray(matrix / matrix.sum(axis=1, keepdims=True), dtype=blocks.dtype)
        blocks = factor @ blocks if axis == 0 else blocks @ xp.matrix_transpose(factor)
    return blocks
