"""Slices against analytic transforms and brute-force sums; insertion as their adjoint."""

import numpy as np
import pytest

from frazil.kernels.slices import (
    complete_plane,
    insert_slices,
    symmetrise_cubes,
    take_slices,
    take_slices_standard,
)
from frazil.primitives.rotations import random_matrices
from frazil.primitives.symmetry import symmetry
from frazil.primitives.volumes import PADDING, cube_radius, cube_to_volume, low_pass, reach_of, volume_to_cube

SIZE, RADIUS = 24, 9.0
PLACES = np.array([[3.0, -2.0, 1.5], [-4.0, 1.0, 2.0], [0.5, 3.5, -3.0]])  # x, y, z in voxels from the centre
WEIGHTS = np.array([1.0, 0.7, 1.3])
SIGMA = 1.4


def plane() -> tuple[np.ndarray, np.ndarray]:
    ky, kx = np.meshgrid(np.arange(-9.0, 10), np.arange(10.0), indexing="ij")
    inside = (np.hypot(kx, ky) <= RADIUS) & ((kx > 0) | (ky > 0))
    return kx[inside], ky[inside]


def gaussians(places: np.ndarray = PLACES, weights: np.ndarray = WEIGHTS) -> np.ndarray:
    z, y, x = np.mgrid[:SIZE, :SIZE, :SIZE] - SIZE // 2
    r2 = [(x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2 for p in places]
    return sum(w * np.exp(-d / (2 * SIGMA**2)) for w, d in zip(weights, r2, strict=True))


def random_cube(seed: int) -> np.ndarray:
    random, reach = np.random.default_rng(seed), reach_of(RADIUS)
    shape = (2 * reach + 1, 2 * reach + 1, reach + 1)
    return random.normal(size=shape) + 1j * random.normal(size=shape)


def test_a_slice_is_the_transform_of_the_projection_along_the_third_row():
    """Density at r appears at the first two components of A r: the transform of the analytic projection says so."""
    kx, ky = plane()
    matrices = random_matrices(6, np.random.default_rng(3))
    slices = take_slices(volume_to_cube(gaussians(), RADIUS), kx, ky, matrices, PADDING)
    at = np.einsum("rij,pj->rpi", matrices, PLACES)[:, :, :2] / SIZE
    phase = np.exp(-2j * np.pi * (at[..., 0, None] * kx + at[..., 1, None] * ky))
    envelope = (2 * np.pi * SIGMA**2) ** 1.5 * np.exp(-2 * np.pi**2 * SIGMA**2 * (kx**2 + ky**2) / SIZE**2)
    truth = (WEIGHTS[None, :, None] * phase).sum(axis=1) * envelope
    assert np.linalg.norm(slices - truth) < 0.015 * np.linalg.norm(truth)  # algorithms 9.3: 1.2 %


def test_a_slice_agrees_with_a_brute_force_transform_of_any_volume():
    kx, ky = (k[::7] for k in plane())
    z, y, x = np.mgrid[:SIZE, :SIZE, :SIZE] - SIZE // 2
    volume = np.random.default_rng(4).normal(size=(SIZE,) * 3) * (x**2 + y**2 + z**2 < (SIZE / 3) ** 2)
    matrices = random_matrices(3, np.random.default_rng(5))
    points = np.einsum("rij,ri->rj", np.repeat(matrices, kx.size, axis=0)[:, :2], np.tile(np.stack([kx, ky], 1), (3, 1)))
    phase = points @ np.stack([x, y, z]).reshape(3, -1) / SIZE
    truth = (np.exp(-2j * np.pi * phase) @ volume.ravel()).reshape(3, -1)
    slices = take_slices(volume_to_cube(volume, RADIUS), kx, ky, matrices, PADDING)
    assert np.linalg.norm(slices - truth) < 0.03 * np.linalg.norm(truth)


def test_insertion_is_the_adjoint_of_taking():
    kx, ky = plane()
    random = np.random.default_rng(6)
    matrices = random_matrices(5, random)
    cube = random_cube(7)
    values = random.normal(size=(5, kx.size)) + 1j * random.normal(size=(5, kx.size))
    numerator, denominator = np.zeros_like(cube), np.zeros(cube.shape)
    insert_slices(numerator, denominator, values, np.abs(values), kx, ky, matrices, PADDING)
    taken = take_slices(cube, kx, ky, matrices, PADDING)
    assert np.vdot(values, taken).real == pytest.approx(np.vdot(numerator, cube).real, rel=1e-12)
    weights = take_slices(np.abs(cube) + 0j, kx, ky, matrices, PADDING).real
    assert np.vdot(np.abs(values), weights) == pytest.approx(np.vdot(denominator, np.abs(cube)), rel=1e-12)


def test_compiled_and_standard_slices_agree():
    import array_api_strict as xp

    kx, ky = plane()
    matrices, cube = random_matrices(4, np.random.default_rng(8)), random_cube(9)
    taken = take_slices(cube, kx, ky, matrices, PADDING)
    strict = [xp.asarray(a) for a in (cube, kx, ky, matrices)]
    np.testing.assert_allclose(np.asarray(take_slices_standard(*strict, PADDING)), taken, atol=1e-12)
    sums = [np.zeros_like(cube), np.zeros(cube.shape)]
    insert_slices(*sums, taken, np.abs(taken), kx, ky, matrices, PADDING)
    strict_sums = [xp.zeros(cube.shape, dtype=xp.complex128), xp.zeros(cube.shape, dtype=xp.float64)]
    insert_slices(*strict_sums, xp.asarray(taken), xp.asarray(np.abs(taken)), *strict[1:], PADDING)
    for ours, theirs in zip(sums, strict_sums, strict=True):
        np.testing.assert_allclose(np.asarray(theirs), ours, atol=1e-12)


def test_slices_up_to_nyquist_read_nothing_beyond_the_cube():
    """At the largest radius every neighbour that is read lies within the array."""
    radius = SIZE / 2 - 1e-3
    cube = volume_to_cube(gaussians(), radius)
    assert cube.shape == (2 * reach_of(radius) + 1,) * 2 + (reach_of(radius) + 1,)
    assert int(PADDING * radius) + 1 < cube.shape[2]


def test_known_poses_reconstruct_the_volume():
    """Slices inserted with unit weights and divided by their coverage are the volume again."""
    kx, ky = plane()
    matrices = random_matrices(1500, np.random.default_rng(10))
    volume = gaussians()
    values = take_slices(volume_to_cube(volume, RADIUS), kx, ky, matrices, PADDING)
    numerator = np.zeros_like(volume_to_cube(volume, RADIUS))
    denominator = np.zeros(numerator.shape)
    insert_slices(numerator, denominator, values, np.ones(values.shape), kx, ky, matrices, PADDING)
    numerator, denominator = complete_plane(numerator), complete_plane(denominator)
    covered = denominator > 0.5
    cube = np.where(covered, numerator / np.where(covered, denominator, 1), 0)
    truth = volume_to_cube(volume, RADIUS)
    inside = (cube_radius(cube) < 8) & (cube_radius(cube) > 1)
    assert covered[inside].mean() > 0.999
    cross = np.vdot(cube[inside], truth[inside]).real
    assert cross / (np.linalg.norm(cube[inside]) * np.linalg.norm(truth[inside])) > 0.995
    truth_volume = low_pass(volume, RADIUS, 0)
    back = low_pass(cube_to_volume(cube, SIZE), RADIUS, 0)
    assert np.abs(back - truth_volume).max() < 0.03 * volume.max()


@pytest.mark.parametrize(("name", "tolerance"), [("O", 1e-5), ("D2", 1e-5), ("C5", 0.03), ("I2", 0.03)])
def test_symmetrised_cubes_belong_to_symmetrised_volumes(name, tolerance):
    """Turning the Gaussians' places by every operator is the oracle."""
    operators = symmetry(name).operators
    cube = volume_to_cube(gaussians(), RADIUS)
    total, coverage = symmetrise_cubes(cube, np.ones(cube.shape), operators, PADDING * RADIUS)
    turned = np.einsum("gij,pj->gpi", operators, PLACES).reshape(-1, 3)
    truth = volume_to_cube(gaussians(turned, np.tile(WEIGHTS, len(operators))), RADIUS)
    inside = cube_radius(cube) < RADIUS
    assert np.linalg.norm((total - truth)[inside]) < tolerance * np.linalg.norm(truth[inside])
    np.testing.assert_allclose(coverage[inside], len(operators), rtol=1e-5)
