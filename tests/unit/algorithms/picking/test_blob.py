from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from frazil.algorithms.detection.peaks import count_accepted, shadows
from frazil.algorithms.pick_thresholds import picked
from frazil.algorithms.picking.blob import BlobParameters, search
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from frazil.model.particles import Pick
from simulated_micrograph import Scene, Truth, simulate

Image = np.ndarray[Any, Any]


def picks_of(image: Any, diameter: float, pixel: float = 1.5, **more: Any) -> tuple[Pick, ...]:
    parameters = BlobParameters(diameter_min_angstrom=diameter, diameter_max_angstrom=diameter, **more)
    return picked(search(image, parameters, optics=Optics(pixel_size_angstrom=pixel), seed=1), parameters)


def places(picks: tuple[Pick, ...]) -> Image:
    return np.array([(p.x_px, p.y_px) for p in picks]).reshape(-1, 2)


def matched(found: Image, truth: Image, within: float) -> list[tuple[int, int]]:
    """Pairs of picks and particles, nearest first, each used once."""
    distance = np.hypot(*(found[:, None] - truth[None]).transpose(2, 0, 1))
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(distance, axis=None):
        i, j = np.unravel_index(flat, distance.shape)
        if distance[i, j] > within:
            break
        if all(i != a and j != b for a, b in pairs):
            pairs.append((int(i), int(j)))
    return pairs


def precision_and_recall(found: Image, truth: Image, diameter_px: float, shape: tuple[int, ...]) -> tuple[float, float]:
    """Of particles that lie wholly inside; picks of others count neither way."""
    pairs = matched(found, truth, 0.35 * diameter_px)
    whole: Image = np.asarray(((truth > diameter_px / 2) & (truth < np.array(shape[::-1]) - diameter_px / 2)).all(axis=1))
    hits = sum(bool(whole[j]) for _, j in pairs)
    return hits / max(1, len(found) - len(pairs) + hits), hits / max(1, int(whole.sum()))


def planted_discs(shape: tuple[int, int], count: int, diameter_px: float, seed: int = 0) -> tuple[Image, Image]:
    rng = np.random.default_rng(seed)
    centres: list[Image] = []
    while len(centres) < count:
        place = rng.uniform(diameter_px, np.array(shape[::-1]) - diameter_px)
        if all(np.hypot(*(place - other)) > 1.2 * diameter_px for other in centres):
            centres.append(place)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    image = rng.normal(100.0, 4.0, shape).astype(np.float32)
    for cx, cy in centres:
        image -= 6.0 * np.clip(0.5 - (np.hypot(y - cy, x - cx) - diameter_px / 2) / 2.0, 0, 1)
    return image, np.array(centres)


@lru_cache
def simulated(scene: Scene) -> Truth:
    return simulate(scene)


def test_planted_discs_are_found_where_they_are() -> None:
    image, centres = planted_discs((720, 900), 60, 60.0)
    found = places(picks_of(image, 60.0, pixel=1.0))
    pairs = matched(found, centres, 15.0)
    assert len(pairs) >= 0.98 * len(centres)
    assert len(pairs) >= 0.98 * len(found)
    error = np.array([found[i] - centres[j] for i, j in pairs])
    assert np.sqrt((error**2).sum(axis=1).mean()) < 0.5 * 60.0 / 20.0
    assert np.abs(error.mean(axis=0)).max() < 0.5  # no shift of half a pixel of any of the two grids


@pytest.mark.parametrize("particle", ["lumps", "double ring", "shell", "membrane"])
def test_particles_of_any_shape_are_found_by_their_diameter(particle: str) -> None:
    scene = Scene(particle=particle, pixel_size_angstrom=1.8, particle_count=60, contrast=0.4, seed=21)
    truth = simulated(scene)
    found = places(picks_of(truth.image, truth.diameter_angstrom, 1.8))
    precision, recall = precision_and_recall(found, truth.centres, truth.diameter_angstrom / 1.8, truth.image.shape)
    assert precision > 0.8
    assert recall > 0.85


