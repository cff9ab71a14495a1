"""What trajectories look like before any electron is seen: fast at first, then slower, always a little restless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]

FAST_EXPOSURE = 5.0  # e/Å² over which the early speed falls by e
RESTING_SPEED = 0.02  # late speed relative to the first
_GAUGE_ANGSTROM = 100.0  # where frame 0 lies is unknown


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Sizes that differ between movies; the data tell how likely each is.

    `travel_angstrom`: standard deviation of the whole beam-induced path; `jitter_angstrom`: of the random step per
    root e/Å²; `drift_angstrom`: of a steady drift, per e/Å². `memory`: correlation length of the velocity in ln(D + 1).
    """

    travel_angstrom: float
    jitter_angstrom: float
    drift_angstrom: float
    memory: float


WHOLE_FRAME = tuple(
    Hyperparameters(travel, jitter, drift, 0.7)
    for travel in (1.5, 6.0, 24.0)
    for jitter in (0.1, 0.25, 0.6, 2.0)
    for drift in (0.02, 0.3, 3.0)
)
"""Candidates for the motion that the whole frame has in common: stage and specimen."""

LOCAL = tuple(
    Hyperparameters(travel, travel / 50, drift, 2.0)
    for travel in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    for drift in (0.001, 0.01, 0.1)
)
"""Candidates for each shape of motion across the field: the specimen alone, root mean square over the field."""


def trajectory_covariance(exposure: Matrix, hyperparameters: Hyperparameters, jumps: Matrix | None = None) -> Matrix:
    """Return the prior covariance of one axis of the trajectory, Å², (frame, frame).

    Velocity is a Gaussian process in log exposure, large at first; to its integral are added steady drift, a random walk,
    extra variance where a jump was seen, and a wide constant.

    Parameters
    ----------
    exposure: (frame,) e/Å² since the shutter opened, at the middle of each frame.
    hyperparameters: sizes.
    jumps: (frame,) Å², extra variance of the step to each frame from the one before.
    """
    frame_count = len(exposure)
    travel = _integrated_velocity(exposure, hyperparameters.memory) * hyperparameters.travel_angstrom**2
    steps = np.diff(exposure, prepend=exposure[0]) * hyperparameters.jitter_angstrom**2
    if jumps is not None:
        steps = steps + jumps
    passed = np.cumsum(steps)
    walk = np.minimum(passed[:, None], passed[None])
    drift = np.outer(exposure, exposure) * hyperparameters.drift_angstrom**2
    return np.asarray(travel + walk + drift + _GAUGE_ANGSTROM**2 + 1e-6 * np.eye(frame_count))


def _integrated_velocity(exposure: Matrix, memory: float) -> Matrix:
    """Return the covariance of the integral of the velocity process, zero at frame 0, one at the last."""
    frame_count = len(exposure)
    if frame_count < 2:
        return np.zeros((frame_count, frame_count))
    between = (exposure[1:] + exposure[:-1]) / 2
    speed = (np.exp(-between / FAST_EXPOSURE) + RESTING_SPEED) * np.diff(exposure)
    log_exposure = np.log(between + 1)
    distance = log_exposure[:, None] - log_exposure[None]
    velocity = np.outer(speed, speed) * np.exp(-(distance**2) / (2 * memory**2))
    integral = np.tril(np.ones((frame_count, frame_count - 1)), -1)
    covariance = integral @ velocity @ integral.T
    return np.asarray(covariance / covariance[-1, -1])
