from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.ctf.model import ctf_2d, ctf_at, normalised, thon_lag_angstrom, wavelength_angstrom
from frazil.model.ctf import Ctf
from frazil.model.optics import Optics

OPTICS = Optics(pixel_size_angstrom=1.3, voltage_kv=300.0, spherical_aberration_mm=2.7, amplitude_contrast=0.1)
FIT = Ctf(defocus_u_angstrom=15_200.0, defocus_v_angstrom=14_100.0, defocus_angle_degrees=33.0, phase_shift_degrees=20.0)


def by_the_book(sx: float, sy: float, ctf: Ctf, optics: Optics) -> float:
    """The formula of the conventions, word for word, in double precision."""
    volts = optics.voltage_kv * 1e3
    wavelength = 12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts))
    s, azimuth = np.hypot(sx, sy), np.arctan2(sy, sx)
    u, v = ctf.defocus_u_angstrom, ctf.defocus_v_angstrom
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (azimuth - np.deg2rad(ctf.defocus_angle_degrees)))
    chi = np.pi * wavelength * s**2 * (defocus - wavelength**2 * s**2 * optics.spherical_aberration_mm * 1e7 / 2)
    return float(np.sin(chi + np.deg2rad(ctf.phase_shift_degrees) + np.arcsin(optics.amplitude_contrast)))


@pytest.mark.parametrize(("voltage_kv", "expected"), [(300.0, 0.0196876), (200.0, 0.0250793), (100.0, 0.0370144)])
def test_wavelengths_are_those_of_the_tables(voltage_kv: float, expected: float) -> None:
    assert wavelength_angstrom(voltage_kv) == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize("half", [True, False])
def test_every_coefficient_follows_the_formula(xp: Any, half: bool) -> None:
    shape = (10, 12)
    values = np.asarray(ctf_2d(shape, FIT, OPTICS, xp, half=half, dtype=xp.float64))
    ky = np.fft.fftfreq(10) / OPTICS.pixel_size_angstrom
    kx = (np.fft.rfftfreq(12) if half else np.fft.fftfreq(12)) / OPTICS.pixel_size_angstrom
    expected = [[by_the_book(x, y, FIT, OPTICS) for x in kx] for y in ky]
    np.testing.assert_allclose(values, expected, atol=1e-9)


def test_white_particles_are_positive_near_zero_frequency(xp: Any) -> None:
    plain = Ctf(defocus_u_angstrom=1e4, defocus_v_angstrom=1e4, defocus_angle_degrees=0.0)
    values = ctf_2d((8, 8), plain, OPTICS, xp)
    assert values.dtype == xp.float32
    assert float(values[0, 0]) == pytest.approx(OPTICS.amplitude_contrast, abs=1e-6)


def test_single_precision_is_enough_at_high_defocus(xp: Any) -> None:
    deep = Ctf(defocus_u_angstrom=40_000.0, defocus_v_angstrom=38_000.0, defocus_angle_degrees=70.0)
    single = np.asarray(ctf_2d((64, 64), deep, OPTICS, xp))
    double = np.asarray(ctf_2d((64, 64), deep, OPTICS, xp, dtype=xp.float64))
    assert np.abs(single - double).max() < 3e-4


def test_swapping_u_and_v_and_turning_by_90_degrees_changes_nothing(xp: Any) -> None:
    swapped = Ctf(
        defocus_u_angstrom=14_100.0, defocus_v_angstrom=15_200.0, defocus_angle_degrees=123.0, phase_shift_degrees=20.0
    )
    np.testing.assert_allclose(
        np.asarray(ctf_2d((32, 32), swapped, OPTICS, xp, dtype=xp.float64)),
        np.asarray(ctf_2d((32, 32), FIT, OPTICS, xp, dtype=xp.float64)),
        atol=1e-10,
    )


def test_particles_broadcast_against_coefficients(xp: Any) -> None:
    sx, sy = xp.asarray([0.01, 0.05, 0.1], dtype=xp.float32), xp.asarray([0.0, -0.04, 0.12], dtype=xp.float32)
    u = np.array([[15_200.0], [22_000.0]])
    values = ctf_at(
        sx, sy, defocus_u_angstrom=xp.asarray(u), defocus_v_angstrom=xp.asarray(u - 900.0),
        defocus_angle_degrees=xp.asarray([[10.0], [100.0]]), optics=OPTICS,
    )  # fmt: skip
    assert values.shape == (2, 3)
    assert values.dtype == xp.float32
    second = Ctf(defocus_u_angstrom=22_000.0, defocus_v_angstrom=21_100.0, defocus_angle_degrees=100.0)
    assert float(values[1, 2]) == pytest.approx(by_the_book(0.1, 0.12, second, OPTICS), abs=1e-4)


def test_scaling_pixel_and_defocus_together_changes_nothing_without_cs(xp: Any) -> None:
    flat = Optics(pixel_size_angstrom=1.0, spherical_aberration_mm=0.0)
    wide = Optics(pixel_size_angstrom=1.5, spherical_aberration_mm=0.0)
    near = Ctf(defocus_u_angstrom=10_000.0, defocus_v_angstrom=9_000.0, defocus_angle_degrees=45.0)
    far = Ctf(defocus_u_angstrom=22_500.0, defocus_v_angstrom=20_250.0, defocus_angle_degrees=45.0)
    np.testing.assert_allclose(
        np.asarray(ctf_2d((16, 16), near, flat, xp, dtype=xp.float64)),
        np.asarray(ctf_2d((16, 16), far, wide, xp, dtype=xp.float64)),
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((2.0, 1.0, 30.0), (2.0, 1.0, 30.0)),
        ((1.0, 2.0, 30.0), (2.0, 1.0, 120.0)),
        ((1.0, 2.0, 150.0), (2.0, 1.0, 60.0)),
        ((2.0, 1.0, -30.0), (2.0, 1.0, 150.0)),
        ((2.0, 1.0, -1e-15), (2.0, 1.0, 0.0)),
    ],
)
def test_normal_form(given: tuple[float, float, float], expected: tuple[float, float, float]) -> None:
    assert normalised(*given) == pytest.approx(expected)


def test_the_thon_lag_counts_rings() -> None:
    s = np.linspace(0.1, 0.2, 20_001)
    squared = ctf_at(s, 0.0 * s, defocus_u_angstrom=3e4, defocus_v_angstrom=3e4, defocus_angle_degrees=0.0, optics=OPTICS) ** 2
    rings = np.count_nonzero(np.diff(squared > 0.5)) / 2
    assert rings == pytest.approx(float(np.trapezoid(thon_lag_angstrom(s, 3e4, OPTICS), s)), abs=1.0)
