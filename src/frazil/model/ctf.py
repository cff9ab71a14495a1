"""The contrast transfer function of one micrograph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

TERMS = 5
_STEPS = 20


@dataclass(frozen=True, slots=True)
class DefocusField:
    """How the defocus differs across the field from the micrograph's, Å; its mean over the field is 0.

    The coefficients are those of `field_terms`; all 0 for a specimen across the beam, the last three 0 for a plane.
    """

    coefficients_angstrom: tuple[float, ...] = (0.0,) * TERMS

    def at(self, x: Any, y: Any) -> Any:
        """Return the difference at a place, or an array of places, in parts of the field from its middle: -1/2 to 1/2."""
        return sum(c * term for c, term in zip(self.coefficients_angstrom, field_terms(x, y), strict=True))

    @property
    def flat(self) -> bool:
        """Whether the defocus is the same everywhere."""
        return not any(self.coefficients_angstrom)

    @property
    def range_angstrom(self) -> float:
        """Difference between the greatest and the smallest defocus in the field."""
        places = [i / _STEPS - 0.5 for i in range(_STEPS + 1)]
        values = [float(self.at(x, y)) for x in places for y in places]
        return max(values) - min(values)

    def tilt(self, width_angstrom: float, height_angstrom: float) -> tuple[float, float]:
        """Return the tilt of the field's plane and the direction of its axis from +x towards +y, in [0, 180), in degrees.

        Along the axis the defocus does not change.
        """
        slope_x = self.coefficients_angstrom[0] / width_angstrom
        slope_y = self.coefficients_angstrom[1] / height_angstrom
        axis = math.degrees(math.atan2(slope_y, slope_x)) + 90.0
        return math.degrees(math.atan(math.hypot(slope_x, slope_y))), axis % 180.0


def field_terms(x: Any, y: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return `X, Y, X² - 1/12, X Y, Y² - 1/12` at a place, or arrays of places, in parts of the field from its middle."""
    return x, y, x * x - 1.0 / 12.0, x * y, y * y - 1.0 / 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ctf:
    """A CTF fit; defocus positive for underfocus, U >= V, angle in [0, 180) degrees from +x towards +y.

    U and V are means over the micrograph; `field` is what a place has beyond them.
    """

    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_degrees: float
    phase_shift_degrees: float = 0.0
    score: float = 0.0  # Pearson correlation in the fit range
    fit_resolution_angstrom: float | None = None  # None: no fit
    on_bound: bool = False  # the defocus ended on the edge of the search range
    field: DefocusField = DefocusField()

    @property
    def mean_defocus_angstrom(self) -> float:
        """Mean of U and V."""
        return 0.5 * (self.defocus_u_angstrom + self.defocus_v_angstrom)

    @property
    def astigmatism_angstrom(self) -> float:
        """U - V."""
        return self.defocus_u_angstrom - self.defocus_v_angstrom
