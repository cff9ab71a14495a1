from __future__ import annotations

import numpy as np
import pytest

from frazil.primitives.peaks import local_maxima, separated, subpixel


def bump(shape: tuple[int, int], y: float, x: float, sigma: float = 2.0) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


def test_maxima_are_found_highest_first() -> None:
    score = bump((40, 60), 10, 12) + 2 * bump((40, 60), 30, 45)
    assert local_maxima(score)[:2].tolist() == [[30, 45], [10, 12]]


def test_maxima_near_the_edge_are_left_out() -> None:
    score = bump((40, 60), 3, 30) + bump((40, 60), 20, 30)
    assert local_maxima(score, edge_px=5.0).tolist() == [[20, 30]]
    assert [3, 30] in local_maxima(score, edge_px=3.0).tolist()


def test_a_plateau_counts_once_and_a_constant_map_never() -> None:
    score = np.zeros((9, 9))
    score[3:6, 3:6] = 1.0
    assert [p for p in local_maxima(score).tolist() if score[tuple(p)] > 0] == [[3, 3]]
    assert len(local_maxima(np.zeros((9, 9)))) == 0


def test_maxima_agree_with_brute_force() -> None:
    score = np.random.default_rng(0).normal(size=(30, 35))
    expected = {(y, x) for y in range(1, 29) for x in range(1, 34) if score[y, x] == score[y - 1 : y + 2, x - 1 : x + 2].max()}
    assert {tuple(p) for p in local_maxima(score).tolist()} == expected


def test_separation_keeps_the_better_of_two() -> None:
    points = np.array([[0, 0], [0, 3], [0, 6], [10, 10]])
    assert separated(points, 4.0).tolist() == [0, 2, 3]
    assert separated(points, 3.0).tolist() == [0, 1, 2, 3]  # a distance apart is far enough
    assert separated(points, 0.0).tolist() == [0, 1, 2, 3]
    assert separated(points[:0], 4.0).size == 0


def test_separation_agrees_with_brute_force() -> None:
    points = np.random.default_rng(1).uniform(0, 50, (200, 2))
    kept: list[int] = []
    for i, point in enumerate(points):
        if all(np.hypot(*(point - points[j])) >= 7.0 for j in kept):
            kept.append(i)
    assert separated(points, 7.0).tolist() == kept


@pytest.mark.parametrize(("y", "x"), [(12.0, 20.0), (12.3, 19.6), (11.55, 20.45)])
def test_parabolas_find_the_fraction_of_a_pixel(y: float, x: float) -> None:
    score = bump((30, 40), y, x, 3.0)
    place = subpixel(score, local_maxima(score)[:1])[0]
    np.testing.assert_allclose(place, [y, x], atol=0.02)
