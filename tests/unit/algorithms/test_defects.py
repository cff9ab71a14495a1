from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.defects import DefectParameters, find_bad_pixels, replace_bad_pixels
from frazil.array import to_host
from frazil.model.errors import InputError


def scenery(counts: float, seed: int = 0) -> np.ndarray[Any, Any]:
    """An illuminated field with a hole's edge, contamination and particles, as counts."""
    y, x = np.mgrid[:300, :400]
    light = counts * (1 + 0.15 * x / 400)
    light = light * np.where(np.hypot(y - 150, x - 200) < 130, 1.0, 0.6)
    light = light * (1 - 0.6 * np.exp(-((y - 140) ** 2 + (x - 220) ** 2) / (2 * 6**2)))
    light = light * (1 + 0.3 * np.sin(x / 3) * np.sin(y / 3))
    return np.random.default_rng(seed).poisson(light).astype(np.float32)


@pytest.mark.parametrize("counts", [10.0, 40.0, 300.0])
def test_structure_of_the_specimen_is_not_flagged(counts: float) -> None:
    assert find_bad_pixels(scenery(counts)).sum() <= 1


def test_planted_pixels_are_found(xp: Any) -> None:
    total = scenery(60.0)
    hot = [(20, 30), (150, 200), (151, 200), (299, 399), (0, 0)]
    for y, x in hot:
        total[y, x] = 65_535 if (y, x) == (20, 30) else total[y, x] + 90
    total[100, 120] = 0
    total[40:60, 350] += 120  # part of a column
    known = np.zeros(total.shape, bool)
    known[:, 7] = True
    bad = np.asarray(to_host(find_bad_pixels(xp.asarray(total), xp.asarray(known))))
    assert all(bad[p] for p in [*hot, (100, 120)])
    assert bad[40:60, 350].all()
    assert bad[:, 7].all()
    assert bad.sum() - 300 - 20 - 6 <= 1


def test_a_single_enormous_pixel_does_not_hide_others_nor_its_neighbours() -> None:
    total = np.random.default_rng(1).poisson(30, (200, 200)).astype(np.float32)
    total[50, 50], total[150, 150] = 1e9, 100
    bad = find_bad_pixels(total)
    assert bad[50, 50]
    assert bad[150, 150]
    assert bad.sum() == 2


def test_found_pixels_are_widened_for_superresolution() -> None:
    total = np.random.default_rng(2).poisson(30, (100, 100)).astype(np.float32)
    total[50, 60] = 500
    bad = find_bad_pixels(total, None, DefectParameters(dilate_px=1))
    assert bad[49:52, 59:62].all()
    assert bad.sum() == 9


def test_sums_that_are_no_numbers_and_tiny_units_are_handled() -> None:
    total = np.random.default_rng(3).normal(0.02, 0.001, (100, 100)).astype(np.float32)
    total[10, 10], total[20, 20] = np.nan, 0.2
    bad = find_bad_pixels(total)
    assert bad[10, 10]
    assert bad[20, 20]
    assert bad.sum() == 2


def test_all_bad_is_refused() -> None:
    with pytest.raises(InputError, match="defect map"):
        find_bad_pixels(np.ones((64, 64), np.float32), np.ones((64, 64), bool))


def test_replaced_pixels_have_the_statistics_of_their_neighbours(xp: Any) -> None:
    """Mean and variance of one frame, and no pattern that frames share."""
    rng = np.random.default_rng(4)
    bad = np.zeros((40, 50), bool)
    bad[::5, ::5] = True
    bad[:, 23:26] = True
    positions = np.flatnonzero(bad)
    drawn = []
    for t in range(60):
        frame = rng.poisson(2.0, bad.shape).astype(np.float32)
        frame[bad] = 1000
        fixed = replace_bad_pixels(xp.asarray(frame), positions, bad, np.random.default_rng((7, t)))
        fixed = np.asarray(to_host(fixed))
        np.testing.assert_array_equal(fixed[~bad], frame[~bad])
        drawn.append(fixed[bad])
    values = np.array(drawn)
    assert values.mean() == pytest.approx(2.0, rel=0.05)
    assert values.var(axis=0).mean() == pytest.approx(2.0, rel=0.1)
    assert np.abs(np.corrcoef(values[::2].mean(0), values[1::2].mean(0))[0, 1]) < 0.2
