from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import to_host
from frazil.kernels.radial import add_weighted


def test_each_coefficient_takes_the_nearest_entry(xp: Any) -> None:
    rng = np.random.default_rng(0)
    total, transform = rng.normal(size=(2, 11, 8)) + 1j * rng.normal(size=(2, 11, 8))
    table, step = rng.normal(size=80), 0.01
    radius = np.hypot(np.fft.fftfreq(11)[:, None], np.fft.rfftfreq(15)[None])
    expected = total + transform * table[np.round(radius / step).astype(int)]
    parts = [xp.asarray(part.astype(np.complex64)) for part in (total, transform)]
    got = np.asarray(to_host(add_weighted(*parts, 15, table, step)))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
