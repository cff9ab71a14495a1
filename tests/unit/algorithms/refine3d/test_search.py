"""The comparison of images with slices, against the sum that defines it; candidates and plans."""

import numpy as np
import pytest

from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.refine3d import maps
from frazil.algorithms.refine3d.candidates import grid_peaks, present_poses
from frazil.algorithms.refine3d.dense import compare, dense_posterior, make_bank
from frazil.algorithms.refine3d.layout import make_half_plane
from frazil.algorithms.refine3d.levels import Target, compare_around, settle
from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.schedule import Level, make_plan
from frazil.algorithms.refine3d.state import Kind
from frazil.algorithms.refine3d.tiles import Placement, make_tile
from frazil.kernels.orientations import distinct_best
from frazil.kernels.slices import take_slices_standard
from frazil.model.errors import InputError
from frazil.primitives.rotations import (
    angles_between,
    directions_to_matrices,
    from_rotation_vectors,
    random_matrices,
    sphere_points,
)
from frazil.primitives.volumes import soft_sphere
from unit.algorithms.phantom3d import BOX, PIXEL, blobs, simulate

RADIUS = 9.0


@pytest.fixture(scope="module")
def scene():
    """Six particles, their reference, and a tile centred on where they are."""
    phantom = simulate(blobs(), 6, snr=1.0, seed=1)
    plane = make_half_plane(BOX, PIXEL, 2 * PIXEL, np)
    images = ParticleImages(plane)
    images.append(phantom.blocks(6)[0])
    cube = maps.reference_cube(plane, phantom.volume * soft_sphere(BOX, 12, 3, np), 12.0)
    deviation = np.full(plane.count(12.0), 0.8, np.float32)
    shift = phantom.shift.astype(np.float32)
    placement = Placement(np.ones(6, np.float32), shift, shift)
    return phantom, plane, images, cube, deviation, make_tile(plane, images, np.arange(6), placement, deviation)


def defined_log_likelihood(scene, image, pose, shift):
    """-|x - C m|^2 / 2 sigma^2 over the half plane, relative to no particle, for content moved back by `shift` (Å) in all."""
    _, plane, images, cube, deviation, _ = scene
    count = plane.count(RADIUS)
    x, c = (a[0] for a in images.take(np.array([image]), count))
    kx, ky = plane.frequency_x[:count], plane.frequency_y[:count]
    m = take_slices_standard(cube, kx, ky, pose[None].astype(np.float32), 2)[0]
    moved = x * np.exp(2j * np.pi * (kx * shift[0] + ky * shift[1]) / plane.box_angstrom)
    return -(np.abs(moved - c * m) ** 2 - np.abs(moved) ** 2).sum() / (2 * deviation[0] ** 2)


def test_matrix_products_give_the_likelihood_that_is_defined(scene):
    phantom, plane, _, cube, deviation, tile = scene
    matrices = random_matrices(7, np.random.default_rng(2))
    shifts = np.array([[0, 0], [5, 0], [-3, 8]], np.float32)
    bank = make_bank(plane, [cube], deviation, matrices, shifts, plane.count(RADIUS))
    cross, power, _ = compare(plane, bank, tile)
    for image, shift, turn in ((0, 0, 0), (3, 1, 5), (5, 2, 6)):
        expected = defined_log_likelihood(scene, image, matrices[turn], phantom.shift[image] + shifts[shift])
        assert cross[image, shift, turn] - power[image, turn] / 2 == pytest.approx(expected, rel=2e-3, abs=0.02)


def test_levels_compare_as_the_products_do(scene):
    phantom, plane, _, cube, deviation, tile = scene
    target = Target(cube, deviation, None, None, 1e6)
    level = Level(0.05, RADIUS, np.array([[0, 0], [4, -4]], np.float32), 3, 10.0)
    scores = compare_around(plane, target, tile, present_poses(phantom.pose.astype(np.float32)), level)
    for row, shift, turn in ((0, 0, 9), (4, 1, 3)):
        expected = defined_log_likelihood(scene, row, scores.pose[row, turn], phantom.shift[row] + level.shifts[shift])
        assert scores.value[row, shift, turn] == pytest.approx(expected, rel=2e-3, abs=0.02)


