from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from frazil.algorithms import dose_weighting as dw
from frazil.array import to_host
from frazil.model.errors import InputError


@pytest.mark.parametrize("s", [0.02, 0.05, 0.1, 0.2, 0.4])
def test_weights_follow_the_published_formula(xp: Any, s: float) -> None:
    exposures = dw.frame_exposures(20, 1.3, 2.0)
    assert exposures[0] == pytest.approx(3.3)
    got = np.asarray(to_host(dw.dose_weights(xp.asarray(np.array([s])), exposures, 300.0)))[:, 0]
    critical = 0.245 * s**-1.665 + 2.81
    plain = np.exp(-0.5 * (2.0 + 1.3 * np.arange(1, 21)) / critical)
    np.testing.assert_allclose(got, plain / np.sqrt((plain**2).sum()), rtol=1e-12)


def test_zero_frequency_keeps_every_frame(xp: Any) -> None:
    got = np.asarray(to_host(dw.dose_weights(xp.asarray(np.array([0.0])), dw.frame_exposures(16, 2.0, 0.0), 300.0)))
    np.testing.assert_allclose(got, 0.25)


def test_lower_voltages_damage_more() -> None:
    assert dw.voltage_factor(300) == 1.0
    assert dw.voltage_factor(200) == 0.8
    assert dw.voltage_factor(100) == 0.64
    assert dw.voltage_factor(250) == pytest.approx(0.9)
    assert dw.voltage_factor(80) == 0.64
    assert dw.voltage_factor(100, {100.0: 0.532, 300.0: 1.0}) == 0.532
    for absurd in (0.3, 300_000, math.nan):
        with pytest.raises(InputError, match="kV"):
            dw.voltage_factor(absurd)


@pytest.mark.parametrize(("dose", "pre"), [(-1.0, 0.0), (math.nan, 0.0), (1.0, -2.0), (math.inf, 0.0)])
def test_impossible_doses_are_refused(dose: float, pre: float) -> None:
    with pytest.raises(InputError, match="e/Å²"):
        dw.frame_exposures(10, dose, pre)
