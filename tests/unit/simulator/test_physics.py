"""The simulated microscope obeys the physics and signs of docs/conventions.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.fft
import scipy.ndimage
import scipy.stats

from frazil.model.ctf import Ctf
from frazil.simulator import SimulationParameters, session_camera, simulate_movie, simulate_scene
from frazil.simulator.atoms import Atoms, load_atoms
from frazil.simulator.camera import poisson
from frazil.simulator.motion import SpecimenMotion
from frazil.simulator.potential import interaction_constant, orientation_matrix, potential_volume, project
from frazil.simulator.scene import Renderer, Scene, contrast_transfer

SMALL = SimulationParameters(
    width_px=320, height_px=256, frame_count=6, particles_per_movie=5, particle="chain", pixel_size_angstrom=2.0,
    contaminants_per_movie=0.0, defocus_min_angstrom=12_000, defocus_max_angstrom=16_000, fragment_fraction=0.0,
)  # fmt: skip
STILL = replace(SMALL, motion_angstrom=0.0, local_motion_angstrom=0.0, ice_noise=0.0, ice_gradient=0.0)


def one_atom(x: float, y: float, z: float) -> Atoms:
    return Atoms(np.array([[x, y, z]], np.float32), np.array([6], np.uint8), 60.0)


def centroid(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    y, x = np.indices(image.shape)
    return np.asarray(np.array([(x * image).sum(), (y * image).sum()]) / image.sum())


def test_interaction_constant() -> None:
    assert interaction_constant(300.0) == pytest.approx(6.526e-4, rel=1e-3)  # Kirkland's table
    assert interaction_constant(200.0) == pytest.approx(7.288e-4, rel=1e-3)


def test_an_atom_appears_at_the_first_two_components_of_its_rotated_place() -> None:
    place = np.array([14.0, -9.0, 5.0])
    for angles in [(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (20.0, 70.0, -40.0), (-110.0, 140.0, 75.0)]:
        rot, tilt, psi = np.deg2rad(angles)
        # A r worked out turn by turn: rot about z, tilt about y, psi about z, each turning the axes, not the particle
        x, y, z = place
        x, y = x * np.cos(rot) + y * np.sin(rot), -x * np.sin(rot) + y * np.cos(rot)
        x, z = x * np.cos(tilt) - z * np.sin(tilt), x * np.sin(tilt) + z * np.cos(tilt)
        x, y = x * np.cos(psi) + y * np.sin(psi), -x * np.sin(psi) + y * np.cos(psi)
        image = project(one_atom(*place), orientation_matrix(*angles), (32.25, 31.5), 64, 1.0)
        np.testing.assert_allclose(centroid(image), [32.25 + x, 31.5 + y], atol=0.02)


def test_a_projection_is_the_gaussian_of_its_b_factor() -> None:
    atom = one_atom(0.3, -0.6, 0.0)
    image = project(atom, np.eye(3), (16.0, 16.0), 32, 0.8)
    y, x = (np.indices((32, 32)) - 16) * 0.8
    variance = 60.0 / (8.0 * np.pi**2)
    strength = 58.0 * 6 / 6.7
    expected = strength / (2 * np.pi * variance) * np.exp(-((x - 0.3) ** 2 + (y + 0.6) ** 2) / (2 * variance))
    np.testing.assert_allclose(image, expected, atol=0.02 * expected.max())


def test_the_volume_projects_to_the_projection() -> None:
    atoms = load_atoms("chain")
    volume = potential_volume(atoms, 96, 2.0)
    image = project(atoms, np.eye(3), (48.0, 48.0), 96, 2.0)
    np.testing.assert_allclose(volume.sum(axis=0) * 2.0, image, atol=1e-3 * image.max())
    sideways = project(atoms, orientation_matrix(0.0, 90.0, 0.0), (48.0, 48.0), 96, 2.0)  # x of the image is -z
    along_x = volume.sum(axis=2).T * 2.0  # (y, z)
    np.testing.assert_allclose(np.roll(along_x[:, ::-1], 1, axis=1), sideways, atol=1e-2 * image.max())


def test_octahedron_is_symmetric_and_chain_is_not() -> None:
    for name, symmetric in (("octahedron", True), ("chain", False)):
        atoms = load_atoms(name)
        original = project(atoms, np.eye(3), (48.0, 48.0), 96, 2.0)
        turned = project(atoms, orientation_matrix(90.0, 0.0, 0.0), (48.0, 48.0), 96, 2.0)
        difference = np.abs(original - turned).max() / original.max()
        assert (difference < 0.03) == symmetric


def test_ctf_against_the_formula() -> None:
    ctf = Ctf(defocus_u_angstrom=15_000.0, defocus_v_angstrom=13_000.0, defocus_angle_degrees=35.0, phase_shift_degrees=20.0)
    s, angle = 0.11, np.deg2rad(80.0)
    got = contrast_transfer(ctf, SMALL, np.float64(s * np.cos(angle)), np.float64(s * np.sin(angle)))
    defocus = 14_000.0 + 1_000.0 * np.cos(2.0 * np.deg2rad(80.0 - 35.0))
    wavelength = 0.0196876
    chi = np.pi * wavelength * s**2 * (defocus - 0.5 * wavelength**2 * s**2 * 2.7e7) + np.deg2rad(20.0) + np.arcsin(0.1)
    assert float(got) == pytest.approx(np.sin(chi), abs=1e-3)


@pytest.mark.parametrize("mean", [0.05, 0.9, 3.9, 20.0])
def test_counts_are_poisson(mean: float) -> None:
    rng = np.random.Generator(np.random.SFC64(3))
    counts = poisson(np.full(400_000, mean, np.float32), rng)
    expected = scipy.stats.poisson.pmf(np.arange(counts.max() + 1), mean) * counts.size
    seen = np.bincount(counts)
    likely = expected > 10
    chi2 = ((seen - expected)[likely] ** 2 / expected[likely]).sum()
    assert chi2 < scipy.stats.chi2.ppf(0.9999, likely.sum())
    assert counts.max() < mean + 8 * np.sqrt(mean) + 6


def test_corrected_counts_have_the_expected_mean() -> None:
    parameters = replace(SMALL, frame_count=60, particles_per_movie=0, motion_angstrom=0.0, ice_noise=0.0, ice_gradient=0.0)
    movie, camera = simulate_movie(parameters, 0), session_camera(parameters)
    corrected = movie.frames.mean(axis=0) * camera.gain
    good = np.ones(corrected.shape, bool)
    good.reshape(-1)[camera.hot_index] = False
    good &= camera.sensitivity > 0
    assert np.std(camera.gain[good]) > 0.03  # there is something to correct
    expected = parameters.electrons_per_px
    assert corrected[good].mean() == pytest.approx(expected, rel=2e-3)
    # what remains is shot noise: no trace of the gain
    assert np.corrcoef(corrected[good], camera.gain[good])[0, 1] == pytest.approx(0.0, abs=0.02)
    assert np.corrcoef(movie.frames.mean(axis=0)[good], camera.gain[good])[0, 1] < -0.15
    assert corrected[good].var() == pytest.approx(expected / 60, rel=0.05)


def test_dead_hot_and_defect_pixels() -> None:
    movie, camera = simulate_movie(SMALL, 0), session_camera(SMALL)
    total = movie.frames.sum(axis=0, dtype=np.int64)
    assert (camera.gain == 0).sum() == SMALL.dead_pixel_count
    assert (total[camera.gain == 0] == 0).all()
    assert (total.reshape(-1)[camera.hot_index] > 4 * np.median(total)).all()
    (x, y, width, height) = camera.defect_boxes[0]
    inside = np.zeros(total.shape, bool)
    inside[y : y + height, x : x + width] = True
    inside.reshape(-1)[camera.hot_index] = False
    assert (total[inside] == 0).all()
    assert (camera.gain[inside] > 0).mean() > 0.9  # only the defect file tells of it


def displaced(scene: Scene, drift: list[tuple[float, float]], field: npt.NDArray[Any] | None = None) -> Scene:
    """The same scene with a motion of our choice, in px."""
    still = np.zeros((2, 5)) if field is None else field
    return replace_scene(scene, SpecimenMotion(np.array(drift), np.linspace(0, 1, len(drift)), still))


def replace_scene(scene: Scene, motion: SpecimenMotion) -> Scene:
    return Scene(scene.parameters, scene.ctf, motion, scene.particles, scene.projections, scene.ice, scene.illumination)


def best_shift(reference: npt.NDArray[Any], image: npt.NDArray[Any]) -> tuple[float, float]:
    """Displacement (x, y) of `image` with respect to `reference`, from a plane fitted to the cross-spectrum's phase."""
    window = np.outer(np.hanning(reference.shape[0]), np.hanning(reference.shape[1]))
    a, b = (scipy.fft.rfft2((i - i.mean()) * window) for i in (reference, image))
    ky, kx = np.meshgrid(scipy.fft.fftfreq(a.shape[0]), scipy.fft.rfftfreq(reference.shape[1]), indexing="ij")
    cross = b * np.conj(a)
    low = (np.hypot(kx, ky) < 0.06) & (np.hypot(kx, ky) > 0)
    weight = np.abs(cross[low])
    system = -2 * np.pi * np.stack([kx[low], ky[low]], axis=1) * weight[:, None]
    solution = np.linalg.lstsq(system, np.angle(cross[low]) * weight, rcond=None)[0]
    return float(solution[0]), float(solution[1])


