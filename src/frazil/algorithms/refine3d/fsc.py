"""Fourier shell correlation of half maps, corrected for what their mask adds (Chen et al. 2013), and the resolution it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.array import Array, namespace, to_host
from frazil.primitives.volumes import from_half_transform, half_transform, shell_indices, shell_totals

Curve = npt.NDArray[np.float64]

THRESHOLD = 0.143
_RANDOMISE_BELOW = 0.8  # of the unmasked curve: phases are randomised from the first shell below
_UNTOUCHED_SHELLS = 2  # beyond that shell the mask still carries signal over


@dataclass(frozen=True, slots=True, kw_only=True)
class FscCurves:
    """FSC by shell, 0 to half the box; shell s is s / box_angstrom in 1/Å.

    Attributes
    ----------
    box_angstrom: extent of the box.
    unmasked, masked: of the half maps as they are, and under the mask.
    randomised: masked, after the phases beyond `first_randomised_shell` were replaced: what the mask alone correlates.
    corrected: (masked - randomised) / (1 - randomised) from two shells beyond that one; masked before.
    resolution_angstrom: where the corrected curve falls below 0.143, or None where it never exceeds it.
    limited_by_sampling: the curve never falls below 0.143; the resolution is that of the last shell.
    mask_correlation: the randomised curve at the resolution: above 0.1 the mask is too tight (RELION's warning).
    """

    box_angstrom: float
    unmasked: Curve
    masked: Curve
    randomised: Curve
    corrected: Curve
    first_randomised_shell: int
    resolution_angstrom: float | None
    limited_by_sampling: bool
    mask_correlation: float


def fourier_shell_correlation(first: Array, second: Array) -> Curve:
    """Return `Re sum F1 F2* / sqrt(sum |F1|^2 sum |F2|^2)` over shells `round |k|`, (size // 2 + 1,) host; 1 in shell 0.

    Shells without power in either map have 0. first, second: (size, size, size) real, size even.
    """
    size = first.shape[0]
    a, b = half_transform(first), half_transform(second)
    xp = namespace(a)
    cross = to_host(shell_totals(xp.real(a * xp.conj(b)), size))
    norm = np.sqrt(to_host(shell_totals(_power(a), size)) * to_host(shell_totals(_power(b), size)))
    curve = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)
    curve[0] = 1.0
    return np.asarray(curve, np.float64)


def randomise_phases(volume: Array, first_shell: int, random: np.random.Generator) -> Array:
    """Replace the phases of a volume from a shell on by those of white noise; amplitudes stay, and the volume stays real."""
    xp = namespace(volume)
    size = volume.shape[0]
    transform = half_transform(volume)
    noise = half_transform(xp.asarray(random.standard_normal(volume.shape).astype(np.float32)))
    unit = xp.astype(noise / xp.abs(noise), transform.dtype)
    random_transform = xp.abs(transform) * unit
    return from_half_transform(xp.where(shell_indices(size, xp) >= first_shell, random_transform, transform), size)


def corrected_fsc(half_maps: tuple[Array, Array], mask: Array, box_angstrom: float, random: np.random.Generator) -> FscCurves:
    """Return the FSC of two independent half maps, corrected for the mask.

    Parameters
    ----------
    half_maps: unmasked, (size, size, size) real each.
    mask: the same shape, 0 to 1.
    box_angstrom: size in Å. random: for the phases.
    """
    unmasked = fourier_shell_correlation(*half_maps)
    masked = fourier_shell_correlation(half_maps[0] * mask, half_maps[1] * mask)
    low = np.flatnonzero(unmasked[1:] < _RANDOMISE_BELOW)
    first = int(low[0]) + 1 if low.size else unmasked.size
    if first < unmasked.size:
        scrambled = [randomise_phases(half, first, random) * mask for half in half_maps]
        randomised = fourier_shell_correlation(*scrambled)
    else:
        randomised = np.zeros_like(masked)
    corrected = masked.copy()
    beyond = slice(first + _UNTOUCHED_SHELLS, None)
    excess = np.clip(randomised[beyond], None, 0.999)
    corrected[beyond] = (masked[beyond] - excess) / (1 - excess)
    if last_shell_above(unmasked) > last_shell_above(corrected):
        corrected = unmasked.copy()  # the mask cuts into the particle: as RELION does, believe the whole box
    last = last_shell_above(corrected)
    return FscCurves(
        box_angstrom=box_angstrom,
        unmasked=unmasked,
        masked=masked,
        randomised=randomised,
        corrected=corrected,
        first_randomised_shell=first,
        resolution_angstrom=resolution_angstrom(corrected, box_angstrom),
        limited_by_sampling=last == corrected.size - 1,
        mask_correlation=float(randomised[min(last, randomised.size - 1)]),
    )


def last_shell_above(curve: Curve, threshold: float = THRESHOLD) -> int:
    """Return the last shell before the curve first falls below the threshold; 0 if it does so at once."""
    below = np.flatnonzero(curve[1:] < threshold)
    return int(below[0]) if below.size else curve.size - 1


def resolution_angstrom(curve: Curve, box_angstrom: float, threshold: float = THRESHOLD) -> float | None:
    """Return where a curve first falls below the threshold, linear between shells; None if it never exceeds it."""
    last = last_shell_above(curve, threshold)
    if last == 0:
        return None
    if last == curve.size - 1:
        return box_angstrom / last
    part = (curve[last] - threshold) / (curve[last] - curve[last + 1])
    return float(box_angstrom / (last + part))


def _power(transform: Array) -> Any:
    xp = namespace(transform)
    return xp.real(transform) ** 2 + xp.imag(transform) ** 2
