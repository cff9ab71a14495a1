from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from frazil.algorithms.ctf.estimate import estimate_ctf
from frazil.algorithms.ctf.fit import CtfSearch, fit_spectrum
from frazil.algorithms.ctf.spectrum import Spectrum
from frazil.algorithms.ctf.window import single_hann
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from simulated_micrograph import Scene, ctf, simulate

CLEAN = Scene(shape=(1024, 1024), pixel_size_angstrom=1.5, defocus_u_angstrom=15_400.0, defocus_v_angstrom=14_700.0)


def optics(scene: Scene) -> Optics:
    return Optics(
        pixel_size_angstrom=scene.pixel_size_angstrom,
        voltage_kv=scene.voltage_kv,
        spherical_aberration_mm=scene.spherical_aberration_mm,
        amplitude_contrast=scene.amplitude_contrast,
    )


@lru_cache
def image(scene: Scene) -> np.ndarray[Any, Any]:
    return simulate(scene).image


def angle_between(a: float, b: float) -> float:
    return abs((a - b + 90.0) % 180.0 - 90.0)


def analytic_spectrum(scene: Scene) -> Spectrum:
    """1 + CTF² / 2, fading, on a fine grid: nothing random."""
    step, m = 1 / 1500.0, 400
    sx, sy = np.arange(m + 1)[None, :] * step, np.arange(-m, m + 1)[:, None] * step
    power = 1.0 + 0.5 * np.exp(-40.0 * (sx**2 + sy**2)) * ctf(scene, sx, sy) ** 2
    return Spectrum(power.astype(np.float32), step, 1, 0, single_hann(1.0 / step))


@pytest.mark.parametrize(
    ("u", "v", "angle", "voltage_kv", "cs"),
    [
        (15_400.0, 14_700.0, 37.0, 300.0, 2.7),
        (22_000.0, 20_000.0, 122.0, 200.0, 1.4),
        (8_100.0, 7_900.0, 3.0, 300.0, 0.01),
        (12_000.0, 9_600.0, 178.0, 120.0, 2.0),
    ],
)
def test_an_analytic_spectrum_is_recovered_exactly(u: float, v: float, angle: float, voltage_kv: float, cs: float) -> None:
    scene = Scene(
        defocus_u_angstrom=u, defocus_v_angstrom=v, angle_degrees=angle, voltage_kv=voltage_kv, spherical_aberration_mm=cs
    )
    found, diagnostics = fit_spectrum(analytic_spectrum(scene), optics=optics(scene), search=CtfSearch())
    assert found.defocus_u_angstrom == pytest.approx(u, abs=1.5)
    assert found.defocus_v_angstrom == pytest.approx(v, abs=1.5)
    assert angle_between(found.defocus_angle_degrees, angle) < 0.15
    assert found.score > 0.8
    assert found.fit_resolution_angstrom is not None
    assert found.fit_resolution_angstrom < 4.0
    assert not found.on_bound
    in_range = (diagnostics.curves.s > 0.05) & (diagnostics.curves.s < 0.22)
    assert diagnostics.curves.correlation[in_range].min() > 0.9


def test_a_phase_plate_is_found() -> None:
    scene = Scene(defocus_u_angstrom=9_000.0, defocus_v_angstrom=8_800.0, amplitude_contrast=float(np.sin(np.deg2rad(70.0))))
    known = Optics(pixel_size_angstrom=1.5, amplitude_contrast=0.1)
    found, _ = fit_spectrum(analytic_spectrum(scene), optics=known, search=CtfSearch(phase_shift_max_degrees=180.0))
    assert found.phase_shift_degrees == pytest.approx(70.0 - np.rad2deg(np.arcsin(0.1)), abs=1.0)
    assert found.mean_defocus_angstrom == pytest.approx(8_900.0, abs=5.0)


@pytest.mark.parametrize(
    "scene",
    [
        Scene(shape=(1024, 1280), pixel_size_angstrom=2.2, voltage_kv=200.0, spherical_aberration_mm=1.4, particle="shell",
              defocus_u_angstrom=12_600.0, defocus_v_angstrom=11_800.0, angle_degrees=140.0, seed=1),
        Scene(shape=(1408, 1408), pixel_size_angstrom=0.9, defocus_u_angstrom=9_300.0, defocus_v_angstrom=9_000.0,
              b_factor_angstrom2=60.0, seed=2),
        Scene(pixel_size_angstrom=1.5, defocus_u_angstrom=20_200.0, defocus_v_angstrom=19_900.0, dose_e_per_angstrom2=20.0,
              contrast=0.3, angle_degrees=75.0, seed=3),
        Scene(shape=(512, 768), pixel_size_angstrom=3.4, particle="double ring", particle_count=20,
              defocus_u_angstrom=18_000.0, defocus_v_angstrom=17_000.0, angle_degrees=10.0, seed=4),
    ],
)  # fmt: skip
def test_simulated_micrographs_are_fitted(scene: Scene) -> None:
    estimate = estimate_ctf(image(scene), optics=optics(scene))
    found, diagnostics = estimate.ctf, estimate.diagnostics
    u, v = scene.defocus_u_angstrom, scene.defocus_v_angstrom
    error = found.mean_defocus_angstrom - 0.5 * (u + v)
    assert abs(error) < 100.0
    assert diagnostics.defocus_sigma_angstrom is not None
    assert abs(error) < 5.0 * diagnostics.defocus_sigma_angstrom + 15.0
    assert abs(found.astigmatism_angstrom - (u - v)) < 150.0
    assert found.fit_resolution_angstrom is not None
    assert 2.2 * scene.pixel_size_angstrom - 0.1 <= found.fit_resolution_angstrom < max(7.0, 3.5 * scene.pixel_size_angstrom)