@pytest.mark.parametrize(("guess", "pixel"), [(0.8, 2.2), (1.25, 2.2), (1.0, 0.9)])
def test_neither_a_rough_diameter_nor_the_pixel_size_matters_much(guess: float, pixel: float) -> None:
    scene = Scene(shape=(1024, 1152), pixel_size_angstrom=pixel, particle_count=int(25 * pixel**1.5), contrast=0.4, seed=9)
    truth = simulated(scene)
    found = places(picks_of(truth.image, guess * truth.diameter_angstrom, pixel))
    precision, recall = precision_and_recall(found, truth.centres, truth.diameter_angstrom / pixel, truth.image.shape)
    assert 2 * precision * recall / (precision + recall) > 0.8


@pytest.mark.parametrize("seed", range(4))
def test_there_is_nothing_to_pick_in_noise(seed: int) -> None:
    image = np.random.default_rng(seed).poisson(30.0, (900, 1000)).astype(np.float32)
    areas = image.size * 1.5**2 / (np.pi * 75.0**2)
    assert len(picks_of(image, 150.0)) < areas / 10


@pytest.mark.parametrize("value", [0.0, 12.5, np.nan])
def test_there_is_nothing_to_pick_in_a_constant_image(xp: Any, value: float) -> None:
    assert picks_of(xp.asarray(np.full((400, 500), value, dtype=np.float32)), 60.0) == ()


def test_a_micrograph_smaller_than_two_particles_has_no_background() -> None:
    assert picks_of(np.random.default_rng(0).normal(size=(100, 400)).astype(np.float32), 120.0) == ()


def test_brightness_and_scale_do_not_matter() -> None:
    image, _ = planted_discs((512, 512), 25, 50.0, seed=2)
    plain, other = (places(picks_of(a, 50.0, pixel=1.0)) for a in (image, image * 37.0 + 5000.0))
    assert len(plain) == len(other)
    np.testing.assert_allclose(plain, other, atol=0.05)


@pytest.mark.parametrize("turn", ["rotated", "flipped", "transposed"])
def test_turning_the_micrograph_turns_the_picks(turn: str) -> None:
    image, centres = planted_discs((512, 640), 30, 50.0, seed=3)
    height, width = image.shape
    x, y = centres.T
    turned, expected = {
        "rotated": (np.rot90(image), np.stack([y, width - 1 - x], axis=1)),
        "flipped": (image[::-1], np.stack([x, height - 1 - y], axis=1)),
        "transposed": (image.T, np.stack([y, x], axis=1)),
    }[turn]
    found = places(picks_of(np.ascontiguousarray(turned), 50.0, pixel=1.0))
    pairs = matched(found, expected, 5.0)
    assert len(pairs) == len(centres)
    assert len(found) <= len(centres) + 1


def test_the_same_seed_gives_the_same_picks() -> None:
    image, _ = planted_discs((512, 512), 20, 50.0, seed=4)
    assert picks_of(image, 50.0, pixel=1.0) == picks_of(image.copy(), 50.0, pixel=1.0)


def test_other_backends_agree(xp: Any) -> None:
    image, centres = planted_discs((400, 440), 14, 50.0, seed=5)
    found = places(picks_of(xp.asarray(image), 50.0, pixel=1.0))
    plain = places(picks_of(image, 50.0, pixel=1.0))
    assert len(matched(found, centres, 10.0)) == len(centres)
    assert len(matched(found, plain, 1.0)) == len(plain) == len(found)