def test_drift_moves_the_image_and_the_truth_is_the_shift_to_apply() -> None:
    scene = displaced(simulate_scene(STILL, 0), [(0.0, 0.0), (1.6, -0.7)])
    renderer = Renderer(scene)
    first, second = renderer.expected(0, damaged=False), renderer.expected(1, damaged=False)
    x, y = best_shift(first, second)
    assert (x, y) == pytest.approx((1.6, -0.7), abs=0.06)
    movie = simulate_movie(SMALL, 1)
    drift = simulate_scene(SMALL, 1).motion.drift
    assert movie.motion.shift_x_px[0] == movie.motion.shift_y_px[0] == 0.0
    np.testing.assert_allclose(movie.motion.shift_x_px, drift[0, 0] - drift[:, 0])
    np.testing.assert_allclose(movie.motion.shift_y_px, drift[0, 1] - drift[:, 1])


def test_a_whole_pixel_of_drift_is_exact() -> None:
    scene = displaced(simulate_scene(STILL, 0), [(0.0, 0.0), (3.0, -2.0)])
    renderer = Renderer(scene)
    first, second = renderer.expected(0, damaged=False), renderer.expected(1, damaged=False)
    np.testing.assert_allclose(second[:-2, 3:], first[2:, :-3], atol=1e-3)


