from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from frazil.array import to_host
from frazil.kernels.warp import APRON_PX, add_warped, sharpened

MARGIN = (22, 24)


def smooth_warps(rng: np.random.Generator, frames: int, local: float) -> np.ndarray[Any, Any]:
    warps = rng.normal(size=(frames, 10, 2)) * local
    warps[:, 0] = rng.uniform(-4, 4, (frames, 2))
    return warps


def shifts_at(warp: np.ndarray[Any, Any], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    v, u = y / shape[0] - 0.5, x / shape[1] - 0.5
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v, u**3, u * u * v, u * v * v, v**3])
    return np.einsum("byx,ba->ayx", terms, warp)


@pytest.mark.parametrize(("local", "exact"), [(0.3, 0.02), (2.0, 0.06)])
def test_sums_of_warped_frames_against_scipy(xp: Any, local: float, exact: float) -> None:
    """scipy's cubic spline at every px; runs of px that share a shift are good to 0.1 px."""
    rng = np.random.default_rng(1)
    shape, frames = (61, 83), 3
    margin = (35, 37)
    images = rng.normal(size=(frames, shape[0] + 2 * margin[0], shape[1] + 2 * margin[1])).astype(np.float32)
    images = ndimage.gaussian_filter(images, (0, 0.7, 0.7))
    warps, weights = smooth_warps(rng, frames, local), rng.normal(size=(4, frames))
    sums = xp.zeros((4, shape[0] + 2 * APRON_PX, shape[1] + 2 * APRON_PX), dtype=xp.float32)
    sums = add_warped(sums, xp.asarray(images), warps, weights, margin)
    got = np.stack([np.asarray(to_host(sharpened(sums[r, ...]))) for r in range(4)])
    expected = np.zeros(got.shape)
    for t in range(frames):
        shift = shifts_at(warps[t], shape)
        y, x = np.mgrid[: shape[0], : shape[1]]
        at = [y + margin[0] - shift[0], x + margin[1] - shift[1]]
        expected += weights[:, t, None, None] * ndimage.map_coordinates(images[t], at, order=3)
    assert (got - expected).std() < exact * expected.std()


def test_whole_shifts_are_exact(xp: Any) -> None:
    rng = np.random.default_rng(2)
    shape, margin = (40, 48), (20, 22)
    image = rng.normal(size=(1, shape[0] + 2 * margin[0], shape[1] + 2 * margin[1])).astype(np.float32)
    warps = np.zeros((1, 10, 2))
    warps[0, 0] = 3, -5
    sums = xp.zeros((1, shape[0] + 2 * APRON_PX, shape[1] + 2 * APRON_PX), dtype=xp.float32)
    got = sharpened(add_warped(sums, xp.asarray(image), warps, np.ones((1, 1)), margin)[0, ...])
    np.testing.assert_allclose(np.asarray(to_host(got)), image[0, 17:57, 27:75], atol=1e-4)


def test_threads_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    images = rng.normal(size=(2, 50 + 2 * MARGIN[0], 70 + 2 * MARGIN[1])).astype(np.float32)
    warps, weights = smooth_warps(rng, 2, 1.0), rng.normal(size=(3, 2))
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("FRAZIL_THREADS", threads)
        results.append(add_warped(np.zeros((3, 70, 90), np.float32), images, warps, weights, MARGIN))
    np.testing.assert_array_equal(*results)
