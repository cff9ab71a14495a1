from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import to_host
from frazil.kernels.hot_pixels import FIRST_REACH_PX, copy_pixels, draw_sources


def test_sources_are_good_and_near_where_good_ones_are_near() -> None:
    rng = np.random.default_rng(3)
    bad = rng.random((60, 80)) < 0.05
    bad[:, 40] = True
    positions = np.flatnonzero(bad)
    sources = draw_sources(positions, bad, np.random.default_rng(4))
    assert not bad.ravel()[sources].any()
    (y, x), (sy, sx) = np.divmod(positions, 80), np.divmod(sources, 80)
    assert np.maximum(abs(y - sy), abs(x - sx)).max() <= 2 * FIRST_REACH_PX


def test_the_middle_of_a_wide_defect_finds_a_good_pixel_outside() -> None:
    bad = np.zeros((64, 64), bool)
    bad[10:50, 5:60] = True
    sources = draw_sources(np.flatnonzero(bad), bad, np.random.default_rng(5))
    assert not bad.ravel()[sources].any()


def test_draws_differ_between_frames_and_repeat_with_the_seed() -> None:
    bad = np.zeros((32, 32), bool)
    bad[::4, ::4] = True
    positions = np.flatnonzero(bad)
    first = draw_sources(positions, bad, np.random.default_rng((9, 0)))
    assert (first == draw_sources(positions, bad, np.random.default_rng((9, 0)))).all()
    assert (first != draw_sources(positions, bad, np.random.default_rng((9, 1)))).mean() > 0.8


def test_copied_pixels(xp: Any) -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    got = copy_pixels(xp.asarray(image.copy()), np.array([0, 5]), np.array([7, 11]))
    image[0, 0], image[1, 1] = 7, 11
    np.testing.assert_array_equal(np.asarray(to_host(got)), image)
