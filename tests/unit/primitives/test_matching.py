from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.primitives.masks import soft_disc
from frazil.primitives.matching import Matcher


def noise(shape: tuple[int, int] = (50, 64), seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def template_and_window(matcher: Matcher) -> tuple[Any, Any]:
    window = soft_disc(matcher.radius, 6.0, 1.0)
    return (np.cos(matcher.radius / 2.0) * window).astype(np.float32), window.astype(np.float32)


def brute_force(image: np.ndarray[Any, Any], y: int, x: int) -> tuple[float, float]:
    """Weighted covariance with the template, and the root of the weighted squared deviation, around one pixel."""
    rows, columns = np.mgrid[-8:9, -8:9]
    rho = np.hypot(rows, columns)
    w = np.clip(0.5 - (rho - 6.0), 0, 1)
    t = np.cos(rho / 2.0) * w
    t = (t - (t * w).sum() / w.sum()) * w
    patch = image[y - 8 : y + 9, x - 8 : x + 9].astype(np.float64)
    mean = (w * patch).sum() / w.sum()
    norm = np.sqrt(((t / np.sqrt(np.maximum(w, 1e-6))) ** 2).sum())
    return float((t * patch).sum() / norm), float(np.sqrt((w * (patch - mean) ** 2).sum()))


def test_the_correlation_is_that_of_brute_force(xp: Any) -> None:
    image = noise()
    matcher = Matcher(xp.asarray(image), 10)
    template, window = template_and_window(matcher)
    score = np.asarray(matcher.ncc(template, window))
    deviation = np.asarray(matcher.local_deviation(window))
    for y, x in ((10, 12), (25, 30), (40, 50)):
        covariance, local = brute_force(image, y, x)
        assert deviation[y, x] == pytest.approx(local, rel=1e-3)
        assert score[y, x] == pytest.approx(covariance / max(local, float(np.median(deviation))), abs=2e-3)


def test_the_correlation_stays_within_one(xp: Any) -> None:
    image = noise() * 0.01
    matcher = Matcher(xp.asarray(image), 10)
    template, window = template_and_window(matcher)
    y, x = np.ogrid[-8:9, -8:9]
    rho = np.hypot(y, x)
    stamp = np.cos(rho / 2.0) * np.clip(0.5 - (rho - 6.0), 0, 1)
    image[17:34, 22:39] += 50.0 * stamp.astype(np.float32)
    score = np.asarray(Matcher(xp.asarray(image), 10).ncc(template, window))
    assert -1.0 <= score.min() <= score.max() <= 1.0
    assert np.unravel_index(np.argmax(score), score.shape) == (25, 30)
    assert score.max() > 0.95


def test_scale_and_offset_do_not_matter() -> None:
    image = noise()
    plain = Matcher(image, 10)
    other = Matcher(image * 3.0 + 7.0, 10)
    template, window = template_and_window(plain)
    np.testing.assert_allclose(plain.ncc(template, window), other.ncc(template, window), atol=5e-3)


def test_the_edge_is_a_mirror(xp: Any) -> None:
    image = noise((20, 24))
    matcher = Matcher(xp.asarray(image), 5)
    padded = np.pad(image, ((5, matcher.padded.shape[0] - 25), (5, matcher.padded.shape[1] - 29)), mode="reflect")
    np.testing.assert_array_equal(np.asarray(matcher.padded), padded)


def test_patches_are_squares_around_points(xp: Any) -> None:
    image = noise()
    matcher = Matcher(xp.asarray(image), 10)
    found = np.asarray(matcher.patches(np.array([[20, 30], [0, 63]]), 4))
    np.testing.assert_array_equal(found[0], image[16:25, 26:35])
    assert found[1][4, 4] == image[0, 63]


def test_random_images_have_the_given_spectrum(xp: Any) -> None:
    matcher = Matcher(xp.asarray(noise((64, 64))), 8)
    template, _ = template_and_window(matcher)
    white = np.random.default_rng(5).normal(size=matcher.padded.shape).astype(np.float32)
    transform = np.fft.rfft2(white)
    transform = xp.asarray((transform / np.abs(transform)).astype(np.complex64)) * xp.abs(matcher.transform)
    same = np.asarray(matcher.correlate_transform(transform, template))
    original = np.asarray(matcher.correlate(template))
    assert same.std() == pytest.approx(original.std(), rel=0.2)
    assert abs(np.corrcoef(same.ravel(), original.ravel())[0, 1]) < 0.3


def test_a_template_without_symmetry_is_found_where_it_is_and_not_mirrored(xp: Any) -> None:
    stamp = np.zeros((5, 7), dtype=np.float32)
    stamp[1, 1], stamp[2, 5], stamp[4, 2] = 1.0, 2.0, -1.5
    image = np.zeros((40, 50), dtype=np.float32)
    image[20:25, 30:37] = stamp
    matcher = Matcher(xp.asarray(image), 8)
    score = np.asarray(matcher.correlate(matcher.placed(stamp)))
    assert np.unravel_index(np.argmax(score), score.shape) == (22, 33)
    assert score.max() == pytest.approx(float((stamp**2).sum()), rel=1e-4)
