"""A gain that is turned, of the wrong sense, of another camera, or right: the movies tell, when they can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.gain_orientation import GainOrientation, gain_sentence, weigh_orientations

Image = np.ndarray[Any, Any]
WAYS = [(rotate, flip) for rotate in range(4) for flip in ("none", "x", "y")]


def camera(shape: tuple[int, int] = (128, 160), seed: int = 3) -> Image:
    gain = np.exp(np.random.default_rng(seed).normal(0, 0.03, shape)).astype(np.float32)
    gain[:, ::20] *= 0.95
    gain[5, 7] = 0
    return gain


def counts(gain: Image, mean: float = 800.0, seed: int = 4) -> Image:
    """Raw counts of a camera under uneven light: a factor cancels a sensitivity."""
    y, x = np.mgrid[: gain.shape[0], : gain.shape[1]]
    light = mean * (1 + 0.2 * np.sin(x / 60) * np.cos(y / 50))
    return np.random.default_rng(seed).poisson(light / np.where(gain > 0, gain, np.inf))


def turn(gain: Image, rotate: int, flip: str) -> Image:
    """What `io.gain_reference` does with the session's settings."""
    gain = np.rot90(gain, k=-rotate)
    return {"none": gain, "x": gain[:, ::-1], "y": gain[::-1]}[flip]


@pytest.mark.parametrize(("rotate", "flip"), WAYS)
def test_settings_that_are_named_do_fit(rotate: int, flip: str) -> None:
    stored = camera((128, 128))
    total = counts(turn(stored, 1, "x"))  # how the file must be turned in truth
    given = turn(stored, rotate, flip)
    evidence = weigh_orientations(given, total)
    best = evidence.ranked[0]
    assert best.correlation < -0.5
    np.testing.assert_array_equal(turn(stored, *best.after(rotate, flip)), turn(stored, 1, "x"))
    sentence = gain_sentence(evidence, rotate, flip)
    right = np.array_equal(given, turn(stored, 1, "x"))
    assert (sentence == "") is right
    assert right or "fits the movies with gain rotation 1 and flip x" in sentence


def test_only_orientations_of_the_right_shape_are_weighed() -> None:
    evidence = weigh_orientations(camera(), counts(camera()))
    assert {one.rotate for one in evidence.ranked} == {0, 2}
    assert evidence.ranked[0] == evidence.as_given


def test_a_gain_of_the_other_sense_is_told() -> None:
    gain = camera()
    sensitivity = np.divide(1.0, gain, out=np.zeros_like(gain), where=gain > 0)
    sentence = gain_sentence(weigh_orientations(sensitivity, counts(gain)), 0, "none")
    assert "set the other gain sense (correlation +0." in sentence
    turned = gain_sentence(weigh_orientations(sensitivity[::-1], counts(gain)), 0, "y")
    assert "set the other gain sense, rotation 0 and flip none" in turned


def test_a_gain_of_another_camera_is_told() -> None:
    sentence = gain_sentence(weigh_orientations(camera(seed=9), counts(camera())), 2, "none")
    assert "fits the movies in no orientation; as set (rotation 2, flip none)" in sentence


def test_movies_with_too_few_counts_say_nothing_wrong() -> None:
    for seed in range(5):
        total = counts(camera(), mean=0.05, seed=seed)
        assert gain_sentence(weigh_orientations(camera(seed=9), total), 0, "none") == ""


def test_flat_images_have_no_correlation() -> None:
    evidence = weigh_orientations(np.ones((64, 64), np.float32), np.zeros((64, 64)))
    assert {one.correlation for one in evidence.ranked} == {0.0}
    assert GainOrientation(0, False, 0.0) in evidence.ranked
    assert gain_sentence(evidence, 0, "none") == ""
