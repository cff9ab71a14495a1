"""Optics groups: the pattern of shots is found, and a number once given stays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from frazil.algorithms.optics_groups import SERIALEM_RADIUS_UM, name_token, optics_groups


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("FoilHole_21746001_Data_21744881_21745101_20260105_090012_fractions.tiff", "21744881"),
        ("FoilHole_1_Data_55_66_20240305_101112_EER.eer", "55"),
        ("grid1_00012_X+1Y-1-2.tif", "X+1Y-1-2"),
        ("grid1_00012_X+0Y+0-1_Jan05_09.00.12.tif", "X+0Y+0-1"),
        ("movie_0001.mrc", ""),
    ],
)
def test_tokens(name: str, token: str) -> None:
    assert name_token(name) == token


def afis(holes: int, seed: int = 1) -> tuple[list[tuple[str, tuple[float, float]]], list[tuple[int, int]]]:
    """An EPU session: 9 holes by image shift around each stage position, 2 shots each, the shifts scattered."""
    rng = np.random.default_rng(seed)
    movies, truth = [], []
    for stage, place, shot in itertools.product(range(holes), range(9), range(2)):
        shift = 0.16 * np.array([place % 3 - 1, place // 3 - 1]) + rng.normal(0, 0.008, 2)
        name = f"FoilHole_{stage}{place}_Data_{7000 + shot}_1_20260101_0000{stage:02d}_fractions.tiff"
        movies.append((name, (float(shift[0]), float(shift[1]))))
        truth.append((place, shot))
    return movies, truth


def test_the_pattern_of_shots_is_found() -> None:
    movies, truth = afis(20)
    groups = optics_groups(movies)
    pairs = set(zip(groups, truth, strict=True))
    assert len(pairs) == len(set(groups)) == len(set(truth)) == 18


def test_numbers_stay_as_movies_come_in_and_after_a_restart() -> None:
    movies, _ = afis(20)
    whole = optics_groups(movies)
    for length in range(0, len(movies), 31):
        assert optics_groups(movies[:length]) == whole[:length]
    assert whole[0] == 1
    assert sorted(set(whole)) == list(range(1, 19))


def test_serialem_tells_shots_by_name_or_by_shift() -> None:
    named = [f"g_{i:03d}_X{x:+d}Y{y:+d}-1.tif" for i in range(4) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    assert len(set(optics_groups([(name, (None, None)) for name in named]))) == 9
    shifted = [(f"g_{i}.tif", (2.5 * (i % 3) + 0.1 * (i % 2), 0.0)) for i in range(30)]
    assert len(set(optics_groups(shifted, SERIALEM_RADIUS_UM))) == 3


def test_a_movie_without_a_shift_has_a_group_of_its_own_kind() -> None:
    groups = optics_groups(
        [("a.mrc", (None, None)), ("b.mrc", (0.0, 0.0)), ("c.mrc", (float("nan"), 0.0)), ("d.mrc", (0.0, 0.01))]
    )
    assert groups == (1, 2, 1, 2)
