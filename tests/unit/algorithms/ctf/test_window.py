from __future__ import annotations

import numpy as np
import pytest

from frazil.algorithms.ctf.window import axis_windows, combined, single_hann


@pytest.mark.parametrize(("size", "length"), [(1000, 400), (1023, 512), (2048, 360)])
def test_squares_add_up_to_one_but_for_the_rim(size: int, length: int) -> None:
    windows = axis_windows(size, length)
    cover = np.zeros(size)
    for start, value in zip(windows.starts, windows.values, strict=True):
        cover[start : start + length] += value**2
    rim = length // 8
    np.testing.assert_allclose(cover[rim:-rim], 1.0)
    assert cover[0] < 1e-3
    assert windows.starts[-1] + length == size
    np.testing.assert_allclose(windows.centres(size), -windows.centres(size)[::-1], atol=2.0 / size)


def test_a_single_hann_window() -> None:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1000) / 1000)
    window = single_hann(500.0)
    for lag in (0, 130, 400):
        expected = (hann[lag:] * hann[: 1000 - lag]).sum() / (hann**2).sum()
        assert float(window.visibility(np.array(0.5 * lag))) == pytest.approx(expected, abs=2e-3)
    assert float(window.visibility(np.array(501.0))) == 0.0
    assert window.correlation == pytest.approx((1 + 2 * 4 / 9 + 2 / 36) ** 2)


def test_pixels_are_as_alike_as_noise_says() -> None:
    """The variance of a sum over pixels of averaged spectra of white noise is `correlation` times that of independent ones."""
    rng = np.random.default_rng(0)
    windows = axis_windows(250, 100)
    spectra = []
    for _ in range(4000):
        noise = rng.normal(size=250)
        tiles = np.stack([noise[start : start + 100] for start in windows.starts]) * windows.values
        spectra.append((np.abs(np.fft.rfft(tiles)) ** 2).sum(axis=0)[5:45])
    values = np.array(spectra)
    alike = values.sum(axis=1).var() / values.var(axis=0).sum()
    assert np.sqrt(combined((windows, windows), 1.0).correlation) == pytest.approx(alike, rel=0.08)
