"""The geometry of one run: which Fourier coefficients are kept, and the working box they span."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.array import Array
from frazil.model.errors import InputError

PADDING = 2
_MARGIN_SHELLS = 4  # room above the limit for what masking spreads


@dataclass(frozen=True, slots=True)
class Grid:
    """Coefficients of a non-redundant half plane, sorted by radius, and the working box.

    The working box is the Fourier crop of the particle box to the resolution limit: the same extent in Å, fewer pixels.
    Every real-space image of the run (references, profile) has `size` pixels of `pixel_size_angstrom`. Grids of
    accumulators are `padded_size` wide, sampled `PADDING` times finer, zero frequency in the centre.

    Attributes
    ----------
    box_size_px, box_angstrom: the particle box as extracted.
    limit: largest radius kept, Fourier pixels.
    size, pixel_size_angstrom: the working box.
    radius, shell: (coefficient,) host; all coefficients with 1 <= radius <= box/2 - 2, sorted by radius.
    box_index: (coefficient,) backend; flat position in the rfft of the particle box.
    frequency_x, frequency_y: (coefficient kept,) float32 backend, Fourier pixels.
    mate_weight: (coefficient kept,) float32 backend; 2 where kx = 0, whose mates an rfft holds as well, else 1.
    working_index: (flat rfft of the working box,) backend; kept coefficient at that position, or their count for none.
    coefficient_shells: (coefficient, shell) float32 backend, one where a coefficient belongs to a shell.
    pixel_radius: (size, size) float32 backend, Å from the centre.
    offset: (size,) float32 backend, Å from the centre along one axis.
    cells: (cell,) backend; flat positions in the padded grid within the limit.
    cell_lookup: (flat padded grid,) backend; cell at that position, or the number of cells for none.
    cell_radius: (cell,) host, Fourier pixels.
    cell_shells: (cell, shell) float32 backend, one where a cell belongs to a shell.
    xp: the backend's module.
    """

    box_size_px: int
    box_angstrom: float
    limit: float
    size: int
    pixel_size_angstrom: float
    radius: np.ndarray[Any, Any]
    shell: np.ndarray[Any, Any]
    box_index: Array
    frequency_x: Array
    frequency_y: Array
    mate_weight: Array
    working_index: Array
    coefficient_shells: Array
    pixel_radius: Array
    offset: Array
    cells: Array
    cell_lookup: Array
    cell_radius: np.ndarray[Any, Any]
    cell_shells: Array
    xp: Any

    @property
    def padded_size(self) -> int:
        """Width of the accumulators' grids."""
        return PADDING * self.size

    @property
    def kept(self) -> int:
        """Number of coefficients within the limit."""
        return int(self.frequency_x.shape[0])

    @property
    def shell_count(self) -> int:
        """Number of shells of the particle box, the zeroth included."""
        return self.box_size_px // 2

    def count(self, radius: float) -> int:
        """Return how many coefficients lie within a radius: they are the first ones."""
        return min(int(np.searchsorted(self.radius, radius, side="right")), self.kept)

    def shells_of(self, count: int) -> np.ndarray[Any, Any]:
        """Return the shells of the first `count` coefficients (host)."""
        return self.shell[:count]


def make_grid(box_size_px: int, pixel_size_angstrom: float, max_resolution_angstrom: float, xp: Any) -> Grid:
    """Lay out the coefficients of a run on the backend `xp`.

    Raises InputError when the box is odd or smaller than 16 pixels.
    """
    if box_size_px < 16 or box_size_px % 2:
        raise InputError("BAD_BOX_SIZE", f"Extract particles in an even box of 16 pixels or more; this one has {box_size_px}.")
    box_angstrom = box_size_px * pixel_size_angstrom
    limit = min(box_angstrom / max_resolution_angstrom, box_size_px / 3)
    size = min(2 * math.ceil(limit + _MARGIN_SHELLS), box_size_px)
    radius, ky, kx, box_index = _half_plane(box_size_px)
    shell = np.round(radius).astype(np.int64)
    kept = int(np.searchsorted(radius, limit, side="right"))
    offset = (np.arange(size) - size // 2) * (box_angstrom / size)
    padded = (np.arange(PADDING * size) - size * PADDING // 2) / PADDING
    cell_radius = np.hypot(padded[:, None], padded).ravel()
    cells = np.flatnonzero(cell_radius <= limit + 0.5)
    lookup = np.full(cell_radius.size, cells.size, np.int64)
    lookup[cells] = np.arange(cells.size)
    cell_shell = np.round(cell_radius[cells]).astype(np.int64)
    shells = np.arange(box_size_px // 2)
    return Grid(
        box_size_px=box_size_px,
        box_angstrom=box_angstrom,
        limit=limit,
        size=size,
        pixel_size_angstrom=box_angstrom / size,
        radius=radius,
        shell=shell,
        box_index=xp.asarray(box_index),
        frequency_x=xp.asarray(kx[:kept].astype(np.float32)),
        frequency_y=xp.asarray(ky[:kept].astype(np.float32)),
        mate_weight=xp.asarray(np.where(kx[:kept] == 0, 2, 1).astype(np.float32)),
        working_index=xp.asarray(_positions(ky[:kept], kx[:kept], size)),
        coefficient_shells=xp.asarray((shell[:, None] == shells).astype(np.float32)),
        pixel_radius=xp.asarray(np.hypot(offset[:, None], offset).astype(np.float32)),
        offset=xp.asarray(offset.astype(np.float32)),
        cells=xp.asarray(cells),
        cell_lookup=xp.asarray(lookup),
        cell_radius=cell_radius[cells],
        cell_shells=xp.asarray((cell_shell[:, None] == shells).astype(np.float32)),
        xp=xp,
    )


def _half_plane(box_size_px: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Radius, ky, kx and flat rfft position of the non-redundant coefficients with 1 <= r <= box/2 - 2, by radius."""
    ky, kx = np.meshgrid(np.fft.fftfreq(box_size_px, 1 / box_size_px), np.arange(box_size_px // 2 + 1.0), indexing="ij")
    radius = np.hypot(kx, ky)
    wanted = (radius >= 1) & (radius <= box_size_px // 2 - 2) & ~((kx == 0) & (ky < 0))
    order = np.argsort(radius[wanted], kind="stable")
    return radius[wanted][order], ky[wanted][order], kx[wanted][order], np.flatnonzero(wanted)[order]


def _positions(ky: np.ndarray[Any, Any], kx: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Invert: for each flat position of the working rfft the coefficient there, or the number of coefficients."""
    positions = np.full((size, size // 2 + 1), kx.size, np.int64)
    positions[ky.astype(np.int64) % size, kx.astype(np.int64)] = np.arange(kx.size)
    return positions.ravel()
