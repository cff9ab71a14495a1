from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.array import to_host
from frazil.kernels.blocks import block_sums, interpolate_blocks, outliers


@pytest.mark.parametrize("shape", [(12, 20), (13, 23), (4, 7)])
def test_block_sums_by_brute_force(xp: Any, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image, good = rng.normal(size=shape).astype(np.float32), rng.random(shape) < 0.7
    image[~good] = np.nan

    def starts(n: int) -> range:
        return range(0, n - 3, 4)

    expected = [[np.nansum(image[y : y + 4, x : x + 4]) for x in starts(shape[1])] for y in starts(shape[0])]
    numbers = [[good[y : y + 4, x : x + 4].sum() for x in starts(shape[1])] for y in starts(shape[0])]
    sums, counts = block_sums(xp.asarray(image), xp.asarray(good), 4)
    np.testing.assert_allclose(np.asarray(to_host(sums)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(to_host(counts)), numbers)


@pytest.mark.parametrize("shape", [(12, 20), (13, 23), (31, 7), (7, 30)])
def test_a_plane_survives_blocks_and_interpolation(xp: Any, shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    plane = np.asarray(0.5 * y * (shape[0] >= 8) - 0.25 * x * (shape[1] >= 8), np.float64)  # one block holds no slope
    sums, _ = block_sums(xp.asarray(plane), xp.ones(shape, dtype=xp.bool), 4)
    back = np.asarray(to_host(interpolate_blocks(sums / 16, shape, 4, 3.0)))
    np.testing.assert_allclose(back, plane + 3, atol=1e-9)


def test_outliers_are_beyond_the_root_of_the_mean(xp: Any) -> None:
    image = np.array([[9.0, 22.0, 21.0, 0.0, 4.0, 30.0]], np.float32)
    mean = np.array([[9.0, 9.0, 9.0, 9.0, 0.01, 9.0]], np.float32)
    good = np.array([[True, True, True, True, True, False]])
    got = np.asarray(to_host(outliers(xp.asarray(image), xp.asarray(mean), xp.asarray(good), 4.1)))
    assert got.tolist() == [[False, True, False, False, False, False]]
