"""A gain from the movies: as good as the counts allow, never worse than none, defects found."""

from __future__ import annotations

import numpy as np
import pytest

from frazil.algorithms.gain_estimation import estimate_gain
from frazil.model.errors import InputError

SPREAD = 0.04


@pytest.mark.parametrize("mean", [30.0, 400.0, 8000.0])
def test_its_error_is_that_of_the_best_estimate(mean: float) -> None:
    rng = np.random.default_rng(1)
    true = np.exp(rng.normal(0, SPREAD, (256, 320)))
    y, x = np.mgrid[:256, :320]
    light = mean * (1 + 0.3 * np.sin(x / 300) * np.cos(y / 250))
    found = estimate_gain(rng.poisson(light / true))
    left = np.log(true) - np.log(found.gain)
    left -= left.mean()
    best = np.sqrt(SPREAD**2 / mean / (SPREAD**2 + 1 / mean))  # posterior deviation of a Gaussian seen with noise 1/n
    assert left.std() == pytest.approx(best, rel=0.06)
    assert found.error == pytest.approx(best, rel=0.1)
    assert left.std() < SPREAD
    assert found.spread == pytest.approx(SPREAD, rel=0.25 if mean < 100 else 0.05)


def test_a_perfect_camera_is_left_alone() -> None:
    found = estimate_gain(np.random.default_rng(2).poisson(200.0, (256, 256)))
    assert np.abs(found.gain - 1).max() < 0.05  # the counts' own noise is 0.07


def test_dead_and_hot_pixels_become_defects() -> None:
    total = np.random.default_rng(3).poisson(300.0, (128, 128)).astype(np.float64)
    total[3, 4], total[50, 60], total[:, 100] = 0.0, 30_000.0, 20.0
    found = estimate_gain(total)
    bad = np.zeros(total.shape, bool)
    bad[3, 4] = bad[50, 60] = bad[:, 100] = True
    np.testing.assert_array_equal(found.gain == 0, bad)


def test_too_few_counts_are_refused() -> None:
    for total in (np.full((64, 64), 3.0), np.full((64, 64), np.nan)):
        with pytest.raises(InputError, match="take more movies"):
            estimate_gain(total)
