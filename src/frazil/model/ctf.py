"""The contrast transfer function of one micrograph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ctf:
    """A CTF fit; defocus positive for underfocus, U >= V, angle in [0, 180) degrees from +x towards +y."""

    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_degrees: float
    phase_shift_degrees: float = 0.0
    score: float = 0.0  # Pearson correlation in the fit range
    fit_resolution_angstrom: float | None = None  # None: no fit
    on_bound: bool = False  # the defocus ended on the edge of the search range

    @property
    def mean_defocus_angstrom(self) -> float:
        """Mean of U and V."""
        return 0.5 * (self.defocus_u_angstrom + self.defocus_v_angstrom)

    @property
    def astigmatism_angstrom(self) -> float:
        """U - V."""
        return self.defocus_u_angstrom - self.defocus_v_angstrom
