"""What the user chooses for a streaming homogeneous refinement."""

from __future__ import annotations

from dataclasses import dataclass

from frazil.model.errors import InputError

_POSITIVE = (
    "particle_diameter_angstrom",
    "start_resolution_angstrom",
    "max_resolution_angstrom",
    "low_resolution_join_angstrom",
)
_COUNTS = ("first_images", "unit_images", "max_passes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refine3dParameters:
    """Parameters of one run; the same parameters, start map and block sequence give the same result.

    Attributes
    ----------
    particle_diameter_angstrom: longest diameter of the particle; a soft sphere of 1.05 of it masks references.
    symmetry: point group in RELION's setting.
    start_resolution_angstrom: the start map is low-passed to this; nothing finer is ever believed on its word.
    max_resolution_angstrom: finest resolution used; Nyquist limits it further.
    low_resolution_join_angstrom: half maps share what is coarser, so that they stay in one frame.
    seed: of every random choice.
    first_images: particles with which the first refinement begins.
    unit_images: new particles taken in together afterwards.
    max_passes: passes over all particles of one refinement at most; it stops by itself before.
    """

    particle_diameter_angstrom: float
    symmetry: str = "C1"
    start_resolution_angstrom: float = 40.0
    max_resolution_angstrom: float = 2.0
    low_resolution_join_angstrom: float = 40.0
    seed: int = 1
    first_images: int = 2000
    unit_images: int = 500
    max_passes: int = 25

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise InputError("BAD_REFINE3D_PARAMETER", f"Set {name} to a positive number of angstroms.")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise InputError("BAD_REFINE3D_PARAMETER", f"Set {name} to 1 or more.")
        if self.seed < 0:
            raise InputError("BAD_REFINE3D_PARAMETER", "Set seed to 0 or more.")
