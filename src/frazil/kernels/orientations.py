"""Choosing few orientations out of many: the best over shifts, and peaks that are distinct."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from frazil.array import Array, is_numpy, namespace


def best_over_shifts(cross: Array, power: Array, log_prior_shift: Array) -> tuple[Array, Array]:
    """Return the highest log likelihood of each hypothesis over shifts, (image, hypothesis), and the shift that has it.

    cross: (image, shift, hypothesis). power: (image, hypothesis). log_prior_shift: (image, shift).
    The log likelihood is cross - power / 2 + prior.
    """
    if is_numpy(cross):
        score, shift = np.empty_like(power), np.empty(power.shape, np.uint8)
        _best_over_shifts(cross, power, log_prior_shift, score, shift)
        return score, shift
    xp = namespace(cross)
    value = cross + log_prior_shift[:, :, None]
    return xp.max(value, axis=1) - power / 2, xp.argmax(value, axis=1)


def distinct_best(
    owner: npt.NDArray[np.int64], score: npt.NDArray[Any], pose: npt.NDArray[Any], keep: int, cut: float, min_degrees: float
) -> npt.NDArray[np.int64]:
    """Return the rows of the best distinct candidates of each owner, the best first; owners stay in order.

    Of two candidates closer than `min_degrees` only the better one stays, at most `keep` per owner, and none more than `cut`
    below the owner's best.

    Parameters
    ----------
    owner: (row,) non-decreasing. score: (row,). pose: (row, 3, 3).
    """
    order = np.lexsort((-score, owner))
    chosen = np.empty(order.size, np.bool_)
    limit = 1 + 2 * np.cos(np.deg2rad(min_degrees))  # trace of a turn by that angle
    _distinct(owner[order], score[order].astype(np.float64), pose[order].astype(np.float64), keep, cut, limit, chosen)
    return order[chosen]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _best_over_shifts(cross, power, log_prior_shift, score, shift):  # type: ignore[no-untyped-def]
    half = power.dtype.type(0.5)
    for b in range(cross.shape[0]):
        for o in range(cross.shape[2]):
            score[b, o] = cross[b, 0, o] + log_prior_shift[b, 0]
            shift[b, o] = 0
        for t in range(1, cross.shape[1]):
            row, prior = cross[b, t], log_prior_shift[b, t]
            for o in range(cross.shape[2]):
                value = row[o] + prior
                if value > score[b, o]:
                    score[b, o] = value
                    shift[b, o] = t
        for o in range(cross.shape[2]):
            score[b, o] -= half * power[b, o]


@numba.njit(cache=True, nogil=True)
def _distinct(owner, score, pose, keep, cut, limit, chosen):  # type: ignore[no-untyped-def]
    first = 0
    count = 0
    for i in range(owner.size):
        if i == 0 or owner[i] != owner[i - 1]:
            first = i
            count = 0
        chosen[i] = count < keep and score[i] >= score[first] - cut
        if not chosen[i]:
            continue
        for j in range(first, i):
            if chosen[j]:
                trace = 0.0
                for a in range(3):
                    for b in range(3):
                        trace += pose[i, a, b] * pose[j, a, b]
                if trace > limit:
                    chosen[i] = False
                    break
        if chosen[i]:
            count += 1
