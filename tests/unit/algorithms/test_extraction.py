from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.extraction import BoxAdvice, advise_box, extract
from frazil.model.errors import InputError
from frazil.model.particles import Pick

PLAIN = BoxAdvice(box_size_px=32, output_box_px=32)


def pick_at(x: float, y: float) -> Pick:
    return Pick(x_px=x, y_px=y, score=0.5, power=1.0, diameter_angstrom=20.0)


def micrograph(shape: tuple[int, int] = (120, 160), seed: int = 0) -> np.ndarray[Any, Any]:
    return (100.0 + 5.0 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def cut(image: Any, *picks: Pick, box: BoxAdvice = PLAIN, diameter: float = 20.0, seed: int = 0) -> Any:
    return extract(image, picks, box=box, pixel_size_angstrom=1.0, particle_diameter_angstrom=diameter, seed=seed)


def background(size: int, radius: float) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[:size, :size] - size // 2
    return np.asarray(np.hypot(y, x) > radius)


def test_a_particle_is_the_slice_around_the_nearest_pixel(xp: Any) -> None:
    image = micrograph()
    found = cut(xp.asarray(image), pick_at(70.4, 59.6), pick_at(40.0, 50.0))
    assert found.images.shape == (2, 32, 32)
    assert found.images.dtype == xp.float32
    assert found.kept.tolist() == [0, 1]
    assert found.pixel_size_angstrom == 1.0
    raw = image[60 - 16 : 60 + 16, 70 - 16 : 70 + 16].astype(np.float64)
    outside = background(32, 12.0)
    y, x = np.mgrid[:32, :32]
    plane = np.stack([np.ones(1024), y.ravel(), x.ravel()], axis=1)
    level = plane @ np.linalg.lstsq(plane[outside.ravel()], raw[outside], rcond=None)[0]
    flat = raw - level.reshape(32, 32)
    expected = -flat / np.sqrt((flat[outside] ** 2).mean())
    np.testing.assert_allclose(np.asarray(found.images)[0], expected, atol=2e-4)


def test_the_background_has_mean_0_and_deviation_1() -> None:
    found = cut(
        micrograph((300, 300)),
        *(pick_at(60.0 + 20 * i, 150.0) for i in range(8)),
        box=BoxAdvice(box_size_px=80, output_box_px=48),
    )
    outside = background(48, max(10.0 / (80 / 48), 0.75 * 24))
    values = found.images[:, outside]
    assert np.abs(values.mean(axis=1)).max() < 1e-3
    assert np.abs(values.std(axis=1) - 1.0).max() < 1e-3
    assert found.pixel_size_angstrom == 80 / 48


def test_moving_the_pick_moves_the_content_the_other_way() -> None:
    image = micrograph()
    image[60, 70] -= 36.0  # of 5: it stands out, and is no dust yet
    for dx, dy in ((1, 0), (0, 1), (-3, 2)):
        found = cut(image, pick_at(70.0 + dx, 60.0 + dy)).images[0]
        y, x = np.unravel_index(np.argmax(found), found.shape)
        assert (x, y) == (16 - dx, 16 - dy)


def test_particles_come_out_white() -> None:
    image = micrograph()
    y, x = np.mgrid[:120, :160]
    image -= 10.0 * (np.hypot(y - 60, x - 70) < 8)
    found = cut(image, pick_at(70.0, 60.0)).images[0]
    assert found[~background(32, 7.0)].mean() > 1.0


def test_a_ramp_comes_out_flat(xp: Any) -> None:
    y, x = np.mgrid[:120, :160]
    ramp = (1000.0 + 3.0 * x - 2.0 * y).astype(np.float32)
    found = cut(xp.asarray(ramp), pick_at(70.0, 60.0), pick_at(60.0, 40.0))
    assert not np.asarray(found.images).any()


def test_a_ramp_under_noise_changes_nothing() -> None:
    image = micrograph()
    y, x = np.mgrid[:120, :160]
    plain, tilted = (cut(a, pick_at(70.0, 60.0)).images for a in (image, image * 4.0 + (0.5 * x - 0.3 * y).astype(np.float32)))
    np.testing.assert_allclose(plain, tilted, atol=2e-3)


def test_cropping_keeps_the_centre_and_the_low_frequencies() -> None:
    y, x = np.mgrid[:200, :200].astype(np.float64)
    blob = np.exp(-((y - 101.0) ** 2 + (x - 99.0) ** 2) / (2 * 6.0**2))
    image = (100.0 - 50.0 * blob + 0.01 * np.random.default_rng(0).normal(size=(200, 200))).astype(np.float32)
    found = cut(image, pick_at(99.0, 101.0), box=BoxAdvice(box_size_px=96, output_box_px=32), diameter=50.0)
    small = found.images[0]
    assert found.pixel_size_angstrom == 3.0
    assert np.unravel_index(np.argmax(small), small.shape) == (16, 16)
    np.testing.assert_allclose(small[16, 17] / small[16, 16], np.exp(-(3.0**2) / 72.0), rtol=2e-2)
    np.testing.assert_allclose(small[1:, 1:], small[1:, 1:][::-1, ::-1], atol=0.02 * small.max())


def test_boxes_over_the_edge_are_filled_with_noise(xp: Any) -> None:
    image = xp.asarray(micrograph())
    found = cut(image, pick_at(8.0, 60.0), seed=5)
    outside = np.asarray(found.images)[0][:, :8]
    assert abs(outside.mean()) < 0.3
    assert outside.std() == pytest.approx(1.0, abs=0.15)
    again = cut(image, pick_at(70.0, 60.0), pick_at(8.0, 60.0), seed=5)
    np.testing.assert_array_equal(np.asarray(found.images)[0], np.asarray(again.images)[1])
    other = np.asarray(cut(image, pick_at(8.0, 60.0), seed=6).images)[0]
    assert not np.array_equal(other[:, :8], outside)
    np.testing.assert_array_equal(other[:, 8:], np.asarray(found.images)[0][:, 8:])


def test_particles_cut_by_the_edge_are_left_out() -> None:
    found = cut(
        micrograph(), pick_at(5.0, 60.0), pick_at(80.0, 60.0), pick_at(157.0, 60.0), pick_at(80.0, 1.0), pick_at(80.0, 112.0)
    )
    assert found.kept.tolist() == [1, 4]


def test_nothing_picked_is_nothing_extracted(xp: Any) -> None:
    found = cut(xp.asarray(micrograph()))
    assert found.images.shape == (0, 32, 32)
    assert found.kept.size == 0


def test_pixels_that_are_not_finite_do_not_spread() -> None:
    image = micrograph()
    image[58:60, 71] = np.nan
    assert np.isfinite(cut(image, pick_at(70.0, 60.0)).images).all()


def test_many_particles_are_the_same_as_one_by_one() -> None:
    image = micrograph((200, 400))
    picks = [pick_at(20.0 + i, 30.0 + i % 140) for i in range(300)]
    found = cut(image, *picks)
    assert found.kept.tolist() == list(range(300))
    np.testing.assert_allclose(found.images[299], cut(image, picks[299]).images[0], atol=1e-5)


def test_dust_becomes_noise_and_nothing_else_changes(xp: Any) -> None:
    clean = micrograph()
    dusty = clean.copy()
    spots = [(60, 70), (52, 80), (71, 62), (66, 82)]  # in the particle and in the background, white and black
    for (y, x), deviations in zip(spots, (400.0, -60.0, 12.0, -2000.0), strict=True):
        dusty[y, x] += 5.0 * deviations
    expected = cut(clean, pick_at(70.0, 60.0)).images[0]
    found = np.asarray(cut(xp.asarray(dusty), pick_at(70.0, 60.0)).images)[0]
    there = np.zeros((32, 32), dtype=bool)
    for y, x in spots:
        there[y - 44, x - 54] = True
    np.testing.assert_allclose(found[~there], expected[~there], atol=0.05)
    assert np.abs(found[there]).max() < 4.5
    assert len(set(found[there].tolist())) == len(spots)  # noise, not a constant
    kept = extract(
        dusty,
        [pick_at(70.0, 60.0)],
        box=PLAIN,
        pixel_size_angstrom=1.0,
        particle_diameter_angstrom=20.0,
        seed=0,
        dust_deviations=float("inf"),
    )
    assert np.abs(kept.images[0][there]).max() > 10.0


def test_a_particle_that_stands_out_from_little_noise_is_no_dust() -> None:
    image = (100.0 + 0.01 * np.random.default_rng(0).normal(size=(120, 160))).astype(np.float32)
    y, x = np.mgrid[:120, :160]
    image -= 10.0 * (np.hypot(y - 60, x - 70) < 6)
    found = cut(image, pick_at(70.0, 60.0)).images[0]
    assert found[~background(32, 5.0)].min() > 100.0


@pytest.mark.parametrize("sizes", [(33, 32), (32, 31), (32, 34), (32, 0)])
def test_odd_and_senseless_boxes_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="must be even"):
        cut(micrograph(), pick_at(70.0, 60.0), box=BoxAdvice(box_size_px=sizes[0], output_box_px=sizes[1]))


