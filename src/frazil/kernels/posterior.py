"""The posterior over (shift, class, angle) of a tile of images, from the two products of the E-step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from frazil.array import Array, is_cupy, is_numpy, namespace, to_host


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the E-step knows about a tile of images.

    Attributes
    ----------
    weights: (image, shift, class x angle) posterior probability; 0 where it is more than the cutoff below the best.
    classes: (image, class) probability of each class.
    best: (image, 3) int: class of highest probability, and the shift and angle of its best pose.
    log_likelihood: (image,) log of the sum over hypotheses, relative to the likelihood of no particle.
    kept: (image,) int: number of weights above zero.
    """

    weights: Array
    classes: Array
    best: Array
    log_likelihood: Array
    kept: Array


def posterior(cross: Array, power: Array, log_prior_shift: Array, log_prior_class: Array, cutoff: float = 10.0) -> Posterior:
    """Return the posterior of every hypothesis (algorithms: logL = G - Q/2, class2d recipe 3.3).

    On numpy and cupy `cross` is overwritten by the weights; other backends get a new array.

    Parameters
    ----------
    cross: (image, shift, class x angle) inner products of shifted images and CTF-weighted references, noise variance 1.
    power: (image, class x angle) squared norm of the CTF-weighted references.
    log_prior_shift: (image, shift).
    log_prior_class: (class,).
    cutoff: hypotheses more than this many nats below the best count as impossible.
    """
    if is_numpy(cross):
        images, class_count = cross.shape[0], log_prior_class.size
        classes = np.empty((images, class_count), cross.dtype)
        best = np.empty((images, 3), np.int64)
        log_likelihood = np.empty(images, cross.dtype)
        kept = np.empty(images, np.int64)
        limit = cross.dtype.type(cutoff)
        _posterior(cross, power, log_prior_shift, log_prior_class, limit, classes, best, log_likelihood, kept)
        return Posterior(cross, classes, best, log_likelihood, kept)
    if is_cupy(cross):
        return _posterior_cuda(cross, power, log_prior_shift, log_prior_class, cutoff)
    xp = namespace(cross)
    host = [to_host(a) for a in (cross, power, log_prior_shift, log_prior_class)]
    twin = posterior_twin(host[0], host[1], host[2], host[3], cutoff)
    return Posterior(*(xp.asarray(a) for a in (twin.weights, twin.classes, twin.best, twin.log_likelihood, twin.kept)))


def posterior_twin(
    cross: np.ndarray[Any, Any],
    power: np.ndarray[Any, Any],
    log_prior_shift: np.ndarray[Any, Any],
    log_prior_class: np.ndarray[Any, Any],
    cutoff: float = 10.0,
) -> Posterior:
    """Do what `posterior` does in plain numpy, without touching `cross`: the oracle of the compiled versions."""
    images, shifts, hypotheses = cross.shape
    class_count = log_prior_class.size
    angles = hypotheses // class_count
    value = cross - power[:, None, :] / 2 + log_prior_shift[:, :, None] + np.repeat(log_prior_class, angles)
    top = value.max(axis=(1, 2), keepdims=True)
    weights = np.where(value - top > -cutoff, np.exp(np.maximum(value - top, -cutoff)), 0).astype(cross.dtype)
    total = weights.sum(axis=(1, 2), keepdims=True)
    weights /= total
    by_class = weights.reshape(images, shifts, class_count, angles)
    classes = by_class.sum(axis=(1, 3))
    winner = classes.argmax(axis=1)
    poses = by_class[np.arange(images), :, winner].reshape(images, -1).argmax(axis=1)
    best = np.stack([winner, poses // angles, poses % angles], axis=1)
    log_likelihood = (top + np.log(total)).reshape(images)
    return Posterior(weights, classes, best, log_likelihood, (weights > 0).sum(axis=(1, 2)))


@numba.njit(cache=True, fastmath=True, nogil=True)
def _posterior(  # type: ignore[no-untyped-def]  # noqa: C901, PLR0913 - a flat kernel
    cross, power, log_prior_shift, log_prior_class, cutoff, classes, best, log_likelihood, kept
):
    real = cross.dtype.type
    images, shifts, hypotheses = cross.shape
    class_count = log_prior_class.size
    angles = hypotheses // class_count
    for b in range(images):
        top = real(-1e30)
        for t in range(shifts):
            row = cross[b, t]
            for c in range(class_count):
                prior = log_prior_class[c] + log_prior_shift[b, t]
                for j in range(c * angles, (c + 1) * angles):
                    value = row[j] - real(0.5) * power[b, j] + prior
                    row[j] = value
                    top = max(top, value)
        floor = top - cutoff
        count = 0
        total = real(0)
        classes[b] = real(0)
        for t in range(shifts):
            row = cross[b, t]
            for c in range(class_count):
                mass = real(0)
                for j in range(c * angles, (c + 1) * angles):
                    if row[j] > floor:
                        weight = np.exp(row[j] - top)
                        row[j] = weight
                        mass += weight
                        count += 1
                    else:
                        row[j] = real(0)
                classes[b, c] += mass
        for c in range(class_count):
            total += classes[b, c]
        inverse = real(1) / total
        winner = 0
        for c in range(class_count):
            classes[b, c] *= inverse
            if classes[b, c] > classes[b, winner]:
                winner = c
        best_weight = real(-1)
        for t in range(shifts):
            row = cross[b, t]
            for j in range(hypotheses):
                row[j] *= inverse
            for p in range(angles):
                if row[winner * angles + p] > best_weight:
                    best_weight = row[winner * angles + p]
                    best[b, 1] = t
                    best[b, 2] = p
        best[b, 0] = winner
        log_likelihood[b] = top + np.log(total)
        kept[b] = count


def _posterior_cuda(cross: Array, power: Array, log_prior_shift: Array, log_prior_class: Array, cutoff: float) -> Posterior:
    import cupy

    from frazil.kernels import class2d_cuda

    images, shifts, hypotheses = cross.shape
    class_count = log_prior_class.size
    classes = cupy.empty((images, class_count), cupy.float32)
    best = cupy.empty((images, 3), cupy.int32)
    log_likelihood = cupy.empty(images, cupy.float32)
    kept = cupy.empty(images, cupy.int32)
    scalars = (np.int32(shifts), np.int32(class_count), np.int32(hypotheses // class_count), np.float32(cutoff))
    class2d_cuda.function("posterior.cu", "posterior")(
        (images,),
        (class2d_cuda.THREADS,),
        (cross, power, log_prior_shift, log_prior_class, classes, best, log_likelihood, kept, *scalars),
    )
    return Posterior(cross, classes, best, log_likelihood, kept)
