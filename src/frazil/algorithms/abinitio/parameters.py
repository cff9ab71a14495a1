"""What the user chooses for an ab-initio reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

from frazil.model.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class AbInitioParameters:
    """Parameters of one run; the same parameters and particles give the same result.

    Attributes
    ----------
    particle_diameter_angstrom: longest diameter of the particle.
    volume_count: volumes reconstructed at once, to part different particles.
    symmetry: enforced from the start; C1 lets the particle show its own.
    max_resolution_angstrom: finest resolution used.
    restarts: random starts, of which the one that explains held-out particles best goes on.
    iterations: online steps of the start that goes on.
    seed: of every random choice.
    """

    particle_diameter_angstrom: float
    volume_count: int = 1
    symmetry: str = "C1"
    max_resolution_angstrom: float = 12.0
    restarts: int = 3
    iterations: int = 120
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("particle_diameter_angstrom", "max_resolution_angstrom"):
            if not getattr(self, name) > 0:
                raise InputError("BAD_ABINITIO_PARAMETER", f"Set {name} to a positive number of angstroms.")
        for name in ("volume_count", "restarts", "iterations"):
            if getattr(self, name) < 1:
                raise InputError("BAD_ABINITIO_PARAMETER", f"Set {name} to 1 or more.")
        if self.seed < 0:
            raise InputError("BAD_ABINITIO_PARAMETER", "Set seed to 0 or more.")
