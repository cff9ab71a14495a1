"""Dose weighting: how much of each spatial frequency survives the exposure.

Critical exposure and filter of Grant & Grigorieff, eLife 2015;4:e06980, in the form that RELION and cisTEM use.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from types import MappingProxyType

from frazil.array import Array, namespace
from frazil.model.errors import InputError

RELION_VOLTAGE_FACTORS: Mapping[float, float] = MappingProxyType({300.0: 1.0, 200.0: 0.8, 100.0: 0.64})
"""Critical exposure relative to 300 kV. Programs disagree below 200 kV: cisTEM has 0.532 at 100 kV, MotionCor3 0.45 at 120."""

_A, _B, _C = 0.245, -1.665, 2.81
_VOLTAGE_MIN_KV, _VOLTAGE_MAX_KV = 60.0, 1000.0


def voltage_factor(voltage_kv: float, factors: Mapping[float, float] = RELION_VOLTAGE_FACTORS) -> float:
    """Return the critical exposure at a voltage relative to 300 kV: from the table, linear between its voltages.

    Below the table's lowest and above its highest voltage the end values stand. Raises InputError for a voltage that no
    transmission microscope has.
    """
    if not _VOLTAGE_MIN_KV <= voltage_kv <= _VOLTAGE_MAX_KV:
        raise InputError(
            "VOLTAGE_IMPLAUSIBLE", f"A voltage of {voltage_kv:g} kV cannot be dose weighted: give it in kV, as 300 or 200."
        )
    table = sorted(factors.items())
    if voltage_kv <= table[0][0]:
        return table[0][1]
    for (low, low_factor), (high, high_factor) in itertools.pairwise(table):
        if voltage_kv <= high:
            return low_factor + (high_factor - low_factor) * (voltage_kv - low) / (high - low)
    return table[-1][1]


def critical_exposure(frequency: Array, voltage_kv: float, factors: Mapping[float, float] = RELION_VOLTAGE_FACTORS) -> Array:
    """Return the exposure after which a frequency has lost 1/e of its power's root, e/Å²; infinite at frequency 0.

    Parameters
    ----------
    frequency: 1/Å, any shape, real floating.
    voltage_kv: kV.
    factors: the table of voltages.
    """
    xp = namespace(frequency)
    safe = xp.where(frequency > 0, frequency, xp.asarray(1.0, dtype=frequency.dtype))
    exposure = (_A * safe**_B + _C) * voltage_factor(voltage_kv, factors)
    return xp.where(frequency > 0, exposure, xp.asarray(math.inf, dtype=frequency.dtype))


def dose_weights(frequency: Array, exposures: tuple[float, ...], voltage_kv: float) -> Array:
    """Return the normalised weight of each frame: exp(-D / 2 N) / sqrt(sum over frames of its square).

    Parameters
    ----------
    frequency: 1/Å, any shape.
    exposures: e/Å² at the END of each frame, pre-exposure included.
    voltage_kv: kV.

    Returns
    -------
    (frame, *frequency.shape). Noise in the weighted sum is that of one frame at every frequency; at 0 each is 1 / sqrt(T).
    """
    xp = namespace(frequency)
    critical = critical_exposure(frequency, voltage_kv)
    weights = xp.stack([xp.exp(-0.5 * exposure / critical) for exposure in exposures])
    return weights / xp.sqrt(xp.sum(weights * weights, axis=0, keepdims=True))


def frame_exposures(frame_count: int, dose_per_frame: float, pre_exposure: float) -> tuple[float, ...]:
    """Return the exposure at the end of each frame, e/Å², pre-exposure included.

    Raises InputError for doses that are negative or no numbers.
    """
    if not (0 <= dose_per_frame < math.inf and 0 <= pre_exposure < math.inf):
        raise InputError(
            "DOSE_IMPLAUSIBLE",
            f"A dose of {dose_per_frame:g} e/Å² per frame after {pre_exposure:g} e/Å² is not possible: give both as 0 or more.",
        )
    return tuple(pre_exposure + dose_per_frame * (t + 1) for t in range(frame_count))
