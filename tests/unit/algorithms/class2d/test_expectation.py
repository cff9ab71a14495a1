"""The E-step and the sums of the M-step against brute force and planted truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.class2d.expectation import Search, Tile, expect, make_bank, tile_posterior
from frazil.algorithms.class2d.grid import Grid, make_grid
from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.class2d.state import ParticleTable, fresh_particles
from frazil.algorithms.class2d.transforms import images_to_padded, shift_phases
from frazil.array import to_host

BOX, PIXEL = 32, 4.0
SHIFTS = (np.array([[x, y] for y in (-1, 0, 1) for x in (-1, 0, 1)]) * 4.0).astype(np.float32)


class Planted(ParticleImages):
    """A store whose coefficients are given instead of loaded."""

    def __init__(self, grid: Grid, coefficients: np.ndarray, ctf: np.ndarray) -> None:
        super().__init__(grid)
        self._slabs.append((coefficients.astype(np.complex64), ctf.astype(np.float32), np.zeros((0, 0))))
        self._first.append(len(coefficients))


def references(grid: Grid, count: int, seed: int = 0) -> np.ndarray:
    """Random smooth blobs on padded grids."""
    random = np.random.default_rng(seed)
    y, x = np.meshgrid(to_host(grid.offset), to_host(grid.offset), indexing="ij")
    images = np.zeros((count, grid.size, grid.size))
    for image in images:
        for px, py in random.uniform(-25, 25, (5, 2)):
            image += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 8**2))
    return images_to_padded(grid, images)


def search(grid: Grid, refs: np.ndarray, **changes: Any) -> Search:
    xp = grid.xp
    real = xp.float64 if refs.dtype == xp.complex128 else xp.float32
    values: dict[str, Any] = {
        "references": refs,
        "deviation": xp.full(grid.count(9.0), changes.pop("sigma", 0.3), dtype=real),
        "bias": xp.zeros(refs.shape[0], dtype=real),
        "angles": np.arange(24) * 2 * np.pi / 24,
        "shifts": SHIFTS,
        "shift_sigma_angstrom": 12.0,
        "cutoff": 10.0,
    }
    return Search(**{**values, **changes})


def table_of(count: int) -> ParticleTable:
    return fresh_particles(np.arange(count, dtype=np.uint64), 1)


@pytest.mark.parametrize(
    ("complex_type", "tolerance"), [(np.complex128, 1e-12), (np.complex64, 1e-3)], ids=["double", "single"]
)
def test_the_matrix_form_equals_the_sum_of_squared_differences(complex_type: Any, tolerance: float) -> None:
    """log L(hypothesis) - log L(no particle) = -1/2 sum |x e^{2 pi i k t} - C m|^2 + 1/2 sum |x|^2, one at a time."""
    random = np.random.default_rng(1)
    grid = make_grid(BOX, PIXEL, 12.0, np)
    what = search(grid, references(grid, 3).astype(complex_type), angles=np.arange(8) * np.pi / 4, cutoff=1e4)
    bank, count = make_bank(grid, what), what.count
    x = (random.normal(size=(4, count)) + 1j * random.normal(size=(4, count))).astype(complex_type)
    ctf = random.uniform(-1, 1, (4, count)).astype(x.real.dtype)
    prior = random.normal(size=(4, len(SHIFTS))).astype(x.real.dtype)
    found, _ = tile_posterior(bank, Tile(x, ctf, prior), what.bias, what.cutoff)

    value = np.empty((4, len(SHIFTS), len(bank.templates)))
    for i in range(4):
        for t, phase in enumerate(shift_phases(grid, SHIFTS.astype(x.real.dtype), count)):
            for h, template in enumerate(bank.templates):
                difference = x[i] * phase - ctf[i] * template
                value[i, t, h] = (np.abs(x[i]) ** 2).sum() / 2 - (np.abs(difference) ** 2).sum() / 2 + prior[i, t]
    top = value.max(axis=(1, 2), keepdims=True)
    weights = np.exp(value - top)
    total = weights.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found.log_likelihood, (top + np.log(total)).ravel(), rtol=tolerance)
    np.testing.assert_allclose(found.weights, weights / total, atol=tolerance)


def test_planted_class_angle_and_shift_are_found_with_their_signs(xp: Any) -> None:
    """Content moved by +t is found at +t; a reference turned by psi is found at psi (docs/conventions.md)."""
    grid = make_grid(BOX, PIXEL, 12.0, xp)
    refs = xp.astype(xp.asarray(references(make_grid(BOX, PIXEL, 12.0, np), 3)), xp.complex64)
    what = search(grid, refs, sigma=0.05)
    templates = to_host(make_bank(grid, what).templates).reshape(3, 24, -1) * 0.05
    truth = [(2, 5, (8.0, -4.0)), (0, 17, (-4.0, 4.0)), (1, 0, (0.0, 12.0))]
    rows = [templates[k, p] * to_host(shift_phases(grid, xp.asarray(np.array([t])), what.count))[0].conj() for k, p, t in truth]
    table = table_of(3)
    table.shift[:] = table.centre[:] = np.array([[4.0, -4.0], [0.0, 0.0], [0.0, 8.0]])  # where they were last seen
    expect(grid, Planted(grid, np.array(rows), np.ones((3, what.count))), table, np.arange(3), what)
    assert table.class_index.tolist() == [2, 0, 1]
    np.testing.assert_allclose(np.rad2deg(table.psi), [75, 255, 0], atol=1e-4)
    np.testing.assert_allclose(table.shift, [[8, -4], [-4, 4], [0, 12]], atol=1e-4)
    assert (table.probability > 0.99).all()
    assert (table.log_likelihood > 0).all()


def test_one_class_one_pose_gives_back_image_over_ctf() -> None:
    """K = P = T = 1 without noise: numerator / denominator is X / C on every node where C is not zero."""
    random = np.random.default_rng(2)
    grid = make_grid(BOX, PIXEL, 12.0, np)
    what = search(grid, references(grid, 1).astype(np.complex64), angles=np.zeros(1), shifts=np.zeros((1, 2), np.float32))
    truth = random.normal(size=what.count) + 1j * random.normal(size=what.count)
    ctf = random.uniform(0.2, 1, (1, what.count))
    sums = expect(grid, Planted(grid, truth * ctf, ctf), table_of(1), np.arange(1), what)
    row = 2 * to_host(grid.frequency_y[: what.count]).astype(int) + grid.padded_size // 2
    column = 2 * to_host(grid.frequency_x[: what.count]).astype(int) + grid.padded_size // 2
    numerator = sums.classes.numerator.sum(axis=(0, 1))[row, column]
    denominator = sums.classes.denominator.sum(axis=(0, 1))[row, column]
    np.testing.assert_allclose(numerator / denominator, truth, atol=1e-4)
    assert sums.classes.weight.tolist() == [1.0]


def noisy_store(grid: Grid, refs: np.ndarray, count: int) -> Planted:
    random = np.random.default_rng(3)
    what = search(grid, refs)
    templates = make_bank(grid, what).templates * 0.3
    chosen = templates[random.integers(0, len(templates), count)]
    ctf = random.uniform(-1, 1, chosen.shape)
    noise = random.normal(0, 0.3, (2, *chosen.shape))
    return Planted(grid, chosen * ctf + noise[0] + 1j * noise[1], ctf)


def test_exchanging_classes_exchanges_results() -> None:
    grid = make_grid(BOX, PIXEL, 12.0, np)
    refs = references(grid, 4).astype(np.complex64)
    store, order = noisy_store(grid, refs, 40), np.array([2, 0, 3, 1])
    tables, sums = [], []
    for bank in (refs, refs[order]):
        tables.append(table_of(40))
        sums.append(expect(grid, store, tables[-1], np.arange(40), search(grid, bank)))
    assert (order[tables[1].class_index] == tables[0].class_index).all()
    np.testing.assert_allclose(sums[1].classes.weight, sums[0].classes.weight[order], rtol=1e-4)
    scale = abs(sums[0].classes.numerator).max()
    np.testing.assert_allclose(sums[1].classes.numerator, sums[0].classes.numerator[:, order], atol=1e-4 * scale)


def test_the_likelihood_never_falls_in_full_expectation_maximisation() -> None:
    """Without regularisation, and at right angles, where turned references need no interpolation, EM is exact."""
    grid = make_grid(BOX, PIXEL, 12.0, np)
    store = noisy_store(grid, references(grid, 2, seed=9).astype(np.complex64), 60)
    refs = references(grid, 3, seed=4).astype(np.complex64)
    likelihoods = []
    for _ in range(8):
        table = table_of(60)
        what = search(grid, refs, angles=np.arange(4) * np.pi / 2, cutoff=60.0)
        classes = expect(grid, store, table, np.arange(60), what).classes
        likelihoods.append(table.log_likelihood.astype(float).sum())
        numerator, denominator = classes.numerator.sum(axis=0), classes.denominator.sum(axis=0)
        refs = np.where(denominator > 1e-3, numerator / np.maximum(denominator, 1e-3), 0).astype(np.complex64)
    rise = np.diff(likelihoods)
    assert (rise > -1e-5 * abs(np.array(likelihoods[1:]))).all(), likelihoods
    assert rise[0] > 10


def test_half_sets_are_summed_apart() -> None:
    grid = make_grid(BOX, PIXEL, 12.0, np)
    refs = references(grid, 2).astype(np.complex64)
    store, table = noisy_store(grid, refs, 20), table_of(20)
    table.half[:] = 1
    sums = expect(grid, store, table, np.arange(20), search(grid, refs))
    assert not sums.classes.numerator[0].any()
    assert sums.classes.numerator[1].any()
    assert np.isclose(sums.classes.weight.sum(), 20)


def test_the_residual_of_images_that_fit_is_the_noise() -> None:
    """Per shell, |x - C m|^2 is twice the number of coefficients and images, in units of the noise."""
    grid = make_grid(BOX, PIXEL, 12.0, np)
    refs = references(grid, 2).astype(np.complex64)
    what = search(grid, refs)
    sums = expect(grid, noisy_store(grid, refs, 200), table_of(200), np.arange(200), what)
    members = np.bincount(grid.shells_of(what.count), minlength=grid.shell_count)
    ratio = sums.residual[2:9] / (2 * members[2:9] * 200)
    np.testing.assert_allclose(ratio, 1, atol=0.12)  # poses fit some noise: a little below one
