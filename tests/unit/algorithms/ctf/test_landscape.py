from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from frazil.algorithms.ctf.estimate import CtfEstimate, estimate_ctf
from frazil.algorithms.ctf.fit import CtfSearch
from frazil.model.ctf import DefocusField
from frazil.model.optics import Optics
from simulated_micrograph import Scene, ctf

SHAPE, PIXEL, MEAN = (1080, 1440), 1.4, 14_000.0
WIDTH, HEIGHT = SHAPE[1] * PIXEL, SHAPE[0] * PIXEL
Y, X = ((np.arange(n) + 0.5) / n - 0.5 for n in SHAPE)
TILT, AXIS = 30.0, 40.0
UPHILL = np.deg2rad(AXIS - 90.0)


def specimen(name: str) -> np.ndarray[Any, Any]:
    """Defocus beyond the mean at every pixel, Å."""
    x, y = np.meshgrid(X, Y)
    if name == "tilted":
        return np.asarray(np.tan(np.deg2rad(TILT)) * (np.cos(UPHILL) * x * WIDTH + np.sin(UPHILL) * y * HEIGHT))
    if name == "steep":
        return np.asarray(np.tan(np.deg2rad(50.0)) * y * HEIGHT)
    if name == "domed":
        return np.asarray(-2_400.0 * (x**2 + y**2 - 1.0 / 6.0))
    return 0.0 * x


