"""The motion of one movie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """Whole-frame motion: the translation to apply to each frame, frame 0 the reference (docs/conventions.md)."""

    shift_x_px: tuple[float, ...]
    shift_y_px: tuple[float, ...]
    pixel_size_angstrom: float
    total_angstrom: float  # accumulated path length
    early_angstrom: float  # up to 4 e/Å²
    late_angstrom: float
    converged: bool = True
    sigma_px: float | None = None  # predicted RMS error, where the method knows it
