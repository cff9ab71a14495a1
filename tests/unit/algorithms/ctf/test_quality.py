from __future__ import annotations

import numpy as np
import pytest

from frazil.algorithms.ctf.model import ctf_at
from frazil.algorithms.ctf.quality import Curves, equi_phase_average, fit_resolution
from frazil.algorithms.ctf.rings import Samples
from frazil.model.ctf import Ctf
from frazil.model.optics import Optics

OPTICS = Optics(pixel_size_angstrom=1.0)


def half_plane(step: float, m: int) -> tuple[np.ndarray, np.ndarray]:
    sx, sy = np.meshgrid(np.arange(1, m + 1) * step, np.arange(-m, m + 1) * step)
    return sx.ravel(), sy.ravel()


@pytest.mark.parametrize(("u", "v"), [(15_000.0, 12_000.0), (2_000.0, 1_600.0)])  # the second passes the maximum of chi
def test_the_average_over_equal_phase_undoes_astigmatism(u: float, v: float) -> None:
    step = 1 / 2000.0
    sx, sy = half_plane(step, 700)
    fit = Ctf(defocus_u_angstrom=u, defocus_v_angstrom=v, defocus_angle_degrees=25.0)
    squared = ctf_at(sx, sy, defocus_u_angstrom=u, defocus_v_angstrom=v, defocus_angle_degrees=25.0, optics=OPTICS) ** 2
    samples = Samples(sx, sy, squared, np.ones_like(sx))
    q, average = equi_phase_average(samples, fit, OPTICS, step)
    mean = 0.5 * (u + v)
    expected = ctf_at(q, 0 * q, defocus_u_angstrom=mean, defocus_v_angstrom=mean, defocus_angle_degrees=0.0, optics=OPTICS) ** 2
    sampled = (q > 0.02) & (q < 0.3)
    assert np.abs(average - expected)[sampled].max() < 0.06


def curves_of(correlation: list[float]) -> Curves:
    values = np.array(correlation)
    s = np.linspace(0.05, 0.25, values.size)
    return Curves(s, values, values, values)


def test_the_resolution_is_the_last_good_frequency_before_two_failures() -> None:
    correlation = [0.9] * 10 + [0.3] + [0.8] * 5 + [0.2, 0.2] + [0.9] * 6
    found = curves_of(correlation)
    assert fit_resolution(found) == pytest.approx(1 / found.s[15])


def test_agreement_only_at_high_frequency_is_an_accident() -> None:
    assert fit_resolution(curves_of([0.1] * 20 + [0.9] * 4)) is None
    assert fit_resolution(curves_of([0.2] * 24)) is None
