"""What motion is read from: tiles cut from a frame, their Fourier coefficients shifted, compared frame against frame.

Coefficients are `(frame, tile, mode)` complex64: the modes of one shell in some tiles.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from frazil.array import Array, is_numpy, namespace, to_device
from frazil.kernels.class2d_products import as_complex, as_real
from frazil.kernels.gain import RawFrames


def bin_raw(frames: RawFrames, factor: int, binned: np.ndarray[Any, Any]) -> None:
    """Correct frames as recorded, add them up, and add the sums of blocks of `factor` x `factor` px to `binned`, on the CPU.

    `binned` is `(y // factor, x // factor)` float32.
    """
    from frazil.kernels._tiles_numba import bin_raw as compiled

    compiled(frames, factor, binned)


def cut_tiles(binned: Array, origins: np.ndarray[Any, Any], window: tuple[Array, Array]) -> Array:
    """Cut windowed tiles of mean 0 before the window.

    Parameters
    ----------
    binned: `(y, x)` float32, the binned frame without its background.
    origins: (tile, 2) int64 host, (y, x) of each tile's first px in the binned frame; tiles lie inside.
    window: factors `(tile height, 1)` and `(1, tile width)`.

    Returns
    -------
    (tile, tile height, tile width) float32.
    """
    if is_numpy(binned):
        from frazil.kernels._tiles_numba import cut_tiles as compiled

        return compiled(binned, origins, window[0][:, 0], window[1][0])
    xp = namespace(binned)
    height, width = window[0].shape[0], window[1].shape[1]
    tiles = xp.stack([binned[int(y) : int(y) + height, int(x) : int(x) + width] for y, x in origins])
    return (tiles - xp.mean(tiles, axis=(1, 2), keepdims=True)) * window[0] * window[1]


def take_modes(transforms: Array, positions: Array) -> Array:
    """Return the coefficients (tile, mode) at flat positions (mode,) int64 of transforms (tile, coefficient)."""
    if is_numpy(transforms):
        from frazil.kernels._tiles_numba import take_modes as compiled

        return compiled(transforms, positions)
    return namespace(transforms).take(transforms, positions, axis=1)


def align(values: Array, phases: tuple[Array, Array], wave: tuple[Array, Array]) -> Array:
    """Apply shifts to coefficients.

    Parameters
    ----------
    values: (frame, tile, mode) complex64.
    phases: (frame, tile, frequency) complex64 tables over the frequencies of y and of x.
    wave: (mode,) int64 each, the positions of every mode in the two tables.
    """
    if is_numpy(values):
        from frazil.kernels._tiles_numba import align as compiled

        return compiled(values, phases[0], phases[1], wave[0], wave[1])
    xp = namespace(values)
    return values * xp.take(phases[0], wave[0], axis=2) * xp.take(phases[1], wave[1], axis=2)


def pair_products(aligned: Array) -> Array:
    """Return the sum over tiles and modes of Re(conj(G_t) G_u), (frame, frame)."""
    rows = as_real(namespace(aligned).reshape(aligned, (aligned.shape[0], -1)))
    return rows @ namespace(rows).matrix_transpose(rows)


def pair_gradient(aligned: Array, weights: Array, ky: Array, kx: Array) -> Array:
    """Return the derivative of sum over t, u of A_tu Re(conj(G_t) G_u) by the shift of each frame and tile.

    Parameters
    ----------
    aligned: G, (frame, tile, mode) complex64.
    weights: A, (frame, frame) float32, symmetric with a zero diagonal.
    ky, kx: (mode,) float32, cycles per px.

    Returns
    -------
    (frame, tile, 2) float32, by the shift to apply as (y, x) in px.
    """
    xp = namespace(aligned)
    weighted = as_complex(weights @ as_real(xp.reshape(aligned, (aligned.shape[0], -1))))
    weighted = xp.reshape(weighted, aligned.shape)
    if is_numpy(aligned):
        from frazil.kernels._tiles_numba import slopes

        return slopes(aligned, weighted, ky, kx) * np.float32(-4 * math.pi)
    twist = xp.imag(xp.conj(aligned) * weighted)
    return xp.stack([xp.sum(twist * k, axis=2) for k in (ky, kx)], axis=2) * (-4 * math.pi)


def phase_table(turns: np.ndarray[Any, Any], frequencies: np.ndarray[Any, Any], xp: Any) -> Array:
    """Return exp(-2 pi i turns x frequencies), (frame, tile, frequency) complex64 on the device.

    Parameters
    ----------
    turns: (frame, tile) host, shifts in px along one axis. frequencies: (frequency,) host, cycles per px.
    """
    angle = ((-2 * math.pi) * turns[:, :, None] * frequencies).astype(np.float32)
    table = np.empty(angle.shape, np.complex64)
    table.real, table.imag = np.cos(angle), np.sin(angle)
    return to_device(table, xp)
