"""The most probable trajectory under a quadratic likelihood and priors of many sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Expansion:
    """The log-likelihood of trajectories of one kind about their present values; a constant of each has no likelihood.

    Attributes
    ----------
    at, gradient: (frame, trajectory), the mean over frames taken out.
    information: (frame, frame), minus the second derivative by one trajectory, the same for each of them.
    """

    at: Matrix
    gradient: Matrix
    information: Matrix


@dataclass(frozen=True, slots=True)
class Posterior:
    """`mean` (frame, trajectory), no constant; `covariance` (frame, frame) of each trajectory."""

    mean: Matrix
    covariance: Matrix


def expansion(at: Matrix, gradient: Matrix, information: Matrix) -> Expansion:
    """Make an expansion; what rounding leaves of a likelihood of constants is taken out."""
    no_constant = np.eye(len(at)) - 1.0 / len(at)
    return Expansion(at - at.mean(axis=0), no_constant @ gradient, no_constant @ information @ no_constant)


def posterior(likelihood: Expansion, priors: list[Matrix]) -> Posterior:
    """Return mean and covariance over trajectories and over priors.

    The mean over all priors, each with its evidence (Laplace; no pass over the data): where the data cannot tell the sizes of
    motion, neither a stiff nor a loose trajectory is chosen for good. With K a prior and I the information, the posterior
    covariance (I + K^-1)^-1 = K (1 + I K)^-1 needs no inverse of K.

    Parameters
    ----------
    likelihood: of independent trajectories that share their prior.
    priors: (frame, frame) covariances, px².
    """
    target = likelihood.information @ likelihood.at + likelihood.gradient
    trajectories = target.shape[1]
    identity = np.eye(len(target))
    means, spreads, evidences = [], [], []
    for prior in priors:
        matrix = identity + likelihood.information @ prior
        spread = prior @ np.linalg.inv(matrix)
        mean = spread @ target
        evidences.append(0.5 * float(np.sum(target * mean)) - trajectories / 2 * float(np.linalg.slogdet(matrix)[1]))
        means.append(mean - mean.mean(axis=0))
        spreads.append((spread + spread.T) / 2)
    share = np.exp(np.array(evidences) - max(evidences))
    share /= share.sum()
    mean = np.einsum("i,ita->ta", share, np.array(means))
    apart = np.array(means) - mean
    between = np.einsum("i,ita,iua->tu", share, apart, apart) / trajectories
    return Posterior(mean, np.einsum("i,itu->tu", share, np.array(spreads)) + between)
