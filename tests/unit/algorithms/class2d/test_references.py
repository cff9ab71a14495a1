"""Transforms, centring, references and statistics against analytic images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from frazil.algorithms.class2d.centring import find_centres, make_centring, radial_profile
from frazil.algorithms.class2d.grid import Grid, make_grid
from frazil.algorithms.class2d.images import ParticleBlock, ParticleImages, load_coefficients
from frazil.algorithms.class2d.maximisation import balancing_bias
from frazil.algorithms.class2d.references import (
    build_references,
    centres_of_mass,
    half_images,
    make_masks,
    recentre,
    reference_images,
)
from frazil.algorithms.class2d.state import ClassStatistics, empty_state
from frazil.algorithms.class2d.statistics import half_average_frc, rank, resolution, ring_correlation
from frazil.algorithms.class2d.transforms import (
    coefficients_of,
    full_images,
    images_to_padded,
    padded_to_images,
    shift_phases,
    working_images,
)
from frazil.array import to_host
from frazil.model.errors import InputError

BOX, PIXEL, DIAMETER = 48, 4.0, 100.0


def gaussians(grid: Grid, places: list[tuple[float, float]], *, box: bool = False) -> np.ndarray:
    """Images of one Gaussian each, sigma 14 Å, at (x, y) in Å from the centre; on the working box or the particle box."""
    count = BOX if box else grid.size
    offset = (np.arange(count) - count // 2) * (grid.box_angstrom / count)
    y, x = np.meshgrid(offset, offset, indexing="ij")
    return np.array([np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * 14.0**2)) for a, b in places], np.float32)


def statistics_of(grid: Grid, images: np.ndarray, weight: float = 100.0) -> ClassStatistics:
    """Statistics of classes seen without noise, CTF one, half of them in each half set."""
    xp = grid.xp
    padded = images_to_padded(grid, xp.asarray(images))
    numerator = xp.stack([padded * (weight / 2)] * 2)
    denominator = xp.ones(numerator.shape, dtype=xp.float32) * (weight / 2)
    return ClassStatistics(numerator, denominator, np.full(len(images), weight))


def test_coefficients_are_those_of_the_definition(xp: Any) -> None:
    """X(k) = sum over pixels of image(r) exp(-2 pi i k r / box) / box, r from the centre; smooth images survive the edge."""
    grid = make_grid(BOX, PIXEL, 20.0, xp)
    image = gaussians(grid, [(6.0, -10.0)], box=True)
    found, power = (to_host(a) for a in load_coefficients(grid, xp.asarray(image)))
    kx, ky = to_host(grid.frequency_x), to_host(grid.frequency_y)
    r = np.arange(BOX) - BOX // 2
    for n in (0, 5, 40):
        wave = np.exp(-2j * np.pi * (ky[n] * r[:, None] + kx[n] * r) / BOX)
        assert np.isclose(found[0, n], (image[0] * wave).sum() / BOX, atol=1e-3)
    assert power.shape == (1, BOX // 2)
    assert (np.diff(np.hypot(kx, ky)) > -1e-6).all()
    assert np.hypot(kx, ky).max() <= grid.limit


def test_working_images_show_what_the_box_shows(xp: Any) -> None:
    grid = make_grid(BOX, PIXEL, 20.0, xp)
    assert grid.size < BOX
    box = gaussians(grid, [(12.0, -20.0), (0.0, 0.0)], box=True)
    working = gaussians(grid, [(12.0, -20.0), (0.0, 0.0)])
    coefficients, _ = load_coefficients(grid, xp.asarray(box))
    shown = to_host(working_images(grid, coefficients))
    expected = working - working.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(shown - shown.mean(axis=(1, 2), keepdims=True), expected, atol=0.02)
    again = coefficients_of(grid, xp.asarray(shown.astype(np.float32)), grid.kept)
    np.testing.assert_allclose(to_host(again), to_host(coefficients), atol=1e-4)
    restored = to_host(full_images(grid, xp.asarray(working)))
    np.testing.assert_allclose(restored, box, atol=2e-3)
    moved = coefficients * shift_phases(grid, xp.asarray(np.array([[12.0, -20.0]] * 2, np.float32)), grid.kept)
    centred = to_host(working_images(grid, moved))
    np.testing.assert_allclose(centred[0] - centred[0].mean(), expected[1], atol=0.02)


def test_padded_grids_hold_the_same_images(xp: Any) -> None:
    grid = make_grid(BOX, PIXEL, 20.0, xp)
    images = xp.asarray(gaussians(grid, [(8.0, 4.0)]))
    padded = images_to_padded(grid, images)
    np.testing.assert_allclose(to_host(padded_to_images(grid, padded)), to_host(images), atol=1e-5)
    half = grid.padded_size // 2
    at_grid = to_host(padded)[0, half + 2 * 3, half + 2 * 2]
    coefficients = to_host(coefficients_of(grid, images, grid.kept))[0]
    wanted = (to_host(grid.frequency_x) == 2) & (to_host(grid.frequency_y) == 3)
    assert np.isclose(at_grid, coefficients[wanted][0], atol=1e-5)


def test_centring_finds_planted_positions(xp: Any) -> None:
    grid = make_grid(BOX, PIXEL, 12.0, xp)
    centring = make_centring(grid, DIAMETER)
    places = [(x, y) for x in (-16.0, 0.0, 8.0) for y in (-12.0, 4.0)]
    coefficients, _ = load_coefficients(grid, xp.asarray(gaussians(grid, places, box=True)))
    used = coefficients[:, : centring.count]
    ctf = xp.ones(used.shape, dtype=xp.float32)
    truth = xp.asarray(np.array(places, np.float32))
    profile = radial_profile(grid, centring, used, ctf, truth)
    assert profile[1] > profile[3] > profile[5] > 0  # a Gaussian's transform
    found = find_centres(grid, centring, used, ctf, xp.asarray((profile / 1e-4).astype(np.float32)))
    assert abs(found - np.array(places)).max() <= 0.51 * grid.pixel_size_angstrom


def test_a_well_seen_class_is_its_own_reference(xp: Any) -> None:
    grid = make_grid(BOX, PIXEL, 12.0, xp)
    masks = make_masks(grid, DIAMETER)
    images = gaussians(grid, [(0.0, 0.0), (10.0, 0.0)])
    classes = statistics_of(grid, images, weight=1e5)
    shown = to_host(reference_images(grid, masks, classes, grid.limit))
    np.testing.assert_allclose(shown, images, atol=0.03)
    assert build_references(grid, masks, classes, grid.limit).dtype == xp.complex64
    halves = to_host(half_images(grid, masks, classes, grid.limit))
    np.testing.assert_array_equal(halves[0], halves[1])


def test_recentring_brings_the_mass_to_the_middle_in_bounded_steps(xp: Any) -> None:
    grid = make_grid(BOX, PIXEL, 12.0, xp)
    masks = make_masks(grid, DIAMETER)
    classes = statistics_of(grid, gaussians(grid, [(12.0, -8.0), (0.2, 0.0)]), weight=1e5)
    before = centres_of_mass(grid, masks, reference_images(grid, masks, classes, grid.limit))
    np.testing.assert_allclose(before[0], [12, -8], atol=1)
    untouched = to_host(classes.numerator)[:, 1]
    recentre(grid, masks, classes, grid.limit)
    once = centres_of_mass(grid, masks, reference_images(grid, masks, classes, grid.limit))
    assert np.isclose(np.hypot(*(before - once)[0]), 0.095 * DIAMETER / 2, atol=0.5)
    np.testing.assert_array_equal(to_host(classes.numerator)[:, 1], untouched)
    for _ in range(4):
        recentre(grid, masks, classes, grid.limit)
    last = centres_of_mass(grid, masks, reference_images(grid, masks, classes, grid.limit))
    assert np.hypot(*last[0]) < 0.03 * DIAMETER / 2


def test_ring_correlation_of_noise_is_none_and_of_equals_is_one(xp: Any) -> None:
    random = np.random.default_rng(0)
    grid = make_grid(BOX, PIXEL, 12.0, xp)
    a, b = (random.normal(size=(20, grid.size, grid.size)).astype(np.float32) for _ in range(2))
    same = ring_correlation(grid, xp.asarray(a), xp.asarray(a), grid.kept)
    np.testing.assert_allclose(same[:, 1:12], 1, atol=1e-5)
    different = ring_correlation(grid, xp.asarray(a), xp.asarray(b), grid.kept)
    assert abs(different[:, 5:12].mean()) < 0.03


def test_half_averages_agree_where_there_is_signal() -> None:
    """Independent noise of variance v in the halves' numerators: FRC = s / (s + v) by construction."""
    random = np.random.default_rng(1)
    grid = make_grid(BOX, PIXEL, 12.0, np)
    masks = make_masks(grid, DIAMETER)
    state = empty_state(grid.shell_count, grid.padded_size, np)
    images = gaussians(grid, [(0.0, 0.0)])
    noisy = [statistics_of(grid, images + 0.05 * random.normal(size=images.shape).astype(np.float32)) for _ in range(2)]
    state.classes = noisy[0]
    state.classes.numerator[1] = noisy[1].numerator[1]
    state.bias, state.restarts = np.zeros(1, np.float32), np.zeros(1, np.int32)
    frc = half_average_frc(grid, masks, state, grid.limit)[0]
    assert frc[1:3].min() > 0.95
    assert frc[12:16].mean() < 0.4


