"""Modes, weights and prior: the parts of the maximum a posteriori fit, each against brute force or known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frazil.algorithms.defects import DefectParameters
from frazil.algorithms.motion.frames import background_of, survey
from frazil.algorithms.motion.modes import Modes, covariances, gather_modes, gradient, mode_layout
from frazil.algorithms.motion.prior import Hyperparameters, trajectory_covariance
from frazil.algorithms.motion.weights import Exposure, blurred, shell_weights
from frazil.array import to_host

GROUPS = 5


def noise_movie(shape: tuple[int, int, int] = (GROUPS, 96, 128), seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).poisson(3, shape).astype(np.uint8)


def modes_of(movie: np.ndarray[Any, Any], xp: Any = np, band: tuple[float, float] = (40.0, 4.0)) -> Modes:
    seen = survey(movie, xp.ones(movie.shape[1:], dtype=xp.float32), DefectParameters(), 2, 0)
    offsets = np.zeros((len(movie), 2), int)
    layout = mode_layout(seen.frames, offsets, 1.5, band, 12)
    return gather_modes(seen, offsets, layout, background_of(seen.total, None, 1.5))


def likelihood(modes: Modes, shifts: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> float:
    """Sum over modes and pairs of A Re(conj(G_t) G_u), written out in double precision."""
    layout = modes.layout
    value = 0.0
    for shell, start, stop in layout.chunks:
        part = slice(start, stop)
        ky, kx = (np.asarray(to_host(k), np.float64)[part] for k in (layout.ky, layout.kx))
        f = np.asarray(to_host(modes.real), np.float64)[:, part] + 1j * np.asarray(to_host(modes.imaginary))[:, part]
        g = f * np.exp(-2j * np.pi * (np.outer(shifts[:, 0], ky) + np.outer(shifts[:, 1], kx)))
        value += float(np.einsum("tu,tm,um->", weights[shell], g.conj(), g).real)
    return value


def test_gradient_is_the_derivative_of_the_likelihood(xp: Any) -> None:
    modes = modes_of(noise_movie(), xp)
    rng = np.random.default_rng(1)
    shifts = rng.normal(size=(GROUPS, 2))
    weights = rng.normal(size=(len(modes.layout.shell_counts), GROUPS, GROUPS)) / 1e3
    weights = weights + weights.transpose(0, 2, 1)
    weights[:, range(GROUPS), range(GROUPS)] = 0
    got = gradient(modes, shifts, weights, 1.0)
    for t in range(GROUPS):
        for axis in (0, 1):
            step = np.zeros_like(shifts)
            step[t, axis] = 1e-4
            slope = (likelihood(modes, shifts + step, weights) - likelihood(modes, shifts - step, weights)) / 2e-4
            assert got[t, axis] == pytest.approx(slope, rel=1e-3, abs=1e-3 * np.abs(got).max())


def test_covariances_by_brute_force(xp: Any) -> None:
    modes = modes_of(noise_movie(), xp)
    shifts = np.random.default_rng(2).normal(size=(GROUPS, 2))
    got = covariances(modes, shifts, 1.0)
    pick = np.zeros((len(modes.layout.shell_counts), GROUPS, GROUPS))
    for t, u in ((0, 0), (1, 3), (4, 2)):
        for shell, count in enumerate(modes.layout.shell_counts):
            pick[:] = 0
            pick[shell, t, u] = 1
            assert got[shell, t, u] == pytest.approx(likelihood(modes, shifts, pick) / count, rel=1e-3, abs=1.0)


def test_reordered_frames_give_a_reordered_gradient() -> None:
    movie = noise_movie()
    order = np.array([3, 0, 4, 1, 2])
    rng = np.random.default_rng(3)
    shifts = rng.normal(size=(GROUPS, 2))
    weights = np.ones((12, GROUPS, GROUPS)) - np.eye(GROUPS)
    straight = gradient(modes_of(movie), shifts, weights, 1.0)
    reordered = gradient(modes_of(movie[order]), shifts[order], weights, 1.0)
    np.testing.assert_allclose(reordered, straight[order], rtol=2e-2, atol=1e-3 * np.abs(straight).max())


def test_modes_hold_each_wave_of_the_half_plane_once() -> None:
    layout = modes_of(noise_movie((3, 90, 120))).layout
    waves = {(round(float(ky) * 90), round(float(kx) * 120)) for ky, kx in zip(layout.ky, layout.kx, strict=True)}
    assert len(waves) == len(layout.ky)
    assert not any((-ky, -kx) in waves for ky, kx in waves)
    ky, kx = np.fft.fftfreq(90)[:, None], np.fft.fftfreq(120)[None]
    radius = np.hypot(ky, kx)
    assert 2 * len(waves) == ((radius >= 1.5 / 40) & (radius < 1.5 / 4)).sum()


def test_window_follows_whole_shifts() -> None:
    """A scene that moves by whole pixels has the same coefficients in every frame once the window follows."""
    rng = np.random.default_rng(7)
    scene = rng.poisson(20, (140, 180))
    path = np.array([(0, 0), (3, -2), (-4, 6)])
    movie = np.stack([scene[20 - y : 120 - y, 20 - x : 160 - x] for y, x in path]).astype(np.uint8)
    seen = survey(movie, np.ones(movie.shape[1:], np.float32), DefectParameters(), 2, 0)
    layout = mode_layout(seen.frames, -path, 1.5, (40.0, 4.0), 12)
    modes = gather_modes(seen, -path, layout, np.zeros(movie.shape[1:], np.float32))
    np.testing.assert_allclose(modes.real[1:], modes.real[[0, 0]], atol=0.05)


def test_blank_frames_and_frames_of_rubbish_are_silent() -> None:
    movie = noise_movie((8, 96, 128))
    movie[2] = 0
    movie[5] = np.random.default_rng(0).integers(0, 255, movie[5].shape)
    modes = modes_of(movie)
    assert not modes.real[[2, 5]].any()
    assert modes.real[[0, 1, 3, 4, 6, 7]].any(axis=1).all()


def test_background_is_taken_away_at_the_brightness_of_each_frame() -> None:
    """A static gradient far stronger than the noise leaves nothing that frames share, dim frames included."""
    y, x = np.mgrid[:192, :256]
    light = 30 + 12 * np.sin(x / 160.0) * np.cos(y / 120.0)
    rng = np.random.default_rng(4)
    dimming = np.array([1.0, 0.5, 1.0, 1.5, 1.0, 0.8])
    movie = np.stack([rng.poisson(light * b) for b in dimming]).astype(np.uint8)
    seen = survey(movie, np.ones(movie.shape[1:], np.float32), DefectParameters(), 2, 0)
    np.testing.assert_allclose(seen.brightness, dimming / dimming.mean(), rtol=0.01)
    modes = modes_of(movie, band=(60.0, 4.0))
    measured = covariances(modes, np.zeros((6, 2)), 1.0)
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
    prior = trajectory_covariance(exposure, Hyperparameters(6.0, 0.12, 0.0))
    assert np.linalg.eigvalsh(prior).min() > 0

    def step_variance(t: int) -> float:
        return float(prior[t, t] + prior[t + 1, t + 1] - 2 * prior[t, t + 1])

    assert step_variance(0) > 10 * step_variance(20)
    travelled = prior[0, 0] + prior[-1, -1] - 2 * prior[0, -1]
    assert travelled == pytest.approx(36 + 29 * 0.12**2, rel=1e-3)
    jump = np.zeros(30)
    jump[10] = 100.0
    loose = trajectory_covariance(exposure, Hyperparameters(6.0, 0.12, 0.0), jump)
    assert loose[10, 10] + loose[9, 9] - 2 * loose[9, 10] == pytest.approx(step_variance(9) + 100, rel=1e-6)