@pytest.mark.parametrize("diameter", [80.0, 120.0, 170.0, 300.0, 700.0])
@pytest.mark.parametrize("pixel", [0.5, 0.83, 1.5, 3.5])
def test_advised_boxes_hold_the_particle_and_suit_2d_classes(diameter: float, pixel: float) -> None:
    advice = advise_box(diameter, pixel)
    output_pixel = pixel * advice.box_size_px / advice.output_box_px
    assert advice.box_size_px % 2 == advice.output_box_px % 2 == 0
    assert advice.box_size_px * pixel >= 1.5 * diameter
    assert advice.output_box_px <= advice.box_size_px
    assert max(3.0, pixel) - 0.1 <= output_pixel <= max(6.7, 1.1 * pixel)
    if 140.0 <= diameter <= 230.0 and pixel < 3.0:
        assert 56 <= advice.output_box_px <= 64


def test_defocus_makes_boxes_larger() -> None:
    assert advise_box(100.0, 1.0, defocus_angstrom=40_000.0).box_size_px > advise_box(100.0, 1.0).box_size_px
    with pytest.raises(InputError, match="positive particle diameter"):
        advise_box(0.0, 1.0)


def test_a_particle_of_a_few_pixels_and_a_box_inside_the_particle_are_refused() -> None:
    with pytest.raises(InputError, match="check diameter and pixel size"):
        advise_box(30.0, 5.0)
    with pytest.raises(InputError, match="smaller than the particle"):
        cut(micrograph(), pick_at(70.0, 60.0), diameter=40.0)


def test_a_box_that_the_micrograph_cannot_hold_is_refused() -> None:
    cut(micrograph((32, 160)), pick_at(70.0, 16.0))
    with pytest.raises(InputError, match="A box of 32 px does not fit a micrograph of 160 by 30 px: make it smaller"):
        cut(micrograph((30, 160)), pick_at(70.0, 15.0))
