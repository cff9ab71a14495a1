from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.array import to_host
from frazil.kernels.gain import add_and_bin_frame, correct_frame, correct_frame_standard


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.float32, np.float16])
def test_compiled_and_standard_agree_with_plain_arithmetic(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 100, (13, 21)).astype(dtype)
    gain = rng.uniform(0.5, 1.5, frame.shape).astype(np.float32)
    expected = np.where(frame <= 60, frame, 7).astype(np.float32) * gain
    np.testing.assert_array_equal(correct_frame(frame, gain, 60.0, 7.0), expected)
    np.testing.assert_array_equal(correct_frame_standard(frame, gain, 60.0, 7.0), expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_total_and_blocks_by_brute_force(xp: Any, factor: int) -> None:
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 100, (13, 21)).astype(np.uint8)
    gain = rng.uniform(0.5, 1.5, frame.shape).astype(np.float32)
    expected = np.where(frame <= 60, frame, 7).astype(np.float32) * gain
    total, blocks = add_and_bin_frame(
        xp.ones(frame.shape, dtype=xp.float32), xp.asarray(frame), xp.asarray(gain), factor, (60.0, 7.0)
    )
    np.testing.assert_allclose(np.asarray(to_host(total)), 1 + expected, rtol=1e-6)
    height, width = 13 // factor, 21 // factor
    whole = expected[: height * factor, : width * factor].reshape(height, factor, width, factor)
    np.testing.assert_allclose(np.asarray(to_host(blocks)), whole.sum(axis=(1, 3)), rtol=1e-5)


def test_what_is_no_number_counts_as_the_fill(xp: Any) -> None:
    frame = np.array([[np.nan, np.inf], [-np.inf, 2.0]], np.float32)
    got = correct_frame(xp.asarray(frame), xp.ones((2, 2), dtype=xp.float32), 50.0, 1.5)
    np.testing.assert_array_equal(np.asarray(to_host(got)), [[1.5, 1.5], [1.5, 2.0]])