def test_local_motion_moves_each_particle_by_its_own() -> None:
    one = replace(STILL, particles_per_movie=1)
    scene = simulate_scene(one, 0)
    field = np.array([[3.0, 0.0, 0.0, 0.0, 0.0], [0.0, -4.0, 0.0, 0.0, 0.0]])
    scene.particles["coordinate_x_px"] += 200.0 - np.round(scene.particles["coordinate_x_px"])
    scene.particles["coordinate_y_px"] += 90.0 - np.round(scene.particles["coordinate_y_px"])
    renderer = Renderer(displaced(scene, [(0.0, 0.0), (0.5, 0.0)], field))
    expected = scene.places()[0] * [3.0, -4.0] + [0.5, 0.0]
    moved = best_shift(renderer.expected(0, damaged=False), renderer.expected(1, damaged=False))
    assert moved == pytest.approx(tuple(expected), abs=0.06)


def test_radiation_damage_takes_the_fine_detail() -> None:
    scene = simulate_scene(replace(STILL, frame_count=40), 0)
    renderer = Renderer(scene)
    window = np.outer(np.hanning(256), np.hanning(320))
    damaged, intact = (
        np.abs(scipy.fft.rfft2((renderer.expected(30, damaged=damage) - STILL.electrons_per_px) * window))
        for damage in (True, False)
    )
    s = np.hypot(scipy.fft.fftfreq(256)[:, None], scipy.fft.rfftfreq(320)) / 2.0
    dose = 30.5 * STILL.dose_per_frame_e_per_angstrom2
    for at in (0.04, 0.1):
        ring = np.abs(s - at) < 0.002
        expected = np.exp(-0.5 * dose / (0.24499 * at**-1.6649 + 2.8141))
        assert damaged[ring].sum() / intact[ring].sum() == pytest.approx(expected, rel=0.03)


