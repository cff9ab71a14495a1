"""Picks and the identity of particles."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One picked particle; coordinates in px of the full-size micrograph, 0-based."""

    x_px: float
    y_px: float
    score: float  # normalised cross-correlation
    power: float  # z-score of the local log power
    diameter_angstrom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a picker found in one micrograph, also below its threshold: thresholds can be loosened without searching again."""

    picks: tuple[Pick, ...] = ()  # best first
    score_min: float = math.inf  # lowest score that noise does not explain in this micrograph; infinite when none is


_MASK = (1 << 64) - 1


def particle_uid(exposure_id: str, index: int) -> int:
    """Return the 64-bit identity of the `index`-th particle picked in an exposure; the same on every machine and every run."""
    return int.from_bytes(hashlib.blake2b(f"{exposure_id}:{index}".encode(), digest_size=8).digest(), "little")


def half_set(uid: int) -> int:
    """Return 1 or 2: the half set of a particle, fixed for life (splitmix64 of its uid)."""
    z = (uid + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return 1 + ((z ^ (z >> 31)) & 1)
