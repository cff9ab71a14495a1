from __future__ import annotations

import numpy as np

from frazil.primitives.masks import discs, soft_disc


def test_a_soft_disc_is_half_at_its_edge() -> None:
    radius = np.array([0.0, 4.0, 5.0, 6.0, 9.0], dtype=np.float32)
    values = soft_disc(radius, 5.0, 2.0)
    np.testing.assert_allclose(values, [1.0, 1.0, 0.5, 0.0, 0.0])
    assert values.dtype == np.float32


def test_discs_agree_with_brute_force() -> None:
    centres = np.array([[5.0, 5.0], [0.0, 19.3], [14.7, 30.0]])
    y, x = np.mgrid[:16, :32]
    expected = np.zeros((16, 32), bool)
    for cy, cx in centres:
        expected |= np.hypot(y - cy, x - cx) <= 4.2
    np.testing.assert_array_equal(discs((16, 32), centres, 4.2), expected)
    assert not discs((16, 32), centres[:0], 4.2).any()