def phase_flipped(image: npt.NDArray[Any], ctf: Ctf, parameters: SimulationParameters) -> npt.NDArray[Any]:
    """Correct the sign of the CTF; what is dark protein stays dark."""
    sy = scipy.fft.fftfreq(image.shape[0])[:, None] / parameters.pixel_size_angstrom
    sx = scipy.fft.rfftfreq(image.shape[1])[None] / parameters.pixel_size_angstrom
    corrected = scipy.fft.rfft2(image - image.mean()) * contrast_transfer(ctf, parameters, sx, sy)
    return np.asarray(scipy.fft.irfft2(corrected, s=image.shape))


def test_protein_is_dark_and_lies_where_the_truth_says() -> None:
    parameters = replace(SMALL, motion_angstrom=0.0, local_motion_angstrom=0.0, frame_count=20, contrast=0.6)
    movie = simulate_movie(parameters, 2)
    total = movie.frames.sum(axis=0) * session_camera(parameters).gain
    total = np.clip(total, *np.percentile(total, [0.5, 99.5]))
    corrected = scipy.ndimage.gaussian_filter(phase_flipped(total, movie.ctf, parameters), 3.0)
    drawn = np.zeros((400, 500), np.float32)  # true projections, white, at the true places; 100 px around for overhang
    for particle in movie.particles:
        angles = [float(particle[f"{name}_degrees"]) for name in ("rot", "tilt", "psi")]
        corner = np.floor([particle["coordinate_y_px"], particle["coordinate_x_px"]]).astype(int) + 100 - 48
        centre = (48 + float(particle["coordinate_x_px"] % 1), 48 + float(particle["coordinate_y_px"] % 1))
        image = project(load_atoms("chain"), orientation_matrix(*angles), centre, 96, parameters.pixel_size_angstrom)
        drawn[corner[0] : corner[0] + 96, corner[1] : corner[1] + 96] += image
    drawn = drawn[100:356, 100:420]
    assert len(movie.particles) >= 3
    darkness = np.corrcoef(corrected.ravel(), drawn.ravel())[0, 1]
    assert darkness < -0.12  # the filter leaves some 80,000 / 36 independent pixels: chance is +-0.02
    for moved in (drawn[::-1], drawn[:, ::-1], np.roll(drawn, 25, axis=1)):
        assert np.corrcoef(corrected.ravel(), moved.ravel())[0, 1] > 0.4 * darkness


def test_particles_correlate_best_at_their_true_place() -> None:
    scene = simulate_scene(STILL, 3)
    image = phase_flipped(Renderer(scene).expected(0, damaged=False), scene.ctf, STILL)
    atoms = load_atoms("chain")
    inside = (np.abs(scene.places()) < 0.35).all(axis=1)
    assert inside.any()
    for particle in scene.particles[inside]:
        angles = [float(particle[f"{name}_degrees"]) for name in ("rot", "tilt", "psi")]
        template = project(atoms, orientation_matrix(*angles), (40.0, 40.0), 80, STILL.pixel_size_angstrom)
        padded = np.zeros(image.shape, np.float32)
        padded[:80, :80] = -(template - template.mean())
        correlation = scipy.fft.irfft2(scipy.fft.rfft2(image) * np.conj(scipy.fft.rfft2(padded)), s=image.shape)
        x, y = particle["coordinate_x_px"] - 40, particle["coordinate_y_px"] - 40
        near = correlation[round(y) - 6 : round(y) + 7, round(x) - 6 : round(x) + 7]
        row, column = np.unravel_index(near.argmax(), near.shape)
        assert abs(row - 6 + round(y) - y) <= 1.0
        assert abs(column - 6 + round(x) - x) <= 1.0