def test_resolution_is_read_where_the_curve_crosses_one_half() -> None:
    assert resolution(np.array([1.0, 0.9, 0.75, 0.25, 0.1]), 200.0) == pytest.approx(200 / 2.5)
    assert resolution(np.array([1.0, 0.4, 0.9]), 200.0) is None
    assert resolution(np.array([1.0, 1.0, 1.0]), 200.0) == pytest.approx(200 / 2.5)


def test_ranking_forgives_small_classes_and_not_junk() -> None:
    """Classes that follow s n / 2 / (s n / 2 + 1) exactly, one of them small; and one without signal."""
    signal = np.geomspace(1.0, 0.01, 10)
    counts = np.array([100, 120, 80, 30, 90])
    half = counts[:, None] / 2
    frc = half * signal / (half * signal + 1)
    frc[4] *= 0.3
    area, quality = rank(frc, counts)
    np.testing.assert_allclose(area, frc.mean(axis=1))
    np.testing.assert_allclose(quality[:3], 1, atol=0.05)
    assert quality[3] > 0.85 > area[3] / area[0]
    assert quality[4] < 0.5


def test_balancing_favours_small_classes_in_proportion() -> None:
    np.testing.assert_allclose(balancing_bias(np.array([50.0, 100.0, 150.0]), 0.0), 0)
    bias = balancing_bias(np.array([50.0, 100.0, 150.0]), 1.0)
    np.testing.assert_allclose(bias, -np.log([0.5, 1.0, 1.5]), rtol=1e-5)
    assert balancing_bias(np.array([0.0, 1e9]), 1.0).max() == 6


def test_images_of_another_box_or_pixel_size_are_refused(simulate: Callable[..., Any]) -> None:
    block: ParticleBlock = simulate(32, 4, [np.array([[0.0, 0.0, 1.0]])], snr=1.0).blocks(4)[0]
    with pytest.raises(InputError, match="48 px"):
        ParticleImages(make_grid(48, PIXEL, 12.0, np)).append(block)
    with pytest.raises(InputError, match="pixel size"):
        ParticleImages(make_grid(32, 3.5, 12.0, np)).append(block)
    block.images[1, 3, 3] = np.nan
    with pytest.raises(InputError, match="undefined"):
        ParticleImages(make_grid(32, PIXEL, 12.0, np)).append(block)
    with pytest.raises(InputError, match="even box"):
        make_grid(33, PIXEL, 12.0, np)
