"""Tiles, weights, prior and posterior: the parts of the maximum a posteriori fit, each against brute force or known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.defects import DefectParameters
from frazil.algorithms.motion.frames import background_of, survey
from frazil.algorithms.motion.posterior import expansion, posterior
from frazil.algorithms.motion.prior import Hyperparameters, trajectory_covariance
from frazil.algorithms.motion.tiles import Tiles, covariances, cut_tiles, gradient, tile_layout
from frazil.algorithms.motion.weights import Exposure, blurred, cut_evidence, shell_weights
from frazil.array import to_host

GROUPS = 5


def noise_movie(shape: tuple[int, int, int] = (GROUPS, 96, 128), seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).poisson(3, shape).astype(np.uint8)


def tiles_of(movie: np.ndarray[Any, Any], xp: Any = np, band: tuple[float, float] = (40.0, 4.0)) -> Tiles:
    """Tiles of 24 to 32 px: 4 x 4 of them in 96 x 128 px."""
    seen = survey(movie, xp.ones(movie.shape[1:], dtype=xp.float32), DefectParameters(), 2, 0)
    still = np.zeros((len(movie), 2))
    layout = tile_layout(seen, still, 1.5, 70.0, band, 12)
    return cut_tiles(seen, still, layout, background_of(seen.total, None, 1.5))


def shells_of(tiles: Tiles) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Coefficients (frame, tile, mode) in double precision and frequencies (mode, 2) as (y, x) of each shell."""
    layout = tiles.layout
    k = np.stack([np.asarray(to_host(a), np.float64) for a in (layout.ky, layout.kx)], axis=1)
    parts = zip(tiles.shells, layout.bounds[:-1], layout.bounds[1:], strict=True)
    return [(np.asarray(to_host(values), np.complex128), k[a:b]) for values, a, b in parts]


