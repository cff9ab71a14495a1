"""Cropping at load: no aliasing, counts kept, bad pixels gone before they can ring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.super_resolution import crop_movie
from frazil.model.errors import InputError


def test_low_frequencies_are_kept_and_high_ones_do_not_fold_back() -> None:
    y, x = np.mgrid[:96, :128]
    low, high = np.cos(2 * np.pi * (5 * x / 128 + 3 * y / 96)), np.cos(2 * np.pi * 60 * x / 128)
    movie = (40 + 4 * low + 8 * high).astype(np.float32)[None]
    cropped = crop_movie(movie, None, None, 2)
    y, x = np.mgrid[:48, :64]
    expected = 4 * (40 + 4 * np.cos(2 * np.pi * (5 * x / 64 + 3 * y / 48)))  # the counts of four pixels
    np.testing.assert_allclose(cropped[0].astype(np.float64), expected, rtol=1e-3)


def test_counts_keep_their_mean_and_variance(xp: Any) -> None:
    movie = np.random.default_rng(1).poisson(0.7, (3, 256, 384)).astype(np.uint8)
    gain = np.full(movie.shape[1:], 1.0, np.float32)
    cropped = crop_movie(movie, gain, None, 2, xp=xp)
    assert (cropped.shape, cropped.dtype) == ((3, 128, 192), np.float16)
    assert cropped.mean(dtype=np.float64) == pytest.approx(2.8, rel=0.01)
    assert cropped.var(dtype=np.float64) == pytest.approx(2.8, rel=0.02)


def test_bad_pixels_are_replaced_before_they_spread() -> None:
    movie = np.random.default_rng(2).poisson(2.0, (8, 128, 128)).astype(np.uint8)
    clean = crop_movie(movie, None, None, 2)
    movie[:, 40, 60], movie[:, 80:84, 20] = 200, 0
    known = np.zeros((128, 128), bool)
    known[80:84, 20] = True
    spoilt = crop_movie(movie, None, known, 2)
    apart = np.abs(spoilt.astype(np.float32) - clean)
    assert apart.max() < 30  # one wrong pixel in 100 of its neighbours; 200 counts unreplaced would leave 200 and rings
    far = np.ones((64, 64), bool)
    far[17:24, 27:34] = far[36:46, 6:15] = False
    assert apart[:, far].max() < 2.0


def test_sides_must_be_multiples() -> None:
    with pytest.raises(InputError, match="130 x 129 px cannot be cropped by 2"):
        crop_movie(np.ones((2, 129, 130), np.uint8), None, None, 2)
