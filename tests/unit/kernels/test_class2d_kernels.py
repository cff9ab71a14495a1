"""The 2D classification kernels against their plain numpy twins, and the twins against what they must mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.array import to_host
from frazil.kernels.class2d_products import accumulate, as_complex, as_real, contiguous, multiply
from frazil.kernels.posterior import posterior, posterior_twin
from frazil.kernels.sample import sample_rotated, sample_rotated_twin
from frazil.kernels.scatter import Rows, scatter_rotated, scatter_rotated_twin

PRECISIONS = [(np.float32, np.complex64, 3e-5), (np.float64, np.complex128, 1e-12)]
PADDING = 2


def half_plane(limit: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    pairs = [
        (x, y)
        for x in range(limit + 1)
        for y in range(-limit, limit + 1)
        if (x > 0 or y > 0) and x * x + y * y <= limit * limit
    ]
    kx, ky = np.array(pairs, dtype).T
    return np.ascontiguousarray(kx), np.ascontiguousarray(ky)


def hermitian(random: np.random.Generator, count: int, size: int) -> np.ndarray:
    images = random.normal(size=(count, size, size))
    return np.fft.fftshift(np.fft.fft2(images), axes=(1, 2))


@pytest.mark.parametrize(("real", "complex_type", "tolerance"), PRECISIONS)
def test_rotated_samples_equal_their_twin(xp: Any, real: Any, complex_type: Any, tolerance: float) -> None:
    random = np.random.default_rng(1)
    grids = hermitian(random, 3, 32).astype(complex_type)
    kx, ky = half_plane(6, real)
    angles = random.uniform(0, 2 * np.pi, 5)
    found = sample_rotated(xp.asarray(grids), xp.asarray(kx), xp.asarray(ky), angles, PADDING)
    expected = sample_rotated_twin(grids, kx, ky, angles, PADDING)
    assert to_host(found).dtype == complex_type
    np.testing.assert_allclose(to_host(found), expected, atol=tolerance * abs(expected).max())


def test_a_turned_reference_shows_its_density_at_the_rotated_place() -> None:
    """A r, A = [[cos, sin], [-sin, cos]]: a Gaussian at (x, y) = (5, 1) turned by 30 degrees; transforms are analytic."""
    size, box, place, psi = 64, 32, np.array([2.5, 0.5]), np.deg2rad(30)
    frequency = (np.arange(size) - size // 2) / PADDING

    def transform(kx: np.ndarray, ky: np.ndarray, at: np.ndarray) -> np.ndarray:
        phase = np.exp(-2j * np.pi * (kx * at[0] + ky * at[1]) / box)
        return np.exp(-2 * np.pi**2 * 1.5**2 * (kx**2 + ky**2) / box**2) * phase

    grid = transform(frequency[None, :], frequency[:, None], place)[None]
    kx, ky = half_plane(8, np.float64)
    rotation = np.array([[np.cos(psi), np.sin(psi)], [-np.sin(psi), np.cos(psi)]])
    found = sample_rotated(grid, kx, ky, np.array([psi]), PADDING)[0, 0]
    expected = transform(kx, ky, rotation @ place)
    assert abs(found - expected).max() < 0.02  # bilinear interpolation


@pytest.mark.parametrize(("real", "complex_type", "tolerance"), PRECISIONS)
def test_scattering_equals_its_twin_and_skips_negative_targets(xp: Any, real: Any, complex_type: Any, tolerance: float) -> None:
    random = np.random.default_rng(2)
    kx, ky = half_plane(6, real)
    values = (random.normal(size=(8, kx.size)) + 1j * random.normal(size=(8, kx.size))).astype(complex_type)
    weights = random.random((8, kx.size)).astype(real)
    angles, target = random.uniform(0, 2 * np.pi, 8), np.array([0, 1, 2, -1, 1, 1, 0, 2])
    rows = Rows(xp.asarray(values), xp.asarray(weights), angles, target)
    found = scatter_rotated(rows, xp.asarray(kx), xp.asarray(ky), (3, 32), PADDING)
    kept = target >= 0
    expected = scatter_rotated_twin(Rows(values[kept], weights[kept], angles[kept], target[kept]), kx, ky, (3, 32), PADDING)
    for one, other in zip(found, expected, strict=True):
        assert to_host(one).dtype == other.dtype
        np.testing.assert_allclose(to_host(one), other, atol=tolerance * abs(other).max())


def test_scattering_is_the_adjoint_of_sampling() -> None:
    """<scatter v, g> over the whole plane is twice the real part of <v, sample g> over the half plane, for Hermitian g."""
    random = np.random.default_rng(3)
    grids = hermitian(random, 2, 32)
    kx, ky = half_plane(6, np.float64)
    angles = random.uniform(0, 2 * np.pi, 4)
    values = random.normal(size=(2, 4, kx.size)) + 1j * random.normal(size=(2, 4, kx.size))
    rows = Rows(values.reshape(8, -1), np.ones((8, kx.size)), np.tile(angles, 2), np.repeat(np.arange(2), 4).astype(np.int64))
    numerator, denominator = scatter_rotated(rows, kx, ky, (2, 32), PADDING)
    sampled = sample_rotated(grids, kx, ky, angles, PADDING)
    assert np.isclose(np.vdot(grids, numerator).real, 2 * np.vdot(sampled, values).real)
    np.testing.assert_allclose(numerator[:, 1:, 1:], np.conj(numerator[:, :0:-1, :0:-1]), atol=1e-12)
    assert np.isclose(denominator.sum(), 2 * rows.weights.sum())


@pytest.mark.parametrize(("real", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_the_posterior_equals_the_formula_and_sums_to_one(xp: Any, real: Any, tolerance: float) -> None:
    random = np.random.default_rng(4)
    images, shifts, classes, angles = 4, 5, 6, 7
    cross = (4 * random.normal(size=(images, shifts, classes * angles))).astype(real)
    power = random.random((images, classes * angles)).astype(real)
    by_shift = random.normal(size=(images, shifts)).astype(real)
    by_class = random.normal(size=classes).astype(real)
    found = posterior(xp.asarray(cross.copy()), xp.asarray(power), xp.asarray(by_shift), xp.asarray(by_class), cutoff=60.0)
    value = cross.astype(float) - power[:, None] / 2 + by_shift[:, :, None] + np.repeat(by_class, angles)
    likelihood = np.exp(value)
    total = likelihood.sum(axis=(1, 2))
    weights = likelihood / total[:, None, None]
    np.testing.assert_allclose(to_host(found.weights), weights, atol=tolerance)
    np.testing.assert_allclose(to_host(found.weights).sum(axis=(1, 2)), 1, atol=tolerance)
    np.testing.assert_allclose(to_host(found.log_likelihood), np.log(total), atol=10 * tolerance)
    by_pose = weights.reshape(images, shifts, classes, angles)
    np.testing.assert_allclose(to_host(found.classes), by_pose.sum(axis=(1, 3)), atol=tolerance)
    for image, (winner, shift, angle) in enumerate(to_host(found.best)):
        assert winner == by_pose[image].sum(axis=(0, 2)).argmax()
        assert by_pose[image, shift, winner, angle] == by_pose[image, :, winner].max()


def test_hypotheses_below_the_cutoff_get_nothing() -> None:
    cross = np.array([[[10.0, 5.0, 9.5, -3.0]]])
    found = posterior(cross.copy(), np.zeros((1, 4)), np.zeros((1, 1)), np.zeros(2), cutoff=2.0)
    twin = posterior_twin(cross, np.zeros((1, 4)), np.zeros((1, 1)), np.zeros(2), cutoff=2.0)
    share = 1 / (1 + np.exp(-0.5))
    for result in (found, twin):
        np.testing.assert_allclose(result.weights[0, 0], [share, 0, 1 - share, 0])
        assert result.kept[0] == 2


@pytest.mark.parametrize("filled", [0.02, 0.9])
def test_accumulation_is_the_product_whether_sparse_or_dense(xp: Any, filled: float) -> None:
    random = np.random.default_rng(5)
    weights = random.random((12, 30)) * (random.random((12, 30)) < filled)
    rows, start = random.normal(size=(12, 8)), random.normal(size=(30, 8))
    found = accumulate(xp.asarray(start.copy()), xp.asarray(weights), xp.asarray(rows), int(np.count_nonzero(weights)))
    np.testing.assert_allclose(to_host(found), start + weights.T @ rows, atol=1e-12)


def test_the_product_of_real_rows_is_the_real_part_of_the_complex_product(xp: Any) -> None:
    random = np.random.default_rng(6)
    a, b = (random.normal(size=(n, 5)) + 1j * random.normal(size=(n, 5)) for n in (3, 4))
    rows, columns = as_real(xp.asarray(a)), contiguous(xp.matrix_transpose(as_real(xp.asarray(b))))
    product = multiply(rows, columns, xp.empty((8, 4), dtype=xp.float64))
    np.testing.assert_allclose(to_host(product), (a @ b.conj().T).real, atol=1e-12)
    np.testing.assert_allclose(to_host(as_complex(rows)), a)
