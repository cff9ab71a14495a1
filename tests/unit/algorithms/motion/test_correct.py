"""Motion correction as a whole, against known truth of independent simulations and analytic movies."""

from __future__ import annotations

import functools
import tracemalloc
from typing import Any

import numpy as np
import pytest

from frazil.algorithms.motion.correct import CorrectedMovie, MotionParameters, correct_movie, motion_record
from frazil.algorithms.motion.field import grid_places, whole_frame
from frazil.algorithms.motion.fit import MotionFit
from frazil.algorithms.motion.relion import relion_shifts
from frazil.array import to_host
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from unit.algorithms.motion.beads import GRID, Beads, field_error
from unit.algorithms.motion.simulated_movie import Scene, beam_induced_drift, expose, flow_at, local_flow, rms_error

Images = np.ndarray[Any, Any]


def optics_of(scene: Scene) -> Optics:
    return Optics(
        pixel_size_angstrom=scene.pixel_size_angstrom,
        voltage_kv=scene.voltage_kv,
        dose_per_frame_e_per_angstrom2=scene.dose_per_frame_e_per_angstrom2,
    )


def shifts_of(corrected: CorrectedMovie) -> Images:
    return corrected.field.middle


@functools.cache
def small_movie() -> tuple[Scene, Images, Images]:
    """One movie for many tests: 400 x 480 px, 16 frames of 1.2 e/px."""
    scene = Scene(shape=(400, 480), frame_count=16, dose_per_px=1.2, spacing_angstrom=150, ice=0.5, seed=40)
    path = beam_induced_drift(16, 40)
    return scene, path, expose(scene, path)


SCENES = {
    "globule": Scene(shape=(640, 800), frame_count=18, spacing_angstrom=160, ice=0.5, seed=21),
    "barrel, 200 kV, odd sizes": Scene(
        shape=(601, 747), frame_count=20, particle="barrel", mass_kda=800, voltage_kv=200.0, ice=0.4, seed=22
    ),
    "low dose, large pixels": Scene(
        shape=(640, 640), frame_count=30, dose_per_px=0.8, pixel_size_angstrom=1.55, ice=0.4, mass_kda=600, seed=23
    ),
    "12 frames": Scene(
        shape=(768, 1024), frame_count=12, dose_per_px=1.0, mass_kda=600, spacing_angstrom=150, ice=0.4, seed=24
    ),
}


@pytest.mark.parametrize("name", SCENES)
def test_trajectory_is_within_a_fifth_of_a_pixel(name: str) -> None:
    scene = SCENES[name]
    path = beam_induced_drift(scene.frame_count, scene.seed)
    corrected = correct_movie(expose(scene, path), None, None, optics_of(scene))
    assert corrected.motion.converged
    assert rms_error(shifts_of(corrected), path) < 0.2
    assert corrected.motion.local_angstrom < 0.4
    assert corrected.problem is None
    assert shifts_of(corrected)[0].tolist() == [0, 0]
    assert corrected.bad_pixel_count <= 4
    assert abs(corrected.fixed_pattern) < 0.02


@pytest.mark.parametrize("seed", [5, 6])
def test_a_moderate_flow_is_found_within_a_seventh_of_a_pixel(seed: int) -> None:
    beads = Beads(shape=(640, 832), across_px=1.0, contrast=0.9, seed=seed)
    corrected = correct_movie(beads.movie(), None, None, Optics(pixel_size_angstrom=1.1))
    assert field_error(corrected.field.at(GRID), beads.displacement(GRID)) < 0.15


def test_ice_and_particles_that_flow_are_followed() -> None:
    scene = Scene(
        shape=(448, 576), frame_count=12, dose_per_px=1.5, particle="barrel", mass_kda=900, spacing_angstrom=150, ice=0.5
    )
    path, flow = beam_induced_drift(12, 5, 3.0), local_flow(scene, 5, 4.0)
    corrected = correct_movie(expose(scene, path, None, flow), None, None, optics_of(scene))
    truth = path[:, None] + flow_at(flow, GRID)
    alone = np.broadcast_to(corrected.field.middle[:, None], truth.shape)
    assert field_error(corrected.field.at(GRID), truth) < 0.4 * field_error(alone, truth)


