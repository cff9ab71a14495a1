from __future__ import annotations

import numpy as np
import pytest

from frazil.algorithms.contamination import background_level, contamination, flattened


def noise(shape: tuple[int, int] = (200, 240), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(rows - y, columns - x) <= radius


def test_the_background_is_judged_without_what_is_brighter() -> None:
    image = 5.0 + 2.0 * noise()
    image[:40] += 40.0
    level, spread = background_level(image)
    assert level == pytest.approx(5.0, abs=1.0)
    assert spread == pytest.approx(2.0, abs=0.4)


def test_a_slope_is_removed_under_particles() -> None:
    y, x = np.mgrid[:200, :240]
    image = noise() + 0.05 * x - 0.03 * y
    for i in range(12):
        image += 4.0 * disc(image.shape, 20 + 14 * i, 30 + 15 * i, 8)
    flat = flattened(image)
    assert np.abs(np.polyfit(np.arange(240), np.median(flat, axis=0), 1)[0]) < 0.003
    assert np.median(flat) == pytest.approx(0.0, abs=0.2)


def test_only_what_is_larger_than_a_particle_is_contamination() -> None:
    image = noise() + 8.0 * disc((200, 240), 60, 60, 10) + 8.0 * disc((200, 240), 140, 160, 30)
    mask = contamination(image, 20.0)
    assert mask[disc((200, 240), 140, 160, 30)].all()
    assert not mask[disc((200, 240), 60, 60, 12)].any()
    assert mask.mean() < 0.2


def test_an_edge_of_carbon_and_a_hole_are_contamination() -> None:
    image = noise()
    image[:, :50] += 10.0
    image[150:, 180:] -= 30.0
    mask = contamination(image, 20.0)
    assert mask[:, :45].all()
    assert mask[160:, 190:].all()
    assert not mask[:120, 80:].any()


def test_noise_and_constants_are_clean() -> None:
    assert not contamination(noise(), 20.0).any()
    assert not contamination(np.zeros((50, 50)), 10.0).any()
    assert not flattened(np.full((50, 50), 3.0)).any()
