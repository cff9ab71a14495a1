"""The geometry of a 3D run: which Fourier coefficients of a particle image take part, sorted by radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.array import Array, namespace
from frazil.model.errors import InputError


@dataclass(frozen=True, slots=True)
class HalfPlane:
    """Coefficients of a non-redundant half plane with 1 <= |k| <= limit, sorted by radius: a prefix is a low-pass.

    Attributes
    ----------
    box_size_px, box_angstrom: the particle box as extracted.
    limit: largest radius, Fourier pixels; below Nyquist.
    radius, shell: (coefficient,) host.
    box_index: (coefficient,) backend; flat position in the rfft of the box.
    frequency_x, frequency_y: (coefficient,) float32 backend, Fourier pixels.
    coefficient_shells: (coefficient, shell) float32 backend, one where a coefficient belongs to a shell.
    xp: the backend's module.
    """

    box_size_px: int
    box_angstrom: float
    limit: float
    radius: npt.NDArray[np.float64]
    shell: npt.NDArray[np.int64]
    box_index: Array
    frequency_x: Array
    frequency_y: Array
    coefficient_shells: Array
    xp: Any

    @property
    def kept(self) -> int:
        """Number of coefficients."""
        return int(self.radius.size)

    @property
    def shell_count(self) -> int:
        """Number of shells of the box, 0 to Nyquist."""
        return self.box_size_px // 2 + 1

    @property
    def pixel_size_angstrom(self) -> float:
        """Å per pixel of the particle images."""
        return self.box_angstrom / self.box_size_px

    def count(self, radius: float) -> int:
        """Return how many coefficients lie within a radius: they are the first ones."""
        return int(np.searchsorted(self.radius, radius, side="right"))

    def working_size(self, radius: float) -> int:
        """Return the even side of the smallest box over the same extent that holds a radius and what masking spreads."""
        return min(2 * int(np.ceil(radius + 4)), self.box_size_px)


def make_half_plane(box_size_px: int, pixel_size_angstrom: float, max_resolution_angstrom: float, xp: Any) -> HalfPlane:
    """Lay out the coefficients of a run on the backend `xp`.

    Raises InputError when the box is odd or smaller than 16 pixels.
    """
    if box_size_px < 16 or box_size_px % 2:
        raise InputError("BAD_BOX_SIZE", f"Extract particles in an even box of 16 pixels or more; this one has {box_size_px}.")
    box_angstrom = box_size_px * pixel_size_angstrom
    limit = min(box_angstrom / max_resolution_angstrom, box_size_px / 2 - 1e-3)
    ky, kx = np.meshgrid(np.fft.fftfreq(box_size_px, 1 / box_size_px), np.arange(box_size_px // 2 + 1.0), indexing="ij")
    radius = np.hypot(kx, ky)
    wanted = (radius >= 1) & (radius <= limit) & ~((kx == 0) & (ky < 0))
    order = np.argsort(radius[wanted], kind="stable")
    shell = np.round(radius[wanted][order]).astype(np.int64)
    return HalfPlane(
        box_size_px=box_size_px,
        box_angstrom=box_angstrom,
        limit=limit,
        radius=radius[wanted][order],
        shell=shell,
        box_index=xp.asarray(np.flatnonzero(wanted)[order]),
        frequency_x=xp.asarray(kx[wanted][order].astype(np.float32)),
        frequency_y=xp.asarray(ky[wanted][order].astype(np.float32)),
        coefficient_shells=xp.asarray((shell[:, None] == np.arange(box_size_px // 2 + 1)).astype(np.float32)),
        xp=xp,
    )


def centring_phases(plane: HalfPlane, shifts: Array, count: int) -> Array:
    """Return the phases that move content by minus each shift, for the first coefficients: exp(+2 pi i k.t / box).

    shifts: (..., 2) real, (x, y) in Å, on the backend. Returns (..., count) complex64.
    """
    xp = namespace(shifts)
    turn = xp.astype(shifts * (2 * xp.pi / plane.box_angstrom), xp.float32)
    angle = turn[..., 0, None] * plane.frequency_x[:count] + turn[..., 1, None] * plane.frequency_y[:count]
    return xp.astype(xp.cos(angle), xp.complex64) + 1j * xp.astype(xp.sin(angle), xp.complex64)
