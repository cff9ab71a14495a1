"""Directions of templates: as many as asked for, evenly spread, each side of a symmetric particle once."""

from __future__ import annotations

import numpy as np
import pytest

from frazil.algorithms.templates import even_views
from frazil.primitives.rotations import sphere_points
from frazil.primitives.symmetry import symmetry


def covering_degrees(views: np.ndarray) -> float:
    """Return how far the direction that is farthest from any view is from it."""
    cosine = (sphere_points(5000) @ views.T).max(axis=1).min()
    return float(np.degrees(np.arccos(cosine)))


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "D7", "T", "O", "I"])
def test_with_their_mates_views_cover_the_sphere_as_evenly_as_points_without_symmetry(name: str) -> None:
    group = symmetry(name)
    views = even_views(480, group)
    assert len(views) == round(480 / group.order)
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1.0)
    mates = np.einsum("gij,vj->gvi", group.operators, views).reshape(-1, 3)
    assert covering_degrees(mates) < 1.2 * covering_degrees(sphere_points(len(mates)))


def test_there_is_at_least_one_view() -> None:
    assert even_views(1, symmetry("I")).shape == (1, 3)
