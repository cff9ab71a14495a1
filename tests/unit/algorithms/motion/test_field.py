"""Shift fields and RELION's form of them, against polynomials written out."""

from __future__ import annotations

import numpy as np

from frazil.algorithms.motion.field import (
    EXPONENTS,
    ShiftField,
    grid_places,
    local_rms,
    mean_terms,
    orthonormal_basis,
    relative_places,
    whole_frame,
)
from frazil.algorithms.motion.relion import relion_model, relion_shifts


def random_field(rng: np.random.Generator, frame_count: int = 12, degree: int = 3) -> ShiftField:
    coefficients = rng.normal(size=(frame_count, len(EXPONENTS), 2))
    coefficients[:, [sum(powers) > degree for powers in EXPONENTS]] = 0
    coefficients[0] = 0
    return ShiftField(coefficients)


def test_field_is_the_polynomial() -> None:
    field = random_field(np.random.default_rng(0))
    y, x = relative_places(np.array([[30.0, 160.0]]), (120, 200))[0]
    np.testing.assert_allclose((y, x), (-0.25, 0.3))
    c = field.coefficients[5]
    terms = (1, x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3)
    expected = sum(term * row for term, row in zip(terms, c, strict=True))
    np.testing.assert_allclose(field.at(np.array([[y, x]]))[5, 0], expected)


def test_tiles_tell_the_mean_of_what_they_hold() -> None:
    """Means of the terms over a tile, against its integral: of y^3 about c with side a, c^3 + c a^2 / 4."""
    means = mean_terms(np.array([[0.2, -0.1]]), np.array([0.3, 0.4]))[0]
    np.testing.assert_allclose(means[EXPONENTS.index((3, 0))], 0.2**3 + 0.2 * 0.3**2 / 4, rtol=0.02)
    np.testing.assert_allclose(means[EXPONENTS.index((1, 1))], -0.02, rtol=1e-6)


def test_basis_is_orthonormal_and_small_grids_allow_low_powers_only() -> None:
    for rows, columns, functions in ((5, 7, 10), (2, 3, 6), (1, 4, 4), (1, 1, 1)):
        y, x = (np.arange(rows) + 0.5) / rows - 0.5, (np.arange(columns) + 0.5) / columns - 0.5
        centres = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
        tile_terms = mean_terms(centres, np.array([1 / rows, 1 / columns]))
        values, polynomials = orthonormal_basis(tile_terms, rows, columns)
        assert values.shape[1] == functions
        np.testing.assert_allclose(values.T @ values / len(centres), np.eye(functions), atol=1e-9)
        np.testing.assert_allclose(tile_terms @ polynomials, values, atol=1e-9)


def test_relions_own_model_comes_back() -> None:
    """A free whole-frame path plus RELION's polynomial, written out, is fitted exactly, in its order of coefficients."""
    rng = np.random.default_rng(1)
    z = np.arange(12.0)
    a, b = rng.normal(size=(2, 18)) / np.tile([10.0, 100.0, 1000.0], 6)
    a[:3] = b[:3] = 0
    whole = rng.normal(size=(12, 2))
    whole[0] = 0
    order = ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (1, 1))  # powers of Y and X: 1, X, X², Y, Y², XY
    coefficients = np.zeros((12, len(EXPONENTS), 2))
    for i, powers in enumerate(order):
        course = np.stack([z, z**2, z**3], axis=1)
        coefficients[:, EXPONENTS.index(powers), 1] += course @ a[3 * i : 3 * i + 3]
        coefficients[:, EXPONENTS.index(powers), 0] += course @ b[3 * i : 3 * i + 3]
    coefficients[:, 0] += whole
    got_whole, got = relion_model(ShiftField(coefficients))
    np.testing.assert_allclose(got, np.concatenate([a, b]), atol=1e-9)
    np.testing.assert_allclose(got_whole, whole, atol=1e-6)
    places = grid_places(4)
    np.testing.assert_allclose(relion_shifts(got_whole, got, places), ShiftField(coefficients).at(places), atol=1e-6)


def test_motion_alike_everywhere_has_no_local_part() -> None:
    field = whole_frame(np.cumsum(np.ones((6, 2)), axis=0) - 1)
    whole, coefficients = relion_model(field)
    np.testing.assert_allclose(whole, field.middle, atol=1e-9)
    np.testing.assert_allclose(coefficients, 0, atol=1e-9)
    assert local_rms(field) == 0
