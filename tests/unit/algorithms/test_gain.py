from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.gain import apply_gain, frame_levels, normalize_gain
from frazil.array import to_host
from frazil.model.errors import InputError


def test_constant_gain_scales(xp: Any) -> None:
    frame = np.random.default_rng(0).poisson(3, (20, 30)).astype(np.uint8)
    got = apply_gain(xp.asarray(frame), xp.full(frame.shape, 2.5, dtype=xp.float32))
    assert got.dtype == xp.float32
    np.testing.assert_array_equal(np.asarray(to_host(got)), frame * np.float32(2.5))


def test_normalized_gain_has_median_one_and_zero_at_defects(xp: Any) -> None:
    gain = np.random.default_rng(1).uniform(2, 4, (40, 50)).astype(np.float32)
    gain[3, 4], gain[5, 6], gain[7, 8], gain[9, 9] = np.nan, 0, -1, np.inf
    got = np.asarray(to_host(normalize_gain(xp.asarray(gain))))
    assert (got[[3, 5, 7, 9], [4, 6, 8, 9]] == 0).all()
    assert np.median(got[got > 0]) == pytest.approx(1, abs=1e-6)
    assert got[0, 0] / got[1, 1] == pytest.approx(gain[0, 0] / gain[1, 1], rel=1e-5)


def test_a_gain_without_any_positive_value_is_refused(xp: Any) -> None:
    with pytest.raises(InputError, match="no positive"):
        normalize_gain(xp.zeros((8, 8), dtype=xp.float32))


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.8, 4.0, 60.0])
def test_limit_leaves_poisson_counts_alone_and_finds_stray_events(mean: float) -> None:
    frame = np.random.default_rng(2).poisson(mean, (1000, 1000)).astype(np.uint16)
    frame[0, 0] = frame[64, 64] = 60_000
    levels = frame_levels(frame)
    assert (frame > levels.limit).sum() == 2
    assert levels.mean == pytest.approx(mean, rel=0.2)
    assert levels.spread == pytest.approx(np.sqrt(mean), rel=0.1)


def test_levels_of_blank_and_broken_frames_are_finite() -> None:
    for frame in (np.zeros((100, 100), np.uint8), np.full((100, 100), np.nan, np.float32)):
        levels = frame_levels(frame)
        assert levels.mean == 0
        assert levels.spread == 0
