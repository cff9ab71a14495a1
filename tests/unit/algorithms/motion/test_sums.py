from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.defects import DefectParameters
from frazil.algorithms.motion.field import ShiftField, whole_frame
from frazil.algorithms.motion.frames import CorrectedFrames, survey
from frazil.algorithms.motion.sums import aligned_sums
from frazil.array import to_host
from frazil.model.optics import Optics


def frames_of(movie: np.ndarray[Any, Any], xp: Any = np) -> CorrectedFrames:
    return survey(movie, xp.ones(movie.shape[1:], dtype=xp.float32), DefectParameters(), 2, 0).frames


def optics(dose: float = 1.0, pixel_size: float = 1.2, pre: float = 0.0) -> Optics:
    return Optics(pixel_size_angstrom=pixel_size, dose_per_frame_e_per_angstrom2=dose, pre_exposure_e_per_angstrom2=pre)


def still(frame_count: int) -> ShiftField:
    return whole_frame(np.zeros((frame_count, 2)))


def both(*arguments: Any, **options: Any) -> tuple[Any, Any]:
    sums = aligned_sums(*arguments, **options)
    return sums.dose_weighted, sums.plain


def host(a: Any) -> np.ndarray[Any, Any]:
    return np.asarray(to_host(a))


@pytest.mark.parametrize("shape", [(5, 70, 90), (9, 71, 93)])
def test_without_motion_and_dose_the_plain_sum_is_the_sum(xp: Any, shape: tuple[int, int, int]) -> None:
    movie = np.random.default_rng(0).poisson(4, shape).astype(np.uint8)
    weighted, plain = both(frames_of(movie, xp), still(len(movie)), optics(dose=0.0))
    assert plain.dtype == xp.float32
    np.testing.assert_allclose(host(plain), movie.sum(axis=0), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(host(weighted), movie.sum(axis=0) / np.sqrt(len(movie)), rtol=1e-5, atol=1e-3)


def test_dose_weighted_sum_follows_the_formula(xp: Any) -> None:
    """Each frame's transform times exp(-D/2N), D at the end of the frame, over the root of the sum of squares."""
    movie = np.random.default_rng(1).poisson(6, (7, 64, 80)).astype(np.uint8)
    weighted, _ = both(frames_of(movie, xp), still(7), optics(dose=1.7, pre=3.0))
    s = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(80)[None]) / 1.2
    with np.errstate(divide="ignore"):
        critical = 0.245 * s**-1.665 + 2.81
    weights = np.exp(-0.5 * (3.0 + 1.7 * np.arange(1, 8))[:, None, None] / critical)
    expected = (weights * np.fft.rfft2(movie.astype(float))).sum(0) / np.sqrt((weights**2).sum(0))
    np.testing.assert_allclose(host(weighted), np.fft.irfft2(expected, s=(64, 80)), atol=5e-4)


def test_white_noise_stays_white_when_dose_weighted() -> None:
    movie = np.random.default_rng(2).poisson(10, (20, 512, 512)).astype(np.uint8)
    weighted, _ = both(frames_of(movie), still(20), optics(dose=2.0))
    power = np.abs(np.fft.fft2(weighted - weighted.mean())) ** 2 / 512**2
    radius = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None])
    for low, high in ((0.03, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.5)):
        assert power[(radius >= low) & (radius < high)].mean() == pytest.approx(10, rel=0.03)


def waves(shape: tuple[int, int], displacement: tuple[float, float]) -> np.ndarray[Any, Any]:
    """A smooth scene that goes on beyond the field, displaced by (dy, dx) px."""
    y = np.arange(shape[0])[:, None] - displacement[0]
    x = np.arange(shape[1])[None] - displacement[1]
    return 40 + 9 * np.sin(0.31 * x + 0.17 * y) + 7 * np.cos(0.23 * y - 0.11 * x + 1) + 5 * np.sin(0.5 * y)


def test_shifted_frames_come_into_register(xp: Any) -> None:
    path = [(0.0, 0.0), (2.4, -1.3), (-3.7, 0.6), (1.0, 5.5)]
    movie = np.stack([waves((90, 120), d) for d in path]).astype(np.float32)
    _, plain = both(frames_of(movie, xp), whole_frame(-np.array(path)), optics())
    inside = (slice(20, -20), slice(20, -20))
    np.testing.assert_allclose(host(plain)[inside] / 4, waves((90, 120), (0, 0))[inside], atol=0.15)


def test_nothing_comes_in_at_the_far_edge() -> None:
    """A bright strip at the bottom stays at the bottom when the content moves down; the top mirrors its own edge."""
    frame = np.full((80, 100), 10, np.uint8)
    frame[-12:] = 200
    movie = np.stack([frame, frame])
    _, plain = both(frames_of(movie), whole_frame(np.array([[0.0, 0.0], [8.0, 0.0]])), optics())
    np.testing.assert_allclose(plain[1:60], 20, atol=8)
    assert plain[:60].max() < 40
    assert plain[-3:-1].min() > 150


def test_frames_left_out_are_in_neither_sum(xp: Any) -> None:
    rng = np.random.default_rng(3)
    movie = rng.poisson(5, (6, 64, 64)).astype(np.uint8)
    keep = [0, 1, 3, 5]
    weighted, plain = both(frames_of(movie, xp), still(6), optics(dose=1e-9), left_out=(2, 4))
    np.testing.assert_allclose(host(plain), movie[keep].sum(0), atol=1e-3)
    np.testing.assert_allclose(host(weighted), movie[keep].sum(0) / 2, atol=1e-3)


def test_superresolution_is_cropped_in_fourier_space(xp: Any) -> None:
    y, x = np.mgrid[:128, :192]
    slow = 50 + 10 * np.sin(2 * np.pi * x / 24) * np.cos(2 * np.pi * y / 32)
    fine = 20 * np.sin(2 * np.pi * x / 3.2)
    movie = np.stack([slow + fine] * 3).astype(np.float32)
    _, plain = both(frames_of(movie, xp), still(3), optics(), shape=(64, 96))
    np.testing.assert_allclose(host(plain), 3 * slow[::2, ::2], atol=1e-2)
