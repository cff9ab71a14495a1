from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.ctf.spectrum import Spectrum, tile_spectra


def average_spectrum(image: Any, *, pixel_size_angstrom: float, tile_angstrom: float, s_max: float) -> Spectrum:
    return tile_spectra(image, pixel_size_angstrom=pixel_size_angstrom, tile_angstrom=tile_angstrom, s_max=s_max).average()


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_white_noise_is_flat(xp: Any) -> None:
    spectrum = average_spectrum(xp.asarray(noise((600, 500))), pixel_size_angstrom=2.0, tile_angstrom=256.0, s_max=0.2)
    assert spectrum.tile_angstrom == 256.0
    m = spectrum.power.shape[1] - 1
    assert spectrum.power.shape == (2 * m + 1, m + 1)
    assert m == 51  # the last frequency below 0.2 per Å in steps of 1/256
    outer = spectrum.power[:, m // 2 :]
    inner = spectrum.power[m // 2 : 3 * m // 2, 3 : m // 2]
    assert outer.mean() == pytest.approx(1.0, abs=0.05)
    assert inner.mean() == pytest.approx(1.0, abs=0.1)


def test_a_wave_shows_at_its_frequency_and_sign(xp: Any) -> None:
    y, x = np.mgrid[:256, :256]
    wave = np.cos(2 * np.pi * (12 * x - 20 * y) / 128) + 0.01 * noise((256, 256))
    spectrum = average_spectrum(xp.asarray(wave.astype(np.float32)), pixel_size_angstrom=1.0, tile_angstrom=128.0, s_max=0.25)
    row, column = np.unravel_index(np.argmax(spectrum.power), spectrum.power.shape)
    sx, sy = spectrum.frequencies()
    assert sx[0, column] == pytest.approx(12 / 128)
    assert sy[row, 0] == pytest.approx(-20 / 128)


def test_brightness_and_scale_do_not_matter() -> None:
    image = noise((400, 400))
    plain = average_spectrum(image, pixel_size_angstrom=1.0, tile_angstrom=128.0, s_max=0.4)
    other = average_spectrum(image * 30 + 500, pixel_size_angstrom=1.0, tile_angstrom=128.0, s_max=0.4)
    np.testing.assert_allclose(plain.power, other.power, rtol=2e-3, atol=1e-4)


def test_tiles_unlike_the_others_are_left_out() -> None:
    image = noise((1024, 1024))
    clean = average_spectrum(image, pixel_size_angstrom=1.0, tile_angstrom=128.0, s_max=0.4)
    image[:200, :200] *= 40.0
    image[-150:, -150:] = 0.0
    image[500, 500] = np.nan
    spoilt = average_spectrum(image, pixel_size_angstrom=1.0, tile_angstrom=128.0, s_max=0.4)
    assert clean.tiles_rejected == 0
    assert 8 <= spoilt.tiles_rejected <= 16
    assert np.isfinite(spoilt.power).all()
    assert spoilt.power.mean() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 7.3, np.nan])
def test_a_constant_image_has_no_spectrum(xp: Any, value: float) -> None:
    image = xp.asarray(np.full((300, 300), value, dtype=np.float32))
    spectrum = average_spectrum(image, pixel_size_angstrom=1.0, tile_angstrom=128.0, s_max=0.25)
    assert spectrum.tile_count == 0
    assert not spectrum.power.any()
