from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.array import to_host
from frazil.primitives import fourier

SHAPES = [(16, 24), (17, 24), (16, 21), (15, 13)]


def host(a: Any) -> np.ndarray[Any, Any]:
    return np.asarray(to_host(a))


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_transforms_agree_with_numpy_and_keep_single_precision(xp: Any, shape: tuple[int, int]) -> None:
    image = noise((2, *shape))
    half = fourier.rfft2(xp.asarray(image))
    full = fourier.fft2(xp.asarray(image))
    assert half.dtype == xp.complex64
    assert full.dtype == xp.complex64
    np.testing.assert_allclose(host(half), np.fft.rfft2(image), atol=1e-4)
    np.testing.assert_allclose(host(full), np.fft.fft2(image), atol=1e-4)
    back = fourier.irfft2(half, shape)
    assert back.dtype == xp.float32
    np.testing.assert_allclose(host(back), image, atol=1e-5)
    np.testing.assert_allclose(host(fourier.ifft2(full)).real, image, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_frequencies_are_those_of_numpy(xp: Any, shape: tuple[int, int]) -> None:
    ky, kx = fourier.frequencies(shape, xp)
    np.testing.assert_allclose(host(ky)[:, 0], np.fft.fftfreq(shape[0]), atol=1e-7)
    np.testing.assert_allclose(host(kx)[0], np.fft.rfftfreq(shape[1]), atol=1e-7)
    _, kx_full = fourier.frequencies(shape, xp, half=False)
    np.testing.assert_allclose(host(kx_full)[0], np.fft.fftfreq(shape[1]), atol=1e-7)
    radius = host(fourier.frequency_radius(shape, xp))
    np.testing.assert_allclose(radius, np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]), atol=1e-7)


def test_friendly_sizes_by_brute_force() -> None:
    smooth = {n for n in range(2, 700, 2) if not set(_prime_factors(n)) - {2, 3, 5, 7}}
    for size in range(2, 600):
        assert fourier.friendly_size(size) == min(n for n in smooth if n >= size)
        assert fourier.friendly_size(size, at_most=True) == max(n for n in smooth if n <= size)
    with pytest.raises(ValueError, match="friendly"):
        fourier.friendly_size(1)


def _prime_factors(n: int) -> list[int]:
    factors = []
    for candidate in range(2, n + 1):
        while n % candidate == 0:
            factors.append(candidate)
            n //= candidate
    return factors


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("half", [True, False])
def test_radial_mean_is_the_mean_over_the_full_transform(xp: Any, shape: tuple[int, int], half: bool) -> None:
    power = np.abs(np.fft.fft2(noise(shape))) ** 2
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    shell = np.round(np.hypot(ky, kx) * min(shape)).astype(int)
    expected = [power[shell == s].mean() for s in range(min(shape) // 2 + 1)]
    given = power[:, : shape[1] // 2 + 1] if half else power
    got = fourier.radial_mean(xp.asarray(given.astype(np.float32)), shape)
    np.testing.assert_allclose(host(got), expected, rtol=1e-5)


def test_shells_of_a_square_box_are_fourier_pixels(xp: Any) -> None:
    shells = host(fourier.shell_indices((16, 16), xp))
    assert shells[0, 5] == 5
    assert shells[-3, 4] == 5
    assert shells[8, 0] == 8


def test_raised_cosine_falls_and_rises(xp: Any) -> None:
    k = xp.asarray(np.array([0.0, 0.1, 0.15, 0.2, 0.3], np.float32))
    np.testing.assert_allclose(host(fourier.raised_cosine(k, 0.1, 0.2)), [1, 1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(host(fourier.raised_cosine(k, 0.2, 0.1)), [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(host(fourier.raised_cosine(k, 0.15, 0.15)), [1, 1, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "small"), [((48, 60), (24, 30)), ((47, 61), (24, 31)), ((48, 60), (48, 20)), ((45, 60), (15, 22))]
)
def test_crop_samples_a_band_limited_image_on_the_coarser_grid(xp: Any, shape: tuple[int, int], small: tuple[int, int]) -> None:
    def wave(y: np.ndarray[Any, Any], x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return 5 + np.cos(2 * np.pi * (3 * x + 2 * y) + 0.3) + np.sin(2 * np.pi * (7 * x - 5 * y))

    def sampled(n: tuple[int, int]) -> np.ndarray[Any, Any]:
        return wave(np.arange(n[0])[:, None] / n[0], np.arange(n[1])[None] / n[1]).astype(np.float32)

    got = fourier.fourier_crop(xp.asarray(sampled(shape)), small)
    assert got.dtype == xp.float32
    np.testing.assert_allclose(host(got), sampled(small), atol=1e-5)


def test_crop_keeps_the_mean_and_refuses_to_enlarge(xp: Any) -> None:
    image = xp.asarray(noise((33, 47)) + 3)
    assert abs(host(fourier.fourier_crop(image, (10, 20))).mean() - host(image).mean()) < 1e-5
    assert fourier.fourier_crop(image, (33, 47)) is image
    with pytest.raises(ValueError, match="cannot crop"):
        fourier.fourier_crop(image, (34, 20))


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_shifts_roll(xp: Any, shape: tuple[int, int]) -> None:
    image = noise(shape)
    got = fourier.fourier_shift(xp.asarray(image), (3, -2))
    np.testing.assert_allclose(host(got), np.roll(image, (3, -2), (0, 1)), atol=1e-5)
    assert got.dtype == xp.float32


@pytest.mark.parametrize("shape", [(32, 40), (33, 41)])
def test_fractional_shift_moves_a_band_limited_blob(xp: Any, shape: tuple[int, int]) -> None:
    def blob(cy: float, cx: float) -> np.ndarray[Any, Any]:
        y, x = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
        return np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 2.0**2))

    got = fourier.fourier_shift(xp.asarray(blob(15, 18)), (0.3, -1.45))
    np.testing.assert_allclose(host(got), blob(15.3, 16.55), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_half_pixel_shift_of_the_nyquist_lines_stays_real(xp: Any, shape: tuple[int, int]) -> None:
    """The oracle: each Nyquist component as the even wave it is, moved by its cosine."""
    image = noise(shape).astype(np.float64)
    dy, dx = 0.5, 0.25
    transform = np.fft.fft2(image)
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    phase = np.ones(shape, complex)
    for k, d in ((ky, dy), (kx, dx)):
        phase = phase * np.where(np.abs(k) == 0.5, np.cos(2 * np.pi * k * d), np.exp(-2j * np.pi * k * d))
    moved = np.fft.ifft2(transform * phase)
    assert np.abs(moved.imag).max() < 1e-12
    np.testing.assert_allclose(host(fourier.fourier_shift(xp.asarray(image), (dy, dx))), moved.real, atol=1e-12)


@pytest.mark.parametrize("shape", [(20, 32), (21, 33), (24, 40)])
def test_cropping_axis_by_axis_is_cropping(xp: Any, shape: tuple[int, int]) -> None:
    image = xp.asarray(np.random.default_rng(0).normal(size=(24, 40)).astype(np.float32))
    by_axis = fourier.crop_axis(fourier.crop_axis(image, shape[1], 1), shape[0], 0)
    np.testing.assert_allclose(host(by_axis), host(fourier.fourier_crop(image, shape)), atol=1e-5)