@pytest.mark.parametrize("shape", [(600, 900), (896, 500)])
def test_a_flow_of_ten_pixels_across_the_field_is_followed(shape: tuple[int, int]) -> None:
    beads = Beads(shape=shape, across_px=9.0, frame_count=20)
    truth = beads.displacement(GRID)
    assert np.abs(truth - truth[:, 12:13]).max() > 8
    corrected = correct_movie(beads.movie(), None, None, Optics(pixel_size_angstrom=1.1))
    assert field_error(corrected.field.at(GRID), truth) < 0.5
    assert corrected.motion.local_angstrom == pytest.approx(
        1.1 * np.sqrt(((truth - truth[:, 12:13]) ** 2).sum(axis=2).mean()), rel=0.25
    )


def test_predicted_error_is_the_error() -> None:
    """Mean of (error / sigma)^2 over movies is about 1, and less where nothing flows: it might have."""
    ratios = []
    for seed in range(6):
        scene = Scene(shape=(384, 448), frame_count=10, dose_per_px=2.0, spacing_angstrom=140, ice=0.5, seed=seed)
        path = beam_induced_drift(10, seed + 100, 2.0)
        corrected = correct_movie(expose(scene, path), None, None, optics_of(scene))
        error = field_error(corrected.field.at(GRID), path[:, None])
        ratios.append((error / corrected.motion.sigma_px) ** 2)
    assert 0.3 < np.mean(ratios) < 1.5


def test_what_relion_reads_is_the_field() -> None:
    corrected = correct_movie(Beads(seed=3).movie(), None, None, Optics(pixel_size_angstrom=1.1))
    motion = corrected.motion
    whole = np.stack([motion.shift_y_px, motion.shift_x_px], axis=1)
    read = relion_shifts(whole, np.array(motion.local_coefficients), grid_places())
    assert np.sqrt(((read - corrected.field.at(grid_places())) ** 2).sum(axis=2).mean()) < 0.3
    assert not read[0].any()


def test_frames_outside_the_range_have_no_say() -> None:
    scene, path, movie = small_movie()
    spoilt = movie.copy()
    spoilt[:3], spoilt[13:] = 200, 0
    parameters = MotionParameters(first_frame=4, last_frame=13, halves=True)
    corrected = correct_movie(spoilt, None, None, optics_of(scene), parameters)
    assert len(corrected.motion.shift_x_px) == 10
    assert rms_error(shifts_of(corrected), path[3:13]) < 0.25
    np.testing.assert_allclose(corrected.sums.odd + corrected.sums.even, corrected.plain, atol=0.02)
    assert corrected.plain.mean() == pytest.approx(movie[3:13].sum(axis=0, dtype=float).mean(), rel=0.01)
    with pytest.raises(InputError) as caught:
        correct_movie(movie, None, None, optics_of(scene), MotionParameters(first_frame=9, last_frame=17))
    assert caught.value.reason == "FRAME_RANGE"


def test_a_large_drift_and_a_jump_are_followed() -> None:
    scene, path, _ = small_movie()
    drift = path + np.arange(16)[:, None] * np.array([1.5, -1.0])
    drift[9:] += (10.0, 7.0)
    corrected = correct_movie(expose(scene, drift), None, None, optics_of(scene))
    assert rms_error(shifts_of(corrected), drift) < 0.4
    assert corrected.motion.total_angstrom > 35 * scene.pixel_size_angstrom


def whole_steps(path: list[tuple[int, int]], shape: tuple[int, int] = (384, 448)) -> Images:
    """A noise-free scene moved by whole pixels, float32."""
    rng = np.random.default_rng(1)
    large = rng.normal(size=(shape[0] + 40, shape[1] + 40))
    radius = np.hypot(np.fft.fftfreq(large.shape[0])[:, None], np.fft.rfftfreq(large.shape[1])[None])
    scene = np.fft.irfft2(np.fft.rfft2(large) * np.exp(-((radius / 0.12) ** 2)), s=large.shape)
    scene = 100 + 10 * scene / scene.std()
    return np.stack([scene[20 - y :, 20 - x :][: shape[0], : shape[1]] for y, x in path]).astype(np.float32)


