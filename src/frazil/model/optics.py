"""What the microscope was set to: the optics of a movie, each value with its provenance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Optics:
    """Optical parameters needed by dose weighting and CTF."""

    pixel_size_angstrom: float
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    dose_per_frame_e_per_angstrom2: float = 1.0
    pre_exposure_e_per_angstrom2: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieMetadata:
    """What a companion file (EPU XML, SerialEM mdoc) or the movie's header says; None where it says nothing.

    `provenance` maps a field's name to where its value came from, e.g. {"voltage_kv": "EPU XML"}.
    """

    pixel_size_angstrom: float | None = None
    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    dose_per_frame_e_per_angstrom2: float | None = None
    total_dose_e_per_angstrom2: float | None = None
    frame_count: int | None = None
    width_px: int | None = None
    height_px: int | None = None
    beam_shift_x: float | None = None
    beam_shift_y: float | None = None
    stage_x_um: float | None = None
    stage_y_um: float | None = None
    acquired_at: str | None = None
    grid_square: str | None = None
    foil_hole: str | None = None
    gain_path: str | None = None
    provenance: tuple[tuple[str, str], ...] = ()