@lru_cache
def micrograph(name: str, strength: float, seed: int = 0) -> np.ndarray[Any, Any]:
    """A white object in white noise, imaged with the CTF of each place's defocus: layers blended where they meet."""
    rng = np.random.default_rng(seed)
    offset = specimen(name)
    sy = np.fft.fftfreq(SHAPE[0])[:, None] / PIXEL
    sx = np.fft.rfftfreq(SHAPE[1])[None, :] / PIXEL
    seen = np.fft.rfft2(rng.normal(size=SHAPE)) * np.sqrt(strength) * np.exp(-20.0 * (sx**2 + sy**2))
    depths = np.linspace(offset.min(), offset.max(), 2 + int(np.ptp(offset) // 100.0))
    image = rng.normal(size=SHAPE)
    for depth in depths:
        share = np.maximum(0.0, 1.0 - np.abs(offset - depth) / max(depths[1] - depths[0], 1.0))
        scene = Scene(defocus_u_angstrom=MEAN + 100.0 + depth, defocus_v_angstrom=MEAN - 100.0 + depth)
        image += np.fft.irfft2(seen * ctf(scene, sx, sy), s=SHAPE) * (share if np.ptp(offset) else 1.0 / len(depths))
    return image.astype(np.float32)


@lru_cache
def estimate(name: str, strength: float, seed: int = 0) -> CtfEstimate:
    return estimate_ctf(micrograph(name, strength, seed), optics=Optics(pixel_size_angstrom=PIXEL))


def error_over_field(found: CtfEstimate, name: str) -> float:
    x, y = np.meshgrid(X[::40], Y[::40])
    wrong = found.ctf.mean_defocus_angstrom + found.ctf.field.at(x, y) - MEAN - specimen(name)[::40, ::40]
    return float(np.sqrt(np.mean(wrong**2)))


@pytest.mark.parametrize(("strength", "seed"), [(0.3, 1), (0.1, 2)])
def test_a_flat_specimen_is_flat(strength: float, seed: int) -> None:
    found = estimate("flat", strength, seed)
    assert found.ctf.field.flat
    assert error_over_field(found, "flat") < 60.0


def test_a_tilted_specimen_has_its_tilt_and_axis() -> None:
    found = estimate("tilted", 1.0)
    tilt, axis = found.ctf.field.tilt(WIDTH, HEIGHT)
    assert tilt == pytest.approx(TILT, abs=3.0)
    assert abs((axis - AXIS + 90.0) % 180.0 - 90.0) < 5.0
    assert found.ctf.field.range_angstrom == pytest.approx(np.ptp(specimen("tilted")), rel=0.15)
    assert error_over_field(found, "tilted") < 40.0 < 0.15 * np.std(specimen("tilted"))
    assert found.ctf.astigmatism_angstrom == pytest.approx(200.0, abs=60.0)


def test_levelling_a_tilted_specimen_brings_its_fine_rings_back() -> None:
    level, tilted = (estimate(name, 1.0).diagnostics.significance for name in ("flat", "tilted"))
    assert tilted > 0.8 * level


def test_a_steep_specimen_is_found_though_its_average_has_no_rings() -> None:
    found = estimate("steep", 0.15, 1)
    _, axis = found.ctf.field.tilt(WIDTH, HEIGHT)
    assert abs((axis + 90.0) % 180.0 - 90.0) < 8.0
    assert error_over_field(found, "steep") < 0.35 * np.std(specimen("steep"))


def test_a_domed_specimen_is_followed() -> None:
    found = estimate("domed", 0.4)
    assert any(found.ctf.field.coefficients_angstrom[2:])
    assert error_over_field(found, "domed") < 0.6 * np.std(specimen("domed"))


def test_the_field_of_a_plane() -> None:
    slope = float(np.tan(np.deg2rad(20.0)))
    plane = DefocusField((0.0, slope * 3_000.0, 0.0, 0.0, 0.0))
    assert plane.at(0.3, 0.25) == pytest.approx(slope * 3_000.0 * 0.25)
    assert plane.tilt(4_000.0, 3_000.0) == pytest.approx((20.0, 0.0))  # up in y: the axis lies along x
    assert plane.range_angstrom == pytest.approx(slope * 3_000.0)
    assert DefocusField().flat
    assert not plane.flat


def test_the_image_with_the_stronger_rings_is_used() -> None:
    strong, weak = micrograph("flat", 0.3, 1), micrograph("flat", 0.1, 2)
    optics = Optics(pixel_size_angstrom=PIXEL)
    alone = estimate("flat", 0.3, 1).diagnostics.significance
    found = estimate_ctf(weak, optics=optics, dose_weighted=strong)
    assert found.diagnostics.significance == pytest.approx(alone, rel=0.05)


def with_phase_shift(degrees: float, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    sy = np.fft.fftfreq(SHAPE[0])[:, None] / PIXEL
    sx = np.fft.rfftfreq(SHAPE[1])[None, :] / PIXEL
    offset = float(np.sin(np.deg2rad(degrees) + np.arcsin(0.1)))
    scene = Scene(defocus_u_angstrom=9_100.0, defocus_v_angstrom=8_900.0, amplitude_contrast=offset)
    seen = np.fft.rfft2(rng.normal(size=SHAPE)) * ctf(scene, sx, sy) * np.exp(-20.0 * (sx**2 + sy**2))
    return np.asarray(rng.normal(size=SHAPE) + np.fft.irfft2(seen, s=SHAPE), dtype=np.float32)


def test_a_phase_shift_is_searched_for_where_the_session_says_so() -> None:
    degrees = 80.0
    image, optics = with_phase_shift(degrees, 5), Optics(pixel_size_angstrom=PIXEL)
    searched = CtfSearch(phase_shift_min_degrees=0.0, phase_shift_max_degrees=120.0)
    found = estimate_ctf(image, optics=optics, search=searched).ctf
    assert found.phase_shift_degrees == pytest.approx(degrees, abs=5.0)
    assert found.mean_defocus_angstrom == pytest.approx(9_000.0, abs=100.0)
    known = CtfSearch(phase_shift_min_degrees=degrees, phase_shift_max_degrees=degrees)
    found = estimate_ctf(image, optics=optics, search=known).ctf
    assert found.phase_shift_degrees == pytest.approx(degrees)
    assert found.mean_defocus_angstrom == pytest.approx(9_000.0, abs=60.0)
