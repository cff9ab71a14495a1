from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from frazil.array import to_host
from frazil.kernels.gain import uncorrected
from frazil.kernels.warp import APRON_PX, add_warped, add_warped_raw, sharpened


def smooth_warps(rng: np.random.Generator, frames: int, local: float) -> np.ndarray[Any, Any]:
    warps = rng.normal(size=(frames, 10, 2)) * local
    warps[:, 0] = rng.uniform(-4, 4, (frames, 2))
    return warps


def shifts_at(warp: np.ndarray[Any, Any], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    v, u = y / shape[0] - 0.5, x / shape[1] - 0.5
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v, u**3, u * u * v, u * v * v, v**3])
    return np.einsum("byx,ba->ayx", terms, warp)


def mirrored(images: np.ndarray[Any, Any], margin: tuple[int, int]) -> np.ndarray[Any, Any]:
    return np.pad(images, ((0, 0), (margin[0],) * 2, (margin[1],) * 2), mode="symmetric")


def warped(xp: Any, images: Any, warps: Any, weights: Any, margin: tuple[int, int]) -> np.ndarray[Any, Any]:
    """The sharpened sums of frames `(frame, y, x)`: on numpy from frames as recorded, elsewhere from images."""
    canvas = tuple(n + 2 * APRON_PX for n in images.shape[1:])
    sums = xp.zeros((len(weights), *canvas), dtype=xp.float32)
    if xp is np:
        add_warped_raw(sums, uncorrected(images), warps, weights, margin)
    else:
        sums = add_warped(sums, xp.asarray(mirrored(images, margin)), warps, weights, margin)
    return np.stack([np.asarray(to_host(sharpened(sums[r, ...]))) for r in range(len(weights))])


@pytest.mark.parametrize(("local", "exact"), [(0.3, 0.02), (2.0, 0.06)])
def test_sums_of_warped_frames_against_scipy(xp: Any, local: float, exact: float) -> None:
    """scipy's cubic spline at every px; runs of px that share a shift are good to 0.1 px."""
    rng = np.random.default_rng(1)
    shape, frames, margin = (61, 83), 3, (35, 37)
    images = ndimage.gaussian_filter(rng.normal(size=(frames, *shape)), (0, 0.7, 0.7)).astype(np.float32)
    warps, weights = smooth_warps(rng, frames, local), rng.normal(size=(4, frames))
    got = warped(xp, images, warps, weights, margin)
    expected = np.zeros(got.shape)
    for t in range(frames):
        shift = shifts_at(warps[t], shape)
        y, x = np.mgrid[: shape[0], : shape[1]]
        at = [y + margin[0] - shift[0], x + margin[1] - shift[1]]
        expected += weights[:, t, None, None] * ndimage.map_coordinates(mirrored(images, margin)[t], at, order=3)
    assert (got - expected).std() < exact * expected.std()


def test_whole_shifts_are_exact(xp: Any) -> None:
    images = np.random.default_rng(2).normal(size=(1, 40, 48)).astype(np.float32)
    warps = np.zeros((1, 10, 2))
    warps[0, 0] = 3, -5
    got = warped(xp, images, warps, np.ones((1, 1)), (20, 22))[0]
    np.testing.assert_allclose(got, mirrored(images, (20, 22))[0, 17:57, 27:75], atol=1e-4)


def test_a_steep_warp_reads_all_rows_it_needs() -> None:
    """Shifts that differ by 60 px across the field: compiled, the rows of a strip come from far apart."""
    rng = np.random.default_rng(4)
    images = ndimage.gaussian_filter(rng.normal(size=(1, 150, 90)), (0, 3, 3)).astype(np.float32)
    warps = np.zeros((1, 10, 2))
    warps[0, [1, 2, 4], 0] = 40, -25, 30
    margin, weights = (90, 60), np.ones((1, 1))
    sums = np.zeros((1, 170, 110), np.float32)
    standard = sharpened(add_warped(sums, mirrored(images, margin), warps, weights, margin)[0])
    assert np.abs(warped(np, images, warps, weights, margin)[0] - standard).max() < 0.1 * np.abs(standard).max()


def test_threads_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    images = rng.normal(size=(2, 50, 70)).astype(np.float32)
    warps, weights = smooth_warps(rng, 2, 1.0), rng.normal(size=(3, 2))
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("FRAZIL_THREADS", threads)
        results.append(warped(np, images, warps, weights, (22, 24)))
    np.testing.assert_array_equal(*results)