def test_whole_steps_without_noise_are_found_exactly_also_along_one_axis() -> None:
    path = [(0, 0), (0, 3), (0, 5), (0, 4), (0, 8), (0, 9)]
    corrected = correct_movie(whole_steps(path), None, None, Optics(pixel_size_angstrom=1.5))
    assert rms_error(shifts_of(corrected), np.array(path, float)) < 0.01
    assert np.abs(corrected.motion.shift_y_px).max() < 0.01
    np.testing.assert_allclose(corrected.motion.shift_x_px, [0, -3, -5, -4, -8, -9], atol=0.02)


def test_an_offset_changes_nothing_and_frames_about_zero_align() -> None:
    path = [(0, 0), (2, 3), (4, 3), (5, 1)]
    movie = whole_steps(path)
    first = correct_movie(movie, None, None, Optics(pixel_size_angstrom=1.5))
    for offset in (50.0, -100.0):
        other = correct_movie(movie + offset, None, None, Optics(pixel_size_angstrom=1.5))
        np.testing.assert_allclose(shifts_of(other), shifts_of(first), atol=0.01)


@pytest.mark.parametrize("dtype", [np.uint16, np.int8, np.float32])
def test_the_type_of_the_recording_does_not_matter(dtype: Any) -> None:
    scene, _, movie = small_movie()
    first = correct_movie(movie[:6], None, None, optics_of(scene))
    other = correct_movie(movie[:6].astype(dtype), None, None, optics_of(scene))
    assert other.motion == first.motion
    np.testing.assert_array_equal(other.plain, first.plain)


def test_backends_agree(xp: Any) -> None:
    scene, _, movie = small_movie()
    cut = movie[:8, :160, :200]
    gain = np.random.default_rng(0).uniform(0.9, 1.1, cut.shape[1:]).astype(np.float32)
    gain[5, 5] = 0
    here = correct_movie(cut, gain, None, optics_of(scene))
    there = correct_movie(cut, gain, None, optics_of(scene), xp=xp)
    np.testing.assert_allclose(shifts_of(there), shifts_of(here), atol=2e-3)
    difference = np.asarray(to_host(there.plain)) - here.plain
    assert difference.std() < 0.05 * here.plain.std()  # compiled, runs of px share a shift, to 0.1 px
    assert there.dose_weighted.dtype == xp.float32
    assert there.bad_pixel_count == here.bad_pixel_count == 1


def test_an_uneven_detector_and_bad_pixels_do_not_hold_the_alignment() -> None:
    scene, path, clean = small_movie()
    rng = np.random.default_rng(5)
    gain = np.clip(rng.normal(1, 0.05, scene.shape), 0.7, 1.3).astype(np.float32)
    movie = expose(scene, path, gain)
    hot = rng.integers(10, 390, (40, 2))
    movie[:, hot[:, 0], hot[:, 1]] = rng.poisson(12, (16, 40))
    movie[:, :, 200] = 0
    known = np.zeros(scene.shape, bool)
    known[:, 200] = True
    corrected = correct_movie(movie, gain, known, optics_of(scene), seed=3)
    reference = correct_movie(clean, None, None, optics_of(scene))
    assert rms_error(shifts_of(corrected), path) < max(0.2, 1.5 * rms_error(shifts_of(reference), path))
    assert abs(corrected.bad_pixel_count - 400 - 40) <= 2
    assert abs(corrected.fixed_pattern) < 0.02
    spread = corrected.plain.std()
    assert np.abs(corrected.plain[hot[:, 0], hot[:, 1]] - corrected.plain.mean()).max() < 5 * spread
    again = correct_movie(movie, gain, known, optics_of(scene), seed=3)
    np.testing.assert_array_equal(again.plain, corrected.plain)
    assert again.motion == corrected.motion