def likelihood(tiles: Tiles, shifts: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> float:
    """Sum over tiles, modes and pairs of A Re(conj(G_t) G_u), written out in double precision."""
    value = 0.0
    for shell, (coefficients, k) in enumerate(shells_of(tiles)):
        g = coefficients * np.exp(-2j * np.pi * np.einsum("tpa,ma->tpm", shifts, k))
        value += float(np.einsum("tu,tpm,upm->", weights[shell], g.conj(), g).real)
    return value


def test_gradient_is_the_derivative_of_the_likelihood(xp: Any) -> None:
    tiles = tiles_of(noise_movie(), xp)
    rng = np.random.default_rng(1)
    count = len(tiles.layout.origins)
    assert count == 16
    shifts = rng.normal(size=(GROUPS, count, 2))
    weights = rng.normal(size=(len(tiles.shells), GROUPS, GROUPS)) / 1e3
    weights = weights + weights.transpose(0, 2, 1)
    weights[:, range(GROUPS), range(GROUPS)] = 0
    got = gradient(tiles, shifts, weights, 1.0)
    for t, p in ((0, 0), (1, 5), (2, 3), (4, 1)):
        for axis in (0, 1):
            step = np.zeros_like(shifts)
            step[t, p, axis] = 1e-4
            slope = (likelihood(tiles, shifts + step, weights) - likelihood(tiles, shifts - step, weights)) / 2e-4
            assert got[t, p, axis] == pytest.approx(slope, rel=1e-3, abs=1e-3 * np.abs(got).max())


def test_covariances_by_brute_force(xp: Any) -> None:
    tiles = tiles_of(noise_movie(), xp)
    shifts = np.random.default_rng(2).normal(size=(GROUPS, 16, 2))
    got = covariances(tiles, shifts, 1.0)
    pick = np.zeros((len(tiles.shells), GROUPS, GROUPS))
    for t, u in ((0, 0), (1, 3), (4, 2)):
        for shell, values in enumerate(tiles.shells):
            pick[:] = 0
            pick[shell, t, u] = 1
            assert got[shell, t, u] == pytest.approx(
                likelihood(tiles, shifts, pick) / (16 * values.shape[2]), rel=1e-3, abs=1.0
            )


def test_reordered_frames_give_a_reordered_gradient() -> None:
    movie = noise_movie()
    order = np.array([3, 0, 4, 1, 2])
    shifts = np.random.default_rng(3).normal(size=(GROUPS, 16, 2))
    weights = np.ones((12, GROUPS, GROUPS)) - np.eye(GROUPS)
    straight = gradient(tiles_of(movie), shifts, weights, 1.0)
    reordered = gradient(tiles_of(movie[order]), shifts[order], weights, 1.0)
    np.testing.assert_allclose(reordered, straight[order], rtol=2e-2, atol=1e-3 * np.abs(straight).max())


def test_tiles_hold_each_wave_of_the_half_plane_once() -> None:
    layout = tiles_of(noise_movie((3, 90, 120))).layout
    height, width = layout.shape
    waves = {(round(float(ky) * height), round(float(kx) * width)) for ky, kx in zip(layout.ky, layout.kx, strict=True)}
    assert len(waves) == len(layout.ky)
    assert not any((-ky, -kx) in waves for ky, kx in waves)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    assert 2 * len(waves) == ((radius >= 1.5 / 40) & (radius < 1.5 / 4)).sum()


@pytest.mark.parametrize("pixel_size", [0.5, 1.06, 2.0])
def test_tiles_fit_together_over_the_field(pixel_size: float) -> None:
    movie = noise_movie((3, 300, 420))
    seen = survey(movie, np.ones(movie.shape[1:], np.float32), DefectParameters(), 2, 0)
    layout = tile_layout(seen, np.array([[0.0, 0.0], [6.0, -8.0], [9.0, -4.0]]), pixel_size, 200.0, (60.0, 4.5), 48)
    side = np.array(layout.shape)
    assert layout.origins.min(axis=0).tolist() == [round(9 / layout.factor), 0]
    assert ((layout.origins + side) * layout.factor <= np.array([300, 420 - 8]) + layout.factor).all()
    assert 0.9 < layout.overlap < 1.35
    count, functions = layout.basis.shape
    np.testing.assert_allclose(layout.basis.T @ layout.basis / count, np.eye(functions), atol=1e-9)


def test_tiles_follow_whole_shifts() -> None:
    """A scene that moves by whole pixels has the same coefficients in every frame once the tiles follow."""
    rng = np.random.default_rng(7)
    scene = rng.poisson(20, (140, 180))
    path = np.array([(0, 0), (3, -2), (-4, 6)])
    movie = np.stack([scene[20 - y : 120 - y, 20 - x : 160 - x] for y, x in path]).astype(np.uint8)
    seen = survey(movie, np.ones(movie.shape[1:], np.float32), DefectParameters(), 2, 0)
    layout = tile_layout(seen, -path.astype(float), 1.5, 65.0, (40.0, 4.0), 12)
    tiles = cut_tiles(seen, -path.astype(float), layout, np.zeros(movie.shape[1:], np.float32))
    for values in tiles.shells:
        np.testing.assert_allclose(values[1:], values[[0, 0]], atol=0.05)


def test_blank_frames_and_frames_of_rubbish_are_silent() -> None:
    movie = noise_movie((8, 96, 128))
    movie[2] = 0
    movie[5] = np.random.default_rng(0).integers(0, 255, movie[5].shape)
    values = np.concatenate([shell.reshape(8, -1) for shell in tiles_of(movie).shells], axis=1)
    assert not values[[2, 5]].any()
    assert values[[0, 1, 3, 4, 6, 7]].any(axis=1).all()


def test_background_is_taken_away_at_the_brightness_of_each_frame() -> None:
    """A static gradient far stronger than the noise leaves nothing that frames share, dim frames included."""
    y, x = np.mgrid[:192, :256]
    light = 30 + 12 * np.sin(x / 160.0) * np.cos(y / 120.0)
    rng = np.random.default_rng(4)
    dimming = np.array([1.0, 0.5, 1.0, 1.5, 1.0, 0.8])
    movie = np.stack([rng.poisson(light * b) for b in dimming]).astype(np.uint8)
    seen = survey(movie, np.ones(movie.shape[1:], np.float32), DefectParameters(), 2, 0)
    np.testing.assert_allclose(seen.brightness, dimming / dimming.mean(), rtol=0.01)
    tiles = tiles_of(movie, band=(60.0, 4.0))
    measured = covariances(tiles, np.zeros((6, len(tiles.layout.origins), 2)), 1.0)
    lowest = measured[0] / np.sqrt(np.outer(np.diag(measured[0]), np.diag(measured[0])))
    assert np.abs(lowest[np.triu_indices(6, 1)]).mean() < 0.15


def test_weights_recover_a_known_covariance() -> None:
    """Drawn from damage-limited signal in white noise: -K^-1 and the Fisher information come out."""
    rng = np.random.default_rng(5)
    middle = 1.0 * (np.arange(12) + 0.5)
    critical = 0.245 * 0.1**-1.665 + 2.81
    damage = np.exp(-middle / (2 * critical))
    truth = 0.5 * np.outer(damage, damage) + np.eye(12)
    draws = rng.multivariate_normal(np.zeros(12), truth, size=200_000)
    exposure = Exposure(middle, np.ones(12), 2.0, 300.0)
    weights = shell_weights((draws.T @ draws / len(draws))[None], np.array([0.2]), np.array([len(draws)]), exposure)
    inverse = np.linalg.inv(truth)
    away = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(weights.pair[0][away], -inverse[away], atol=0.01)
    np.testing.assert_allclose(weights.information[0], inverse * truth - np.eye(12), atol=0.02)
    assert (np.diag(weights.pair[0]) == 0).all()


def test_shells_of_noise_alone_inform_next_to_nothing() -> None:
    rng = np.random.default_rng(6)
    draws = rng.normal(size=(30, 2000, 16))
    exposure = Exposure(np.arange(16) + 0.5, np.ones(16), 1.0, 300.0)
    noise = np.einsum("smt,smu->stu", draws, draws) / 2000
    weights = shell_weights(noise, np.full(30, 0.2), np.full(30, 1000), exposure)
    told = np.einsum("stt->st", weights.information).mean(axis=1) * 1000  # times modes: what a shell seems to say
    assert np.median(told) < 0.05
    assert told.mean() < 3 / 16


def test_posterior_blurs_fine_detail_of_uncertain_pairs() -> None:
    """Against the mean over drawn trajectories of a wave's phase."""
    rng = np.random.default_rng(8)
    half = rng.normal(size=(4, 4))
    posterior = 0.1 * half @ half.T
    draws = rng.multivariate_normal(np.zeros(4), posterior, size=400_000)
    k = 0.15
    expected = np.cos(2 * np.pi * k * (draws[:, 1] - draws[:, 3])).mean()
    got = blurred(np.ones((1, 4, 4)), np.array([k]), posterior)
    assert got[0, 1, 3] == pytest.approx(expected, abs=5e-3)
    np.testing.assert_allclose(np.diag(got[0]), 1.0)


def test_unusable_frames_and_empty_shells_have_no_weight() -> None:
    covariance = np.zeros((2, 4, 4))
    covariance[0] = np.diag([1.0, 1.0, 0.0, 1.0]) + 0.2
    covariance[0, 2] = covariance[0, :, 2] = 0
    exposure = Exposure(np.arange(4) + 0.5, np.array([1.0, 1.0, 0.0, 1.0]), 1.0, 300.0)
    weights = shell_weights(covariance, np.array([0.1, 0.2]), np.array([500, 0]), exposure)
    assert np.isfinite(weights.pair).all()
    assert np.abs(weights.pair[0, 2]).max() < 1e-9
    assert not weights.pair[1].any()


def test_prior_is_a_covariance_fast_at_first_and_tied_at_the_start() -> None:
    exposure = np.arange(30) + 0.5
    prior = trajectory_covariance(exposure, Hyperparameters(6.0, 0.12, 0.0, 0.7))
    assert np.linalg.eigvalsh(prior).min() > 0

    def step_variance(t: int) -> float:
        return float(prior[t, t] + prior[t + 1, t + 1] - 2 * prior[t, t + 1])

    assert step_variance(0) > 10 * step_variance(20)
    travelled = prior[0, 0] + prior[-1, -1] - 2 * prior[0, -1]
    assert travelled == pytest.approx(36 + 29 * 0.12**2, rel=1e-3)
    jump = np.zeros(30)
    jump[10] = 100.0
    loose = trajectory_covariance(exposure, Hyperparameters(6.0, 0.12, 0.0, 0.7), jump)
    assert loose[10, 10] + loose[9, 9] - 2 * loose[9, 10] == pytest.approx(step_variance(9) + 100, rel=1e-6)


def test_posterior_of_one_prior_is_that_of_linear_regression() -> None:
    """Against (I + K^-1)^-1 (I s + g) written out; trajectories that share a prior do not mix."""
    rng = np.random.default_rng(9)
    half = rng.normal(size=(6, 9))
    no_constant = np.eye(6) - 1 / 6
    information = no_constant @ half @ half.T @ no_constant
    prior = np.diag(rng.uniform(0.5, 2, 6)) + 50.0
    at, slope = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    got = posterior(expansion(at, slope, information), [prior])
    covariance = np.linalg.inv(information + np.linalg.inv(prior))
    mean = covariance @ (information @ at + no_constant @ slope)
    np.testing.assert_allclose(got.mean, mean - mean.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(got.covariance, covariance, atol=1e-8)


def test_priors_count_by_their_evidence() -> None:
    """Trajectories drawn from one of three priors give it nearly all of the say, and its width."""
    rng = np.random.default_rng(10)
    shape = np.minimum.outer(np.arange(20.0), np.arange(20.0)) + 1e-3 * np.eye(20)
    path = np.linalg.cholesky(shape) @ rng.normal(size=(20, 40))
    information = 5.0 * np.eye(20)
    seen = path + rng.normal(size=path.shape) / np.sqrt(5)
    blended = posterior(expansion(seen, np.zeros_like(seen), information), [0.01 * shape, shape, 100 * shape])
    alone = posterior(expansion(seen, np.zeros_like(seen), information), [shape])
    np.testing.assert_allclose(blended.mean, alone.mean, atol=0.02)
    np.testing.assert_allclose(blended.covariance, alone.covariance, atol=0.01)


def test_cuts_between_unrelated_parts_have_no_evidence() -> None:
    """Frames 0-4 share one image, 5-9 another: standard normal across the cut between them, large across all others."""
    rng = np.random.default_rng(8)
    modes, values = 4000, []
    for _ in range(2):
        image = rng.normal(size=modes) + 1j * rng.normal(size=modes)
        noise = rng.normal(size=(5, modes)) + 1j * rng.normal(size=(5, modes))
        values.append(image + 2 * noise)
    g = np.concatenate(values)
    measured = (g.conj() @ g.T).real[None] / modes
    exposure = Exposure(np.arange(10) + 0.5, np.ones(10), 1.5, 300.0)
    counts = np.array([modes])
    weights = shell_weights(measured, np.array([0.2]), counts, exposure)
    evidence = cut_evidence(measured, weights, counts, 3)
    assert len(evidence) == 5
    assert abs(evidence[2]) < 4
    assert np.delete(evidence, 2).min() > 8
