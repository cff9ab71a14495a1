"""The gain check asks the first movies and tells every exposure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from frazil_preprocess.gain_check import GainCheck

GAIN = np.exp(np.random.default_rng(1).normal(0, 0.05, (96, 128))).astype(np.float32)


def movie(mean: float, seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).poisson(mean / GAIN, (8, *GAIN.shape)).astype(np.uint8)


def test_a_turned_gain_is_told_with_every_exposure_and_a_new_one_is_asked_about_anew() -> None:
    check = GainCheck()
    flipped = np.ascontiguousarray(GAIN[::-1])
    first = check.sentence(movie(40, 2), flipped, 0, "y")
    assert "gain rotation 0 and flip none" in first
    assert check.sentence(np.zeros_like(movie(1, 3)), flipped, 0, "y") == first  # not asked again
    assert check.sentence(movie(40, 4), GAIN, 0, "none") == ""


def test_faint_movies_are_added_up_until_they_tell() -> None:
    check = GainCheck()
    flipped = np.ascontiguousarray(GAIN[:, ::-1])
    told = [check.sentence(movie(0.15, seed), flipped, 0, "none") != "" for seed in range(15)]
    assert not told[0]
    assert told[-1]


def test_no_gain_or_one_of_another_shape_is_not_asked_about() -> None:
    assert GainCheck().sentence(movie(1, 2), None, 0, "none") == ""
    assert GainCheck().sentence(movie(1, 2), GAIN[:, :64], 0, "none") == ""
