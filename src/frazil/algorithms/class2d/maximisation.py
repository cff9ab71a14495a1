"""The M-step: mix new statistics into the old, follow the noise, balance the classes (recipe: class2d 3.2, 3.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.algorithms.class2d.grid import Grid
from frazil.algorithms.class2d.schedule import StepPlan
from frazil.algorithms.class2d.state import Class2dState, ClassStatistics, PassSums

_BIAS_LIMIT = 6.0
_NOISE_STEP = (0.3, 2.0)


def add_sums(total: PassSums | None, more: PassSums) -> PassSums:
    """Return the sums of two pieces of one pass."""
    if total is None:
        return more
    classes = ClassStatistics(
        total.classes.numerator + more.classes.numerator,
        total.classes.denominator + more.classes.denominator,
        total.classes.weight + more.classes.weight,
    )
    return PassSums(classes, total.residual + more.residual, total.images + more.images, total.visited + more.visited)


def maximise(state: Class2dState, grid: Grid, sums: PassSums, plan: StepPlan, live_images: int) -> None:
    """Take a step's sums into the state: S <- (1 - rate) S + rate (live / visited) sums."""
    scale = plan.rate * live_images / sums.images
    keep = 1 - plan.rate
    state.classes = ClassStatistics(
        state.classes.numerator * keep + sums.classes.numerator * scale,
        state.classes.denominator * keep + sums.classes.denominator * scale,
        state.classes.weight * keep + sums.classes.weight * scale,
    )
    _follow_noise(state, grid, sums, plan.radius)
    state.bias = balancing_bias(state.classes.weight, plan.balance)


def balancing_bias(weight: np.ndarray[Any, Any], strength: float) -> np.ndarray[Any, Any]:
    """Return the log prior that favours small classes, (class,) float32: -strength log(weight / mean)."""
    mean = max(weight.mean(), 1e-12)
    bias = -strength * np.log(np.maximum(weight, 1e-3) / mean)
    limited: np.ndarray[Any, Any] = np.clip(bias, -_BIAS_LIMIT, _BIAS_LIMIT).astype(np.float32)
    return limited


def rescale(state: Class2dState, factor: float) -> None:
    """Scale the statistics to another number of particles."""
    state.classes = ClassStatistics(
        state.classes.numerator * factor, state.classes.denominator * factor, state.classes.weight * factor
    )


def _follow_noise(state: Class2dState, grid: Grid, sums: PassSums, radius: float) -> None:
    """Half a step, in the logarithm, from the noise assumed to the residual found, in the shells that were used."""
    members = np.bincount(grid.shells_of(grid.count(radius)), minlength=grid.shell_count)
    used = members > 0
    ratio = np.ones(grid.shell_count)
    ratio[used] = sums.residual[used] / (2 * members[used] * sums.images)
    state.noise = state.noise * np.clip(ratio, *_NOISE_STEP) ** 0.5
