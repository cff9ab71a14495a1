"""What the user chooses for streaming 2D classification."""

from __future__ import annotations

from dataclasses import dataclass

from frazil.model.errors import FrazilError


@dataclass(frozen=True, slots=True, kw_only=True)
class Class2dParameters:
    """Parameters of one run; the same parameters, seed and block sequence give the same result.

    Attributes
    ----------
    particle_diameter_angstrom: longest diameter of the particle.
    class_count: number of classes once enough particles have arrived (`images_per_class` each).
    max_resolution_angstrom: finest resolution used for alignment and shown in averages; the box's sampling may limit it
        further (to two thirds of Nyquist).
    mask_diameter_angstrom: of the circular mask of class averages; 0: 1.1 times the particle's.
    seed: of every random choice.
    bootstrap_images: particles needed for the first classes.
    unit_images: particles classified together once there are classes; batches are formed by block sequence.
    images_per_class: particles per class that let a new class be seeded while the run grows.
    final_passes: passes over all particles that end a run; more than two change little (measured).
    """

    particle_diameter_angstrom: float
    class_count: int = 50
    max_resolution_angstrom: float = 10.0
    mask_diameter_angstrom: float = 0.0
    seed: int = 1
    bootstrap_images: int = 300
    unit_images: int = 200
    images_per_class: int = 40
    final_passes: int = 2

    def __post_init__(self) -> None:
        for name in ("particle_diameter_angstrom", "max_resolution_angstrom"):
            if not getattr(self, name) > 0:
                raise FrazilError("BAD_CLASS2D_PARAMETER", f"Set {name} to a positive number of angstroms.")
        if not self.mask_diameter_angstrom >= 0:
            raise FrazilError("BAD_CLASS2D_PARAMETER", "Set mask_diameter_angstrom to a positive number of angstroms, or 0.")
        for name in ("class_count", "bootstrap_images", "unit_images", "images_per_class", "final_passes"):
            if getattr(self, name) < 1:
                raise FrazilError("BAD_CLASS2D_PARAMETER", f"Set {name} to 1 or more.")
        if self.seed < 0:
            raise FrazilError("BAD_CLASS2D_PARAMETER", "Set seed to 0 or more.")
