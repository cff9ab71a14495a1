from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import to_host
from frazil.kernels.shells import shell_sums


def test_sums_by_brute_force(xp: Any) -> None:
    rng = np.random.default_rng(0)
    values, shells = rng.normal(size=(17, 9)).astype(np.float32), rng.integers(0, 12, (17, 9))
    expected = [values[shells == s].sum() for s in range(10)]
    got = shell_sums(xp.asarray(values), xp.asarray(shells), 10)
    np.testing.assert_allclose(np.asarray(to_host(got)), expected, rtol=1e-5, atol=1e-6)