def test_turning_the_micrograph_turns_the_astigmatism() -> None:
    plain = estimate_ctf(image(CLEAN), optics=optics(CLEAN)).ctf
    turned = estimate_ctf(np.rot90(image(CLEAN)).copy(), optics=optics(CLEAN)).ctf
    flipped = estimate_ctf(image(CLEAN)[::-1].copy(), optics=optics(CLEAN)).ctf
    assert angle_between(plain.defocus_angle_degrees, CLEAN.angle_degrees) < 8.0
    assert angle_between(turned.defocus_angle_degrees, plain.defocus_angle_degrees + 90.0) < 4.0
    assert angle_between(flipped.defocus_angle_degrees, -plain.defocus_angle_degrees) < 4.0
    for other in (turned, flipped):
        assert other.mean_defocus_angstrom == pytest.approx(plain.mean_defocus_angstrom, abs=20.0)


def test_brightness_and_scale_do_not_matter() -> None:
    plain = estimate_ctf(image(CLEAN), optics=optics(CLEAN)).ctf
    other = estimate_ctf(image(CLEAN) * -3.0 + 1000.0, optics=optics(CLEAN)).ctf
    assert other.mean_defocus_angstrom == pytest.approx(plain.mean_defocus_angstrom, abs=2.0)


def test_other_backends_agree(xp: Any) -> None:
    scene = Scene(shape=(512, 512), pixel_size_angstrom=2.0, particle_count=15)
    plain = estimate_ctf(image(scene), optics=optics(scene)).ctf
    other = estimate_ctf(xp.asarray(image(scene)), optics=optics(scene)).ctf
    assert other.mean_defocus_angstrom == pytest.approx(plain.mean_defocus_angstrom, abs=1.0)


def without_rings_beyond(scene: Scene, s_cut: float) -> np.ndarray[Any, Any]:
    """A micrograph whose Thon rings end at `s_cut`: a strong object cut sharply there, in white noise."""
    rng = np.random.default_rng(5)
    sy = np.fft.fftfreq(1024)[:, None] / scene.pixel_size_angstrom
    sx = np.fft.rfftfreq(1024)[None, :] / scene.pixel_size_angstrom
    object_ = np.fft.rfft2(rng.normal(size=(1024, 1024))) * ctf(scene, sx, sy) * (np.hypot(sx, sy) < s_cut)
    return np.asarray(np.fft.irfft2(object_) + rng.normal(size=(1024, 1024)), dtype=np.float32)


@pytest.mark.parametrize("resolution", [8.0, 6.0])
def test_the_resolution_is_where_the_rings_end(resolution: float) -> None:
    found = estimate_ctf(without_rings_beyond(CLEAN, 1 / resolution), optics=optics(CLEAN)).ctf
    assert found.fit_resolution_angstrom is not None
    assert 1 / found.fit_resolution_angstrom == pytest.approx(1 / resolution, abs=0.02)


TILE_ANGSTROM, SIDE_PX = 720.0, 1280


def weak_micrograph(scene: Scene, strength: float) -> np.ndarray[Any, Any]:
    """Gaussian noise with the power `1 + strength exp(-60 s²) CTF²`, s in 1/Å."""
    sy = np.fft.fftfreq(SIDE_PX)[:, None] / scene.pixel_size_angstrom
    sx = np.fft.rfftfreq(SIDE_PX)[None, :] / scene.pixel_size_angstrom
    power = 1.0 + strength * np.exp(-60.0 * (sx**2 + sy**2)) * ctf(scene, sx, sy) ** 2
    noise = np.random.default_rng(scene.seed).normal(size=(SIDE_PX, SIDE_PX))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(noise) * np.sqrt(power)), dtype=np.float32)


def expected_correlation(scene: Scene, strength: float, s: float) -> float:
    """Correlation of a ring average with the rings: amplitude against the noise of log power in T tiles and pi k pixels."""
    tiles = (2.0 * SIDE_PX * scene.pixel_size_angstrom / TILE_ANGSTROM - 1.0) ** 2
    independent_pixels = np.pi * s * TILE_ANGSTROM / 2.5  # the window makes neighbours alike
    signal = 0.5 * (0.5 * strength * np.exp(-60.0 * s**2)) ** 2
    return float(np.sqrt(signal / (signal + 1.0 / (tiles * independent_pixels))))


