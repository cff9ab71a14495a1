"""The motion of one movie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """The translation to apply to each frame, frame 0 the reference (docs/conventions.md).

    `shift_x_px`, `shift_y_px` are those at the middle of the field. `local_coefficients`, if any, are what other places need
    beyond them, as RELION writes it: 18 for x, then 18 for y, of a polynomial of second order over the field and third order
    in time; it is 0 at the middle of the field and in frame 0.
    """

    shift_x_px: tuple[float, ...]
    shift_y_px: tuple[float, ...]
    pixel_size_angstrom: float
    total_angstrom: float  # accumulated path length at the middle of the field
    early_angstrom: float  # up to 4 e/Å²
    late_angstrom: float
    local_angstrom: float = 0.0  # root mean square over field and frames of the motion beyond that of the middle
    local_coefficients: tuple[float, ...] | None = None
    converged: bool = True
    sigma_px: float | None = None  # predicted RMS error over field and frames, where the method knows it