def test_records_are_in_their_ranges_and_best_first() -> None:
    truth = simulated(Scene(particle="lumps", pixel_size_angstrom=1.8, particle_count=60, contrast=0.4, seed=21))
    found = picks_of(truth.image, truth.diameter_angstrom, 1.8)
    scores = [p.score for p in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 < score <= 1.0 for score in scores)
    assert all(p.diameter_angstrom == pytest.approx(truth.diameter_angstrom) for p in found)
    assert np.isfinite([p.power for p in found]).all()
    separation = np.hypot(*(places(found)[:, None] - places(found)[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(found))
    assert separation.min() > 0.7 * truth.diameter_angstrom / 1.8


def test_thresholds_of_the_operator_apply_as_well() -> None:
    image, _ = planted_discs((512, 512), 25, 50.0, seed=6)
    plain = picks_of(image, 50.0, pixel=1.0)
    middle = float(np.median([p.score for p in plain]))
    power = float(np.median([p.power for p in plain]))
    assert picks_of(image, 50.0, pixel=1.0, score_min=middle) == tuple(p for p in plain if p.score >= middle)
    assert picks_of(image, 50.0, pixel=1.0, power_max=power) == tuple(p for p in plain if p.power <= power)
    assert picks_of(image, 50.0, pixel=1.0, power_min=power) == tuple(p for p in plain if p.power >= power)
    assert picks_of(image, 50.0, pixel=1.0, max_picks=7) == plain[:7]


def test_two_sizes_are_told_apart() -> None:
    small, centres_small = planted_discs((700, 700), 20, 40.0, seed=7)
    large, centres_large = planted_discs((700, 700), 8, 80.0, seed=8)
    apart = np.hypot(*(centres_small[:, None] - centres_large[None]).transpose(2, 0, 1)).min(axis=1) > 75.0
    rng = np.random.default_rng(0)
    image = (small + large) / 2**0.5 + rng.normal(0.0, 1.0, small.shape).astype(np.float32)
    parameters = BlobParameters(diameter_min_angstrom=40.0, diameter_max_angstrom=80.0, min_distance_diameters=0.6)
    found = picked(search(image, parameters, optics=Optics(pixel_size_angstrom=1.0), seed=0), parameters)
    near_small = [found[i] for i, j in matched(places(found), centres_small, 14.0) if apart[j]]
    near_large = [found[i] for i, _ in matched(places(found), centres_large, 14.0)]
    assert len(near_large) >= 6
    assert len(near_small) >= 0.7 * apart.sum()
    assert np.median([p.diameter_angstrom for p in near_small]) < np.median([p.diameter_angstrom for p in near_large])


def contaminated(truth: Truth, pixel: float) -> tuple[Image, Image]:
    """The micrograph with ice blobs 300 Å wide, gold beads and hot pixels; where the ice and the gold are."""
    rng = np.random.default_rng(1)
    image = truth.image.copy()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    places = rng.uniform(200, np.array(image.shape[::-1]) - 200, (5, 2))
    for i, (cx, cy) in enumerate(places):
        rho = np.hypot(y - cy, x - cx) * pixel
        image *= 1.0 - (0.5 * np.exp(-((rho / 120.0) ** 2) / 2) if i < 2 else 0.7 * (rho < 50.0))
    image[rng.integers(0, 1000, 20), rng.integers(0, 1000, 20)] += 3000.0
    return image.astype(np.float32), places


def test_contamination_is_not_picked_and_does_not_hide_the_particles() -> None:
    pixel = 2.0
    truth = simulated(Scene(particle="lumps", pixel_size_angstrom=pixel, particle_count=90, contrast=0.5, seed=12))
    image, dirt = contaminated(truth, pixel)
    found = places(picks_of(image, truth.diameter_angstrom, pixel))
    from_dirt = np.hypot(*(found[:, None] - dirt[None]).transpose(2, 0, 1))
    assert (from_dirt[:, :2].min(axis=1) > 150.0 / pixel).all()
    assert (from_dirt[:, 2:].min(axis=1) > 40.0 / pixel).all()
    clear = np.hypot(*(truth.centres[:, None] - dirt[None]).transpose(2, 0, 1)).min(axis=1) > 450.0 / pixel
    _, recall = precision_and_recall(found, truth.centres[clear], truth.diameter_angstrom / pixel, image.shape)
    assert recall > 0.85


def test_a_lone_strong_object_does_not_bring_noise_with_it() -> None:
    image = np.random.default_rng(2).poisson(40.0, (800, 800)).astype(np.float32)
    y, x = np.mgrid[:800, :800]
    image -= 25.0 * (np.hypot(y - 420, x - 300) < 45)
    found = places(picks_of(np.maximum(image, 0.0), 150.0))
    assert len(found) <= 2
    assert np.hypot(*(found - [300, 420]).T).min() < 10.0


@pytest.mark.parametrize("count", [1, 3, 12])
def test_few_particles_are_found_as_well(count: int) -> None:
    truth = simulated(Scene(particle="double ring", pixel_size_angstrom=2.0, particle_count=count, seed=count))
    found = places(picks_of(truth.image, truth.diameter_angstrom, 2.0))
    precision, recall = precision_and_recall(found, truth.centres, truth.diameter_angstrom / 2.0, truth.image.shape)
    assert recall == 1.0
    assert precision > 0.7


def test_the_count_stops_where_noise_begins() -> None:
    noise = np.arange(1.0, 60.0)
    particles = np.full(20, 1e-6)
    assert count_accepted(np.concatenate([particles, noise]), 0.2) <= 22
    assert count_accepted(np.concatenate([particles, noise]), 0.2) >= 20
    assert count_accepted(noise, 0.2) == 0
    assert count_accepted(np.array([0.01]), 0.2) == 1
    assert count_accepted(np.array([0.15]), 0.2) == 0
    assert count_accepted(np.zeros(0), 0.2) == 0


def test_sizes_and_shares_that_make_no_sense_are_refused() -> None:
    for low, high in ((0.0, 100.0), (120.0, 100.0), (-5.0, 5.0), (100.0, float("inf")), (float("nan"), 100.0)):
        with pytest.raises(InputError, match="particle diameter"):
            BlobParameters(diameter_min_angstrom=low, diameter_max_angstrom=high)
    for wrong in ({"false_share": 0.0}, {"false_share": 1.0}, {"max_picks": 0}, {"min_distance_diameters": -1.0}):
        with pytest.raises(InputError, match="share of false picks"):
            BlobParameters(diameter_min_angstrom=100.0, diameter_max_angstrom=100.0, **wrong)


def test_long_particles_are_found_by_ellipses_in_any_turn() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:700, :700].astype(np.float64)
    centres = np.array([(75.0 + 110 * i, 75.0 + 110 * j) for i in range(6) for j in range(6)]) + rng.uniform(-8, 8, (36, 2))
    image = rng.normal(100.0, 4.0, x.shape)
    for (cx, cy), turn in zip(centres, rng.uniform(0, np.pi, len(centres)), strict=True):
        along, across = ((x - cx) * np.cos(turn + q) + (y - cy) * np.sin(turn + q) for q in (0.0, np.pi / 2))
        image -= 3.0 * ((2 * along / 90.0) ** 2 + (2 * across / 30.0) ** 2 < 1)
    parameters = BlobParameters(diameter_min_angstrom=30.0, diameter_max_angstrom=90.0, shapes=("ellipse",))
    found = places(
        picked(search(image.astype(np.float32), parameters, optics=Optics(pixel_size_angstrom=1.0), seed=1), parameters)
    )
    pairs = matched(found, centres, 0.1 * 90.0)
    assert len(pairs) >= 0.95 * len(centres)
    assert len(pairs) >= 0.9 * len(found)


@pytest.mark.parametrize("shapes", [(), ("square",), ("circle", "disc")])
def test_shapes_that_are_none_are_refused(shapes: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="circle, ellipse, ring"):
        BlobParameters(diameter_min_angstrom=30.0, diameter_max_angstrom=90.0, shapes=shapes)


def test_a_peak_beside_one_of_twice_its_score_is_a_shadow() -> None:
    points = np.array([(50, 50), (50, 200), (50, 72), (62, 200), (300, 300)])
    score = np.array([0.9, 0.6, 0.4, 0.5, 0.1])
    assert shadows(points, score, 25.0).tolist() == [False, False, True, False, False]