@pytest.mark.parametrize("defocus", [5_000.0, 8_000.0, 12_000.0, 20_000.0, 30_000.0])
@pytest.mark.parametrize(("pixel_size_angstrom", "strength"), [(1.0, 0.22), (2.0, 0.11)])
def test_weak_rings_are_a_fit_that_reaches_as_far_as_noise_lets_it(
    defocus: float, pixel_size_angstrom: float, strength: float
) -> None:
    scene = Scene(
        pixel_size_angstrom=pixel_size_angstrom,
        defocus_u_angstrom=defocus + 100.0,
        defocus_v_angstrom=defocus - 100.0,
        seed=int(defocus),
    )
    found = estimate_ctf(weak_micrograph(scene, strength), optics=optics(scene)).ctf
    assert abs(found.mean_defocus_angstrom - defocus) < 250.0
    assert found.fit_resolution_angstrom is not None
    assert 0.15 < expected_correlation(scene, strength, 1.0 / found.fit_resolution_angstrom) < 0.85


def test_noise_is_hardly_ever_a_fit() -> None:
    images = [np.random.default_rng(seed).poisson(4.0, (512, 512)).astype(np.float32) for seed in range(10)]
    found = [estimate_ctf(image, optics=Optics(pixel_size_angstrom=1.6)).diagnostics.significance for image in images]
    assert max(found) < 20.0
    assert min(found) < 8.0 < max(found)


@pytest.mark.parametrize("kind", ["white", "falling", "striped"])
@pytest.mark.parametrize("pixel_size_angstrom", [0.8, 2.0])
def test_noise_is_no_fit(kind: str, pixel_size_angstrom: float) -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(768, 768))
    if kind == "falling":
        s = np.hypot(np.fft.fftfreq(768)[:, None], np.fft.rfftfreq(768)) / pixel_size_angstrom
        noise = np.fft.irfft2(np.fft.rfft2(noise) * (1 + 0.02 / np.maximum(s, 1e-3)) * np.exp(-10 * s**2))
    if kind == "striped":
        noise += rng.normal(size=(768, 1))
    estimate = estimate_ctf(noise.astype(np.float32), optics=Optics(pixel_size_angstrom=pixel_size_angstrom))
    found, diagnostics = estimate.ctf, estimate.diagnostics
    assert found.fit_resolution_angstrom is None
    assert diagnostics.defocus_sigma_angstrom is None
    assert abs(found.score) < 0.08


@pytest.mark.parametrize("value", [0.0, 12.5, np.nan])
def test_an_image_without_structure_is_no_fit(xp: Any, value: float) -> None:
    found = estimate_ctf(xp.asarray(np.full((256, 256), value, dtype=np.float32)), optics=Optics(pixel_size_angstrom=1.0)).ctf
    assert found.fit_resolution_angstrom is None
    assert found.on_bound


def test_a_spoilt_micrograph_is_still_fitted() -> None:
    scene = Scene(shape=(1280, 1280), defocus_u_angstrom=14_500.0, defocus_v_angstrom=14_300.0, seed=7)
    spoilt = image(scene).copy()
    rng = np.random.default_rng(0)
    spoilt[:350, :400] += rng.normal(0.0, 300.0, (350, 400)).astype(np.float32)
    spoilt[1060:] = 3.0
    spoilt[700, 700] = np.nan
    estimate = estimate_ctf(spoilt, optics=optics(scene))
    found, diagnostics = estimate.ctf, estimate.diagnostics
    assert diagnostics.spectrum.tiles_rejected > 0
    assert found.mean_defocus_angstrom == pytest.approx(14_400.0, abs=100.0)


def test_a_defocus_on_the_edge_of_the_range_says_so() -> None:
    narrow = CtfSearch(defocus_min_angstrom=15_080.0, defocus_max_angstrom=30_000.0)
    found = estimate_ctf(image(CLEAN), optics=optics(CLEAN), search=narrow).ctf
    assert found.on_bound


@pytest.mark.parametrize("bounds", [(0.0, 100.0), (2000.0, 1000.0)])
def test_senseless_ranges_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="defocus search range"):
        CtfSearch(defocus_min_angstrom=bounds[0], defocus_max_angstrom=bounds[1])


def test_images_that_cannot_show_rings_are_refused() -> None:
    with pytest.raises(InputError, match="at least 64 px"):
        estimate_ctf(np.zeros((32, 400), np.float32), optics=Optics(pixel_size_angstrom=1.0))
    with pytest.raises(InputError, match="pixel size"):
        estimate_ctf(np.zeros((400, 400), np.float32), optics=Optics(pixel_size_angstrom=12.0))
    with pytest.raises(InputError, match="fit range"):
        CtfSearch(resolution_min_angstrom=5.0, resolution_max_angstrom=6.0)


def test_the_record_is_in_normal_form() -> None:
    found = estimate_ctf(image(CLEAN), optics=optics(CLEAN)).ctf
    assert isinstance(found, Ctf)
    assert found.defocus_u_angstrom >= found.defocus_v_angstrom
    assert 0.0 <= found.defocus_angle_degrees < 180.0
