from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.array import to_host
from frazil.primitives.grids import block_means, interpolate_blocks


@pytest.mark.parametrize("shape", [(12, 20), (13, 23), (4, 7)])
def test_block_means_by_brute_force(xp: Any, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def starts(n: int) -> range:
        return range(0, n - 3, 4)

    expected = [[image[y : y + 4, x : x + 4].mean() for x in starts(shape[1])] for y in starts(shape[0])]
    np.testing.assert_allclose(np.asarray(to_host(block_means(xp.asarray(image), 4))), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 20), (13, 23)])
def test_a_plane_survives_blocks_and_interpolation(xp: Any, shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    plane = (3 + 0.5 * y - 0.25 * x).astype(np.float64)
    back = np.asarray(to_host(interpolate_blocks(block_means(xp.asarray(plane), 4), shape, 4)))
    np.testing.assert_allclose(back, plane, atol=1e-9)
