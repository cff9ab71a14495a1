"""Maximum-likelihood weights: how much each pair of frames says about their relative shift, shell by shell.

After alignment the coefficients of one shell are draws from a complex Gaussian whose covariance over frames is signal,
which decays and decorrelates with exposure, plus white noise. Fitting that covariance to the data replaces B-factors,
whitening and dose weights; the inverse gives both the weights and the Fisher information of the shifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from frazil.algorithms.dose_weighting import critical_exposure

DECORRELATION_EXPOSURES = (1.5, 6.0, 24.0, math.inf)  # e/Å²: ice flows, particles turn, detectors do not
_NOISE_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the statistics over frames depend on.

    Attributes
    ----------
    middle: (frame,) e/Å² at the middle of each frame, pre-exposure included.
    brightness: (frame,) relative number of electrons; 0 for frames that cannot be used.
    pixel_size_angstrom: of the images that are aligned. voltage_kv: kV.
    """

    middle: np.ndarray[Any, Any]
    brightness: np.ndarray[Any, Any]
    pixel_size_angstrom: float
    voltage_kv: float


@dataclass(frozen=True, slots=True)
class ShellWeights:
    """(shell, frame, frame) each: `pair` is -K^-1 without its diagonal, `information` is K^-1 o K - 1."""

    pair: np.ndarray[Any, Any]
    information: np.ndarray[Any, Any]


def blurred(
    covariances: np.ndarray[Any, Any], frequencies: np.ndarray[Any, Any], posterior: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return what the covariances are on average over the trajectories that the data allow.

    At the best trajectory noise agrees too well, the more so the finer the detail, and weights made from it would feed on
    themselves. The mean over the posterior, each pair times exp(-(2 pi k)^2 Var(s_t - s_u) / 2), is the expectation step of
    expectation maximisation for the weights, with the trajectory as the unknown.

    Parameters
    ----------
    covariances: (shell, frame, frame) at the most probable trajectory.
    frequencies: (shell,) |k| in cycles per px.
    posterior: (frame, frame) covariance of one axis of the trajectory, px².
    """
    variances = np.diag(posterior)
    spread = variances[:, None] + variances[None] - 2 * posterior
    return np.asarray(covariances * np.exp(-0.5 * (2 * np.pi * frequencies[:, None, None]) ** 2 * spread))


def _shrinkage(signal: np.ndarray[Any, Any], fitted: int, variance: float) -> float:
    """Return the factor by which a fitted signal is to be believed (positive-part James-Stein).

    Without it every shell that holds nothing but noise would give a little false information.

    Parameters
    ----------
    signal: (pair,) fitted values. fitted: how many amplitudes were fitted. variance: of the measured value of a pair.
    """
    energy = float(signal @ signal)
    return max(0.0, 1.0 - fitted * variance / energy) if energy > 0 else 0.0


def shell_weights(
    covariances: np.ndarray[Any, Any], frequencies: np.ndarray[Any, Any], counts: np.ndarray[Any, Any], exposure: Exposure
) -> ShellWeights:
    """Fit each shell's covariance over frames and return what the likelihood needs.

    Parameters
    ----------
    covariances: (shell, frame, frame) of the aligned coefficients; zero where a shell has no modes.
    frequencies: (shell,) mean |k| in cycles per px of the aligned images.
    counts: (shell,) modes in each shell.
    exposure: when each frame was taken.
    """
    pair, information = np.zeros_like(covariances), np.zeros_like(covariances)
    frame_count = covariances.shape[1]
    lag = np.abs(exposure.middle[:, None] - exposure.middle[None])
    relative = np.outer(exposure.brightness, exposure.brightness)
    decorrelated = [np.exp(-lag / tau) * relative for tau in DECORRELATION_EXPOSURES]
    above = np.triu_indices(frame_count, 1)
    critical = critical_exposure(frequencies / exposure.pixel_size_angstrom, exposure.voltage_kv)
    for shell, measured in enumerate(covariances):
        diagonal = np.diag(measured)
        if not diagonal.max() > 0:
            continue
        damage = np.exp(-exposure.middle / (2 * critical[shell]))
        shapes = [np.outer(damage, damage) * relative, *decorrelated]
        amplitudes, _ = nnls(np.stack([shape[above] for shape in shapes], axis=1), measured[above])
        signal = sum(a * shape for a, shape in zip(amplitudes, shapes, strict=True))
        signal = signal * _shrinkage(
            signal[above], int(np.count_nonzero(amplitudes)), diagonal.mean() ** 2 / (2 * counts[shell])
        )
        rest = (diagonal - np.diag(signal))[exposure.brightness > 0]
        noise = np.maximum(exposure.brightness, 1e-3) * max(float(rest.mean()), _NOISE_FLOOR * float(diagonal.mean()))
        model = signal + np.diag(noise)
        inverse = np.linalg.inv(model)
        information[shell] = inverse * model - np.eye(frame_count)
        pair[shell] = -inverse
        np.fill_diagonal(pair[shell], 0.0)
    return ShellWeights(pair, information)


def cut_evidence(
    covariances: np.ndarray[Any, Any], weights: ShellWeights, counts: np.ndarray[Any, Any], frames_min: int
) -> np.ndarray[Any, Any]:
    """Return how surely the frames before each cut in time resemble those after it, in standard deviations of noise.

    The likelihood's terms of all pairs across the cut, over what they would vary by if the two parts had nothing in common.
    A trajectory that has lost some of the frames may fit within each part as well as the true one; it does not across.

    Parameters
    ----------
    covariances: (shell, frame, frame), measured at the trajectory. weights: made from them.
    counts: (shell,) modes in each shell.
    frames_min: at least so many frames on each side of a cut, fewer where there are not as many.

    Returns
    -------
    (cut,) for cuts after `frames_min` frames and on; 0 where no shell tells anything.
    """
    noise = np.diagonal(covariances, axis1=1, axis2=2)
    terms = np.einsum("s,stu,stu->tu", counts, weights.pair, covariances)
    variances = np.einsum("s,stu,st,su->tu", counts / 2, weights.pair**2, noise, noise)
    frame_count = len(terms)
    first = min(frames_min, frame_count // 2)
    cuts = range(first, frame_count - first + 1)
    summed = np.array([[part[:cut, cut:].sum() for part in (terms, variances)] for cut in cuts])
    return np.asarray(summed[:, 0] / np.sqrt(np.maximum(summed[:, 1], 1e-30)))
