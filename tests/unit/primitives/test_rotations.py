import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from frazil.primitives.rotations import (
    angles_between,
    ball_of_turns,
    directions_to_matrices,
    euler_to_matrix,
    from_rotation_vectors,
    matrix_to_euler_degrees,
    random_matrices,
    sphere_points,
)
from frazil.primitives.symmetry import symmetry
from frazil.simulator.potential import orientation_matrix


def test_euler_angles_mean_what_the_simulator_and_relion_mean():
    for rot, tilt, psi in ((10, 20, 30), (-170, 95, 140), (33, 0, 0), (200, 180, 5)):
        matrix = euler_to_matrix(*np.deg2rad([rot, tilt, psi]))
        np.testing.assert_allclose(matrix, orientation_matrix(rot, tilt, psi), atol=1e-12)


def test_euler_angles_of_a_matrix_give_the_matrix_back_poles_included():
    matrices = np.concatenate([random_matrices(200, np.random.default_rng(0)), symmetry("O").operators])
    angles = matrix_to_euler_degrees(matrices)
    np.testing.assert_allclose(euler_to_matrix(*np.deg2rad(angles).T), matrices, atol=1e-7)


def test_rotation_vectors_turn_as_scipy_says():
    vectors = np.concatenate([np.random.default_rng(1).normal(size=(50, 3)), np.zeros((1, 3)), [[np.pi, 0, 0]]])
    np.testing.assert_allclose(from_rotation_vectors(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_a_ball_of_turns_is_a_lattice_around_the_identity():
    assert [len(ball_of_turns(0.05, reach)) for reach in (0, 1, 2)] == [1, 19, 57]
    angles = angles_between(ball_of_turns(0.05, 1), np.eye(3))
    assert sorted(np.round(angles / np.rad2deg(0.05), 3)) == [0.0] + [1.0] * 6 + [1.414] * 12


def test_grids_cover_the_sphere_evenly():
    points = sphere_points(768)
    nearest = np.sort(points @ points.T, axis=1)[:, -2]
    spacing = np.rad2deg(np.arccos(nearest))
    assert np.rad2deg(np.sqrt(4 * np.pi / 768)) == pytest.approx(7.3, abs=0.1)  # of a square lattice of as many points
    assert spacing.min() > 5
    assert spacing.max() < 9
    matrices = directions_to_matrices(points, np.array([0.0, 1.0]))
    np.testing.assert_allclose(matrices[::2, 2], points, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrices), 1)


def test_angles_are_taken_to_the_nearest_mate():
    operators = symmetry("D3").operators
    pose = random_matrices(1, np.random.default_rng(2))[0]
    turned = from_rotation_vectors(np.deg2rad([[0, 2.0, 0]]))[0] @ pose
    assert angles_between(turned, pose) == pytest.approx(2.0)
    np.testing.assert_allclose(angles_between(turned @ operators, pose, operators), 2.0, atol=1e-6)
