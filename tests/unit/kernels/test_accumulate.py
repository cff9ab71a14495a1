from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import to_host
from frazil.kernels.accumulate import FourierSums, add_frames

SHAPE = (8, 6)


def random_complex(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def test_sums_in_two_batches_equal_the_sum_written_out(xp: Any) -> None:
    rng = np.random.default_rng(2)
    transforms, phases_y, phases_x = random_complex(rng, 5, *SHAPE), random_complex(rng, 5, 8), random_complex(rng, 5, 6)
    decay = rng.uniform(0.3, 1, SHAPE).astype(np.float32)
    sums = FourierSums(
        plain=xp.zeros(SHAPE, dtype=xp.complex64),
        weighted=xp.zeros(SHAPE, dtype=xp.complex64),
        weight=xp.ones(SHAPE, dtype=xp.float32),
        decay=xp.asarray(decay),
    )
    for part in (slice(0, 2), slice(2, 5)):
        add_frames(sums, xp.asarray(transforms[part]), xp.asarray(phases_y[part]), xp.asarray(phases_x[part]))
    aligned = transforms * phases_y[:, :, None] * phases_x[:, None, :]
    np.testing.assert_allclose(np.asarray(to_host(sums.plain)), aligned.sum(0), rtol=1e-4, atol=1e-4)
    weights = decay[None] ** np.arange(5)[:, None, None]
    np.testing.assert_allclose(np.asarray(to_host(sums.weighted)), (aligned * weights).sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(to_host(sums.weight)), decay**5, rtol=1e-5)
