"""Sharpening for display: B factor from the Guinier plot, FSC weights, and a low-pass at the resolution (Rosenthal 2003)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d.fsc import FscCurves
from frazil.array import Array, namespace, to_host
from frazil.primitives.volumes import filter_volume, half_transform, shell_totals

_FIT_FROM_ANGSTROM = 10.0
_FIT_MIN_SHELLS = 4
_EDGE_SHELLS = 2.0


@dataclass(frozen=True, slots=True)
class Guinier:
    """The Guinier plot of a map: ln of the mean amplitude of each shell against 1/d^2.

    Attributes
    ----------
    inverse_square_resolution: (shell,) 1/Å^2. log_amplitude: (shell,), FSC-weighted; -inf where there is none.
    b_factor_angstrom2: decay `exp(-B s^2 / 4)` fitted between 10 Å and the resolution; None where that is no range to fit in.
    """

    inverse_square_resolution: npt.NDArray[np.float64]
    log_amplitude: npt.NDArray[np.float64]
    b_factor_angstrom2: float | None


def combined_weights(fsc: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return `sqrt(2 FSC / (1 + FSC))`, the weight of each shell of the mean of two half maps; 0 where FSC is not positive."""
    positive = np.clip(fsc, 0.0, 1.0)
    return np.asarray(np.sqrt(2 * positive / (1 + positive)))


def guinier(volume: Array, curves: FscCurves) -> Guinier:
    """Return the Guinier plot of a masked average map (size, size, size) and the B factor of its decay."""
    xp = namespace(volume)
    size = volume.shape[0]
    amplitude = xp.abs(half_transform(volume))
    mean = to_host(shell_totals(amplitude, size)) / to_host(shell_totals(xp.ones_like(amplitude), size))
    weighted = mean * combined_weights(curves.corrected)
    s2 = (np.arange(weighted.size) / curves.box_angstrom) ** 2
    with np.errstate(divide="ignore"):
        logarithm = np.log(weighted)
    b_factor = None
    if curves.resolution_angstrom is not None:
        fitted = (s2 >= _FIT_FROM_ANGSTROM**-2) & (s2 <= curves.resolution_angstrom**-2) & np.isfinite(logarithm)
        if fitted.sum() >= _FIT_MIN_SHELLS:
            b_factor = float(-4 * np.polyfit(s2[fitted], logarithm[fitted], 1)[0])
    return Guinier(s2, logarithm, b_factor)


def sharpen(volume: Array, curves: FscCurves, b_factor_angstrom2: float | None) -> Array:
    """Return an average map with its decay undone, FSC-weighted and low-passed at the resolution: for display only.

    Without a B factor nothing is amplified; without a resolution the map comes back as it is.
    """
    if curves.resolution_angstrom is None:
        return volume
    shells = np.arange(curves.corrected.size)
    s2 = (shells / curves.box_angstrom) ** 2
    end = curves.box_angstrom / curves.resolution_angstrom + _EDGE_SHELLS
    edge = 0.5 + 0.5 * np.cos(np.pi * np.clip((shells - end + 2 * _EDGE_SHELLS) / (2 * _EDGE_SHELLS), 0, 1))
    factors = combined_weights(curves.corrected) * edge * np.exp((b_factor_angstrom2 or 0.0) * s2 / 4)
    return filter_volume(volume, namespace(volume).asarray(factors))
