from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.thumbnail import thumbnail


@pytest.mark.parametrize("shape", [(700, 1000), (331, 257), (64, 64)])
def test_size_and_proportions(xp: Any, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    picture = thumbnail(xp.asarray(image), 1.0, max_px=256)
    assert picture.dtype == np.uint8
    assert max(picture.shape) <= 256
    assert min(picture.shape) % 2 == 0
    assert picture.shape[0] / picture.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.05)


def test_shows_where_it_is_dark_and_uses_all_grey_levels() -> None:
    y, x = np.mgrid[:512, :768]
    image = (100 - 20 * np.exp(-((y - 128) ** 2 + (x - 600) ** 2) / (2 * 40**2))).astype(np.float32)
    picture = thumbnail(image, 2.0, max_px=384)
    darkest = np.unravel_index(np.argmin(np.where(picture == picture.min(), 0, 1)), picture.shape)
    assert np.hypot(darkest[0] - 64, darkest[1] - 300) < 25
    assert picture.min() == 0
    assert picture.max() == 255


def test_values_that_are_no_numbers_and_flat_images_are_shown() -> None:
    image = np.random.default_rng(1).normal(size=(300, 300)).astype(np.float32)
    image[10, 10], image[20, 20] = np.nan, np.inf
    assert thumbnail(image, 1.0, max_px=128).std() > 10
    assert (thumbnail(np.full((300, 300), 5.0, np.float32), 1.0) == 128).all()
    assert (thumbnail(np.full((300, 300), np.nan, np.float32), 1.0) == 128).all()