def test_a_wrong_gain_shows_as_a_fixed_pattern() -> None:
    scene, path, _ = small_movie()
    gain = np.clip(np.random.default_rng(6).normal(1, 0.1, scene.shape), 0.5, 1.5).astype(np.float32)
    movie = expose(scene, path, gain)
    assert correct_movie(movie, np.ascontiguousarray(gain[::-1]), None, optics_of(scene)).fixed_pattern > 0.05
    assert abs(correct_movie(movie, gain, None, optics_of(scene)).fixed_pattern) < 0.02


def test_frames_beyond_use_are_left_out_and_interpolated() -> None:
    scene, path, movie = small_movie()
    broken = movie.copy()
    broken[5] = 0
    broken[11] = np.random.default_rng(0).integers(0, 255, broken[11].shape)
    corrected = correct_movie(broken, None, None, optics_of(scene))
    assert corrected.left_out_frames == (5, 11)
    assert rms_error(shifts_of(corrected), path) < 0.25
    assert corrected.plain.mean() == pytest.approx(np.delete(movie, [5, 11], axis=0).sum(axis=0, dtype=float).mean(), rel=0.01)


def test_frames_that_have_nothing_in_common_with_the_others_are_told() -> None:
    """Another specimen from frame 9 on: each part aligns within itself, and nothing can tell how they lie to each other."""
    first, other = (Beads(seed=seed, contrast=0.8, shape=(400, 512), drift_px=3.0, across_px=0.5).movie() for seed in (1, 2))
    optics = Optics(pixel_size_angstrom=1.1)
    assert correct_movie(first, None, None, optics).problem is None
    exchanged = correct_movie(np.concatenate([first[:8], other[8:]]), None, None, optics)
    assert "The frames from 9 on" in str(exchanged.problem)
    assert "lost" in str(exchanged.problem)


def test_one_stray_frame_among_weak_ones_does_not_leave_and_come_back() -> None:
    """A frame of noise amid a weak movie: its correlation peaks anywhere, the specimen was where its neighbours are."""
    scene, path, movie = small_movie()
    spoilt = movie.copy()
    spoilt[9] = np.random.default_rng(1).poisson(movie[9].mean(), movie[9].shape)
    corrected = correct_movie(spoilt, None, None, optics_of(scene))
    assert rms_error(shifts_of(corrected), path) < 0.3


def test_x_rays_and_values_that_are_no_numbers_leave_no_trace() -> None:
    scene, _, movie = small_movie()
    struck = movie[:6].astype(np.float32)
    struck[2, 100, 100], struck[3, 50, 60] = 60_000, np.nan
    corrected = correct_movie(struck, None, None, optics_of(scene))
    clean = correct_movie(movie[:6], None, None, optics_of(scene))
    assert np.abs(corrected.plain - clean.plain).max() < 12
    assert np.isfinite(corrected.dose_weighted).all()


@pytest.mark.parametrize("kind", ["noise", "blank", "constant", "no numbers"])
def test_movies_without_a_specimen_give_zero_or_small_shifts_and_never_nan(kind: str) -> None:
    movie = {
        "noise": np.random.default_rng(0).poisson(1, (10, 256, 256)).astype(np.uint8),
        "blank": np.zeros((10, 256, 256), np.uint8),
        "constant": np.full((10, 256, 256), 3, np.uint8),
        "no numbers": np.full((10, 256, 256), np.nan, np.float32),
    }[kind]
    corrected = correct_movie(movie, None, None, Optics(pixel_size_angstrom=1.0))
    assert np.isfinite(shifts_of(corrected)).all()
    assert np.isfinite(corrected.plain).all()
    assert np.isfinite(corrected.dose_weighted).all()
    if not corrected.motion.converged:
        assert not shifts_of(corrected).any()
        assert corrected.motion.sigma_px is None
        assert "could not be found" in str(corrected.problem)
    assert corrected.motion.converged or kind != "noise" or np.abs(shifts_of(corrected)).max() < 5
    assert kind == "noise" or not corrected.motion.converged


@pytest.mark.parametrize("frame_count", [1, 2, 3])
def test_few_frames(frame_count: int) -> None:
    scene, _, movie = small_movie()
    grouped = movie[: 5 * frame_count].reshape(frame_count, 5, *movie.shape[1:]).sum(axis=1, dtype=np.uint16)
    corrected = correct_movie(grouped, None, None, optics_of(scene))
    assert corrected.motion.converged
    assert np.isfinite(shifts_of(corrected)).all()
    assert len(corrected.motion.shift_x_px) == frame_count


