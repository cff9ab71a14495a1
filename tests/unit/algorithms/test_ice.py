from __future__ import annotations

import numpy as np
import pytest

from frazil.algorithms.ice import measure_ice

STEP = 1 / 700.0
S = np.arange(350) * STEP  # to 2.0 Å
FADING = 3.0 * np.exp(-4.0 * S)


def test_without_ice_everything_is_one() -> None:
    found = measure_ice(FADING, STEP)
    assert found.ring == pytest.approx(1.0, abs=0.01)
    assert found.thickness == pytest.approx(1.0, abs=0.01)
    assert not found.crystalline


@pytest.mark.parametrize("spacing", [3.67, 2.25])
def test_a_ring_of_crystals_stands_out(spacing: float) -> None:
    band = {3.67: (3.60, 3.74), 2.25: (2.21, 2.29)}[spacing]
    middle, half_width = 0.5 * (1 / band[0] + 1 / band[1]), 0.5 * (1 / band[0] - 1 / band[1])
    icy = np.where(np.abs(S - middle) <= half_width, 4.0 * FADING, FADING)
    found = measure_ice(icy, STEP)
    assert found.ring == pytest.approx(4.0, rel=0.03)
    assert found.crystalline


def test_thicker_ice_has_a_stronger_ring_of_water() -> None:
    water = np.exp(-0.5 * ((S - 1 / 3.7) / 0.02) ** 2)
    thin, thick = (measure_ice(FADING * (1 + amount * water), STEP).thickness for amount in (0.05, 0.2))
    assert thin is not None
    assert thick is not None
    assert thick - 1.0 == pytest.approx(4.0 * (thin - 1.0), rel=0.05)


def test_what_nyquist_hides_is_not_known() -> None:
    found = measure_ice(FADING[S < 1 / 3.5], STEP)
    assert (found.ring, found.thickness, found.crystalline) == (None, None, False)
    assert measure_ice(np.zeros(300), STEP).ring is None