def test_the_grid_finds_the_pose_and_the_last_level_refines_it(scene):
    """Particles of SNR 1: a peak of the 7.5 degree grid is near every true pose, and the true pose is the best of its ball."""
    phantom, plane, _, cube, deviation, tile = scene
    matrices = directions_to_matrices(sphere_points(768), np.arange(48) * 2 * np.pi / 48)
    bank = make_bank(plane, [cube], deviation, matrices, np.zeros((1, 2), np.float32), plane.count(RADIUS))
    peaks = grid_peaks(plane, bank, tile, 20.0, keep=4)
    error = angles_between(peaks.pose, phantom.pose[peaks.owner])
    assert all(error[peaks.owner == image].min() < 7 for image in range(6))
    apart = [angles_between(peaks.pose[i], peaks.pose[j]) for i in range(4) for j in range(i)]
    assert min(apart) > 6
    found, _ = dense_posterior(plane, bank, tile, 20.0)
    np.testing.assert_allclose(found.weights.sum(axis=(1, 2)), 1, rtol=1e-4)

    shape = cube.shape
    target = Target(cube, deviation, np.zeros(shape, np.complex64), np.zeros(shape, np.float32), 20.0)
    level = Level(np.deg2rad(4.0), 12.0, np.array([[0, 0]], np.float32), 1, 10.0)
    turned = from_rotation_vectors(np.tile(np.deg2rad([4.0, 0, 0]), (6, 1))) @ phantom.pose
    outcome, _ = settle(plane, target, tile, present_poses(turned.astype(np.float32)), level)
    assert np.median(angles_between(outcome.pose, phantom.pose)) < 1.0
    inserted = target.denominator.sum()
    ctf2 = (tile.ctf**2 / deviation**2).sum()
    assert inserted == pytest.approx(ctf2, rel=1e-3)  # each image's weights sum to one


def test_distinct_peaks_are_the_best_that_are_far_enough_apart():
    turns = np.deg2rad([0.0, 3.0, 10.0, 12.0, 40.0])
    pose = from_rotation_vectors(np.stack([turns, 0 * turns, 0 * turns], axis=1))
    score = np.array([5.0, 9.0, 7.0, 6.0, 1.0])
    rows = distinct_best(np.zeros(5, np.int64), score, pose, 8, 100.0, 6.0)
    assert rows.tolist() == [1, 2, 4]  # 0 is 3 degrees from 1, 3 is 2 degrees from 2
    assert distinct_best(np.zeros(5, np.int64), score, pose, 8, 5.0, 6.0).tolist() == [1, 2]
    assert distinct_best(np.array([0, 0, 1, 1, 1]), score, pose, 1, 100.0, 6.0).tolist() == [1, 2]


@pytest.mark.parametrize("kind", list(Kind))
def test_plans_grow_finer_and_never_compare_beyond_their_radius(kind):
    plane = make_half_plane(128, 1.5, 1.0, np)
    parameters = Refine3dParameters(particle_diameter_angstrom=120.0)
    for radius in (5.0, 20.0, 60.0):
        plan = make_plan(plane, parameters, kind, radius, settled=True)
        assert plan.insert_radius > radius or plan.insert_radius == plane.limit
        assert plan.grid_radius <= radius
        steps = [level.step_radians for level in plan.levels]
        assert steps == sorted(steps, reverse=True)
        if plan.levels:
            assert plan.levels[-1].radius == radius
            edge = 2 * np.pi * radius / plane.box_angstrom * 60 * steps[-1]  # phase at the particle's edge for one step
            assert edge == pytest.approx(1.0)
            assert max(level.radius for level in plan.levels) <= radius


def test_bad_parameters_and_boxes_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="particle_diameter_angstrom"):
        Refine3dParameters(particle_diameter_angstrom=0)
    with pytest.raises(InputError, match="first_images"):
        Refine3dParameters(particle_diameter_angstrom=100, first_images=0)
    with pytest.raises(InputError, match="even box"):
        make_half_plane(33, 1.0, 2.0, np)