def test_many_frames_are_grouped_and_interpolated() -> None:
    scene, path, movie = small_movie()
    rng = np.random.default_rng(2)
    fine = np.concatenate([_split(frame, 10, rng) for frame in movie])
    corrected = correct_movie(fine, None, None, optics_of(scene))
    assert len(corrected.motion.shift_x_px) == 160
    assert rms_error(shifts_of(corrected)[5::10], path) < 0.5


def _split(frame: Images, parts: int, rng: np.random.Generator) -> Images:
    """Deal the electrons of a frame out to several frames."""
    left, dealt = frame.astype(np.int64), []
    for part in range(parts, 0, -1):
        dealt.append(rng.binomial(left, 1 / part))
        left = left - dealt[-1]
    return np.array(dealt, np.uint8)


def test_superresolution_is_binned_and_the_pixel_size_follows() -> None:
    scene, _, movie = small_movie()
    corrected = correct_movie(movie[:4], None, None, optics_of(scene), MotionParameters(binning=2.0))
    assert corrected.plain.shape == (200, 240)
    assert corrected.pixel_size_angstrom == pytest.approx(2 * scene.pixel_size_angstrom)
    assert corrected.plain.mean() == pytest.approx(movie[:4].sum(axis=0, dtype=float).mean(), rel=1e-3)


def test_early_and_late_motion_meet_at_4_electrons() -> None:
    shifts = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 6.0], [4.0, 6.0]])
    optics = Optics(pixel_size_angstrom=2.0, dose_per_frame_e_per_angstrom2=2.0)
    motion = motion_record(whole_frame(shifts), optics, MotionFit(np.zeros((4, 10, 2)), 0.1, 0.0))
    assert motion.total_angstrom == pytest.approx(16.0)
    assert motion.early_angstrom == pytest.approx(10.0)
    assert motion.late_angstrom == pytest.approx(6.0)
    assert motion.shift_x_px == pytest.approx((0, 4, 6, 6))
    assert (motion.local_angstrom, motion.local_coefficients) == (0.0, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gain": np.ones((256, 250))}, "GAIN_SHAPE"),
        ({"bad_mask": np.zeros((250, 256), bool)}, "GAIN_SHAPE"),
        ({"movie": np.zeros((3, 20, 256), np.uint8)}, "MOVIE_SHAPE"),
        ({"movie": np.zeros((256, 256), np.uint8)}, "MOVIE_SHAPE"),
        ({"optics": Optics(pixel_size_angstrom=0.0)}, "PIXEL_SIZE"),
        ({"optics": Optics(pixel_size_angstrom=1.0, dose_per_frame_e_per_angstrom2=-1)}, "DOSE_IMPLAUSIBLE"),
        ({"optics": Optics(pixel_size_angstrom=1.0, voltage_kv=0.3)}, "VOLTAGE_IMPLAUSIBLE"),
    ],
)
def test_impossible_input_is_refused_with_a_reason(change: dict[str, Any], reason: str) -> None:
    arguments = {
        "movie": np.ones((3, 256, 256), np.uint8),
        "gain": None,
        "bad_mask": None,
        "optics": Optics(pixel_size_angstrom=1.0),
    }
    with pytest.raises(InputError) as caught:
        correct_movie(**(arguments | change))
    assert caught.value.reason == reason


def test_memory_holds_no_stack_of_frames() -> None:
    """A K3 movie a tenth as wide and high: under a hundredth of 8 GB, the raw movie included, far below a float stack."""
    movie = np.random.default_rng(0).poisson(0.8, (50, 409, 576)).astype(np.uint8)
    correct_movie(movie[:2], None, None, Optics(pixel_size_angstrom=0.83))  # compiled before it is measured
    tracemalloc.start()
    correct_movie(movie, None, None, Optics(pixel_size_angstrom=0.83))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < movie.size * 4 * 0.75
    assert movie.nbytes + peak < 60e6
