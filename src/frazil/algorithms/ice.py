"""Ice in a power spectrum: the ring of water, which grows with thickness, and the sharp rings of crystals.

Rings of hexagonal and cubic ice: 3.67 Å (the strongest), 2.25 Å and 1.92 Å (Dowell & Rinfret 1960); vitreous ice has a broad
ring about 3.7 Å. Each is measured as the power in its band over what a smooth spectrum would have there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Bands in Å: the ring, and what lies on its two sides.
_CRYSTAL = (
    ((3.74, 3.60), ((4.30, 3.95), (3.45, 3.30))),
    ((2.29, 2.21), ((2.45, 2.35), (2.15, 2.07))),
    ((1.95, 1.89), ((2.05, 1.99), (1.85, 1.80))),
)
_WATER = ((4.10, 3.30), ((5.60, 4.70), (2.95, 2.60)))
_STRONG_RING = 1.5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ice:
    """Ice of a micrograph.

    `ring` is the strongest ring of crystals over its surroundings, 1 without crystals; `thickness` the power of the ring of
    water over a smooth spectrum's, 1 without ice and growing with it: to compare micrographs of one session with each other.
    None where Nyquist hides the band.
    """

    ring: float | None
    thickness: float | None

    @property
    def crystalline(self) -> bool:
        """Whether crystalline ice is strong."""
        return self.ring is not None and self.ring > _STRONG_RING


def measure_ice(profile: Floats, step_per_angstrom: float) -> Ice:
    """Measure ice in the mean power of rings.

    Parameters
    ----------
    profile: (n,) rings from frequency 0 in equal steps, e.g. up to Nyquist; all 0 for an image without structure.
    step_per_angstrom: width of a ring, 1/Å.
    """
    s = np.asarray(np.arange(profile.size) * step_per_angstrom, dtype=np.float64)
    crystals = [_over_surroundings(profile, s, ring, beside) for ring, beside in _CRYSTAL]
    seen = [value for value in crystals if value is not None]
    return Ice(max(seen) if seen else None, _over_surroundings(profile, s, *_WATER))


def _over_surroundings(
    profile: Floats, s: Floats, ring: tuple[float, float], beside: tuple[tuple[float, float], tuple[float, float]]
) -> float | None:
    """Return the mean power of a band over the line, in the logarithm, between the bands beside it."""
    bands = [(s >= 1.0 / low) & (s <= 1.0 / high) for low, high in (*beside, ring)]
    if s.max(initial=0.0) < 1.0 / beside[1][1] or not all(band.any() for band in bands):
        return None
    left, right, inside = (float(profile[band].mean()) for band in bands)
    if min(left, right) <= 0.0:
        return None
    at = [float(s[band].mean()) for band in bands]
    share = (at[2] - at[0]) / (at[1] - at[0])
    return float(inside / np.exp((1.0 - share) * np.log(left) + share * np.log(right)))