def test_the_wrong_orientation_fits_worse() -> None:
    """Angles in the truth are those of the image: the transposed matrix and the negative angle fit worse."""
    scene = simulate_scene(replace(STILL, particles_per_movie=1), 1)
    (rot, tilt, psi) = (float(scene.particles[0][f"{name}_degrees"]) for name in ("rot", "tilt", "psi"))
    box = scene.projections.shape[1]
    centre = tuple(box // 2 + float(scene.particles[0][f"coordinate_{axis}_px"] % 1) for axis in "xy")

    def fit(matrix: npt.NDArray[np.float64]) -> float:
        image = project(load_atoms("chain"), matrix, (centre[0], centre[1]), box, 2.0)
        return float(np.corrcoef(image.ravel(), scene.projections[0].ravel())[0, 1])

    assert fit(orientation_matrix(rot, tilt, psi)) > 0.9999
    for wrong in (
        orientation_matrix(rot, tilt, -psi),
        orientation_matrix(psi, tilt, rot),
        orientation_matrix(rot, tilt, psi).T,
    ):
        assert fit(wrong) < 0.97


def test_movies_are_the_same_every_time_and_differ_from_each_other() -> None:
    first, again, other = simulate_movie(SMALL, 4), simulate_movie(SMALL, 4), simulate_movie(SMALL, 5)
    np.testing.assert_array_equal(first.frames, again.frames)
    assert (first.frames != other.frames).mean() > 0.5
    assert first.ctf != other.ctf
    assert (simulate_movie(replace(SMALL, seed=2), 4).frames != first.frames).mean() > 0.5


def test_particles_keep_their_distance() -> None:
    parameters = replace(SMALL, width_px=1200, height_px=900, particles_per_movie=60, overlap_fraction=0.0)
    particles = simulate_scene(parameters, 0).particles
    assert 45 <= len(particles) <= 70
    xy = np.stack([particles["coordinate_x_px"], particles["coordinate_y_px"]], axis=1)
    distance = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(xy))
    assert distance.min() > load_atoms("chain").diameter_angstrom / 2.0
    outside = (xy < 0) | (xy > [1200, 900])
    assert outside.any()  # some are cut by the edge


def test_local_motion_carries_the_ice() -> None:
    """Without particles: corners of the field move by what the motion says of them, and apart from each other."""
    scene = simulate_scene(replace(STILL, particles_per_movie=0, ice_noise=3.0), 0)
    field = np.array([[3.0, 0.0, 2.0, 0.0, 0.0], [0.0, -4.0, 0.0, 0.0, 3.0]])
    moving = displaced(scene, [(0.0, 0.0), (0.5, 0.0)], field)
    renderer = Renderer(moving)
    before, after = (renderer.expected(frame, damaged=False) for frame in (0, 1))
    size = 96
    for top, left in ((0, 0), (0, 320 - size), (256 - size, 0), (256 - size, 320 - size)):
        place = np.array([[(left + size / 2) / 320 - 0.5, (top + size / 2) / 256 - 0.5]])
        expected = moving.motion.local(place, 1)[0] + [0.5, 0.0]
        assert np.hypot(*expected) > 0.5
        window = (slice(top, top + size), slice(left, left + size))
        assert best_shift(before[window], after[window]) == pytest.approx(tuple(expected), abs=0.2)
