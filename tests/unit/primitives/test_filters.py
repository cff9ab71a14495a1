from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import to_host
from frazil.primitives.filters import edge_taper, local_mean, lowpass


def test_local_mean_follows_illumination_and_not_particles(xp: Any) -> None:
    y, x = np.mgrid[:200, :300]
    light = 50 + 0.05 * y - 0.03 * x
    particles = 5 * np.sin(2 * np.pi * x / 12) * np.sin(2 * np.pi * y / 12)
    got = np.asarray(to_host(local_mean(xp.asarray((light + particles).astype(np.float32)))))
    assert np.abs(got - light).max() < 1.0
    assert np.abs(got - light)[40:-40, 40:-40].max() < 0.1


def test_local_mean_keeps_a_slope_to_the_edge(xp: Any) -> None:
    y, x = np.mgrid[:200, :310]
    light = 50 + 0.05 * y - 0.03 * x
    got = np.asarray(to_host(local_mean(xp.asarray(light), xp.asarray(light > 0))))
    np.testing.assert_allclose(got, light, atol=1e-6)


def test_local_mean_does_not_see_bad_pixels(xp: Any) -> None:
    image = np.full((90, 100), 7.0, np.float32)
    good = np.ones(image.shape, bool)
    good[20:60, 30:80] = False
    image[~good] = 1e6
    got = np.asarray(to_host(local_mean(xp.asarray(image), xp.asarray(good))))
    np.testing.assert_allclose(got, 7.0, rtol=1e-5)


def test_local_mean_of_small_images_and_of_no_good_pixel_is_finite(xp: Any) -> None:
    image = xp.asarray(np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32))
    assert np.isfinite(np.asarray(to_host(local_mean(image)))).all()
    assert np.isfinite(np.asarray(to_host(local_mean(image, image > 100)))).all()


def test_lowpass_keeps_coarse_and_removes_fine_waves(xp: Any) -> None:
    x = np.arange(240)[None] * np.ones((120, 1))
    coarse, fine = np.cos(2 * np.pi * x / 40), np.cos(2 * np.pi * x / 8)  # 60 and 12 Å at 1.5 Å/px
    got = np.asarray(to_host(lowpass(xp.asarray((coarse + fine).astype(np.float32)), 1.5, 20.0)))
    np.testing.assert_allclose(got, coarse, atol=1e-5)


def test_taper_is_one_inside_and_symmetric(xp: Any) -> None:
    y, x = (np.asarray(to_host(a)) for a in edge_taper((20, 31), 4, xp))
    assert y.shape == (20, 1)
    assert x.shape == (1, 31)
    assert (y[4:-4] == 1).all()
    np.testing.assert_array_equal(x, x[:, ::-1])
    assert 0 < y[0, 0] < y[1, 0] < 1
