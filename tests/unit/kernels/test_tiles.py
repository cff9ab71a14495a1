from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import to_host
from frazil.kernels.tiles import align, cut_tiles, pair_gradient, pair_products, phase_table


def random_complex(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def test_tiles_written_out(xp: Any) -> None:
    rng = np.random.default_rng(0)
    binned = rng.normal(size=(30, 37)).astype(np.float32)
    window = rng.random((8, 1)).astype(np.float32), rng.random((1, 12)).astype(np.float32)
    origins = np.array([[0, 0], [5, 9], [12, 12]])
    got = cut_tiles(xp.asarray(binned), origins, (xp.asarray(window[0]), xp.asarray(window[1])))
    for tile, (y, x) in zip(np.asarray(to_host(got)), origins, strict=True):
        cut = binned[y : y + 8, x : x + 12]
        np.testing.assert_allclose(tile, (cut - cut.mean()) * window[0] * window[1], atol=1e-4)


def test_phases_products_and_slopes_written_out(xp: Any) -> None:
    rng = np.random.default_rng(1)
    frames, tiles, modes = 5, 3, 17
    values = random_complex(rng, frames, tiles, modes)
    axes = rng.uniform(-0.4, 0.4, 6), rng.uniform(0, 0.4, 4)
    wave = rng.integers(0, 6, modes), rng.integers(0, 4, modes)
    shifts = rng.normal(size=(frames, tiles, 2)) * 3
    tables = [phase_table(shifts[..., a], axes[a], xp) for a in (0, 1)]
    aligned = align(xp.asarray(values), (tables[0], tables[1]), (xp.asarray(wave[0]), xp.asarray(wave[1])))
    ky, kx = axes[0][wave[0]], axes[1][wave[1]]
    expected = values * np.exp(-2j * np.pi * (shifts[..., :1] * ky + shifts[..., 1:] * kx))
    np.testing.assert_allclose(np.asarray(to_host(aligned)), expected, atol=1e-4)
    products = np.einsum("tpm,upm->tu", expected.conj(), expected).real
    np.testing.assert_allclose(np.asarray(to_host(pair_products(aligned))), products, atol=1e-3)
    weights = rng.normal(size=(frames, frames))
    weights = weights + weights.T
    np.fill_diagonal(weights, 0)
    k = [xp.asarray(a.astype(np.float32)) for a in (ky, kx)]
    got = np.asarray(to_host(pair_gradient(aligned, xp.asarray(weights, dtype=xp.float32), *k)))
    twist = np.einsum("tpm,tu,upm->tpm", expected.conj(), weights, expected).imag
    np.testing.assert_allclose(got, -4 * np.pi * np.stack([twist @ ky, twist @ kx], axis=2), rtol=1e-3, atol=1e-2)
