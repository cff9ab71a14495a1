"""Blocks of particle images, and the store of their Fourier coefficients.

The store keeps, per particle, the complex64 coefficients up to the resolution limit and the float32 CTF at them, in host
memory: 12 n bytes for n coefficients, n = pi limit^2 / 2. A 64 px box limited to shell 21 takes 8.6 kB a particle, 0.9 GB
per 10^5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np

from frazil.algorithms.ctf.model import ctf_at
from frazil.array import Array, fft, namespace, to_device, to_host
from frazil.model.errors import FrazilError, InputError
from frazil.model.optics import Optics

_CLIP_SIGMA = 6.0
_LOAD_BATCH = 256


class CoefficientLayout(Protocol):
    """Which coefficients of a box are kept, in which order: `class2d.grid.Grid`, or `refine3d.layout.HalfPlane`."""

    @property
    def box_size_px(self) -> int:
        """Side of the particle box."""

    @property
    def box_angstrom(self) -> float:
        """Extent of the particle box."""

    @property
    def kept(self) -> int:
        """Number of coefficients kept: the first ones."""

    @property
    def shell_count(self) -> int:
        """Number of shells, the zeroth included."""

    @property
    def box_index(self) -> Array:
        """(coefficient,) flat position in the rfft of the box."""

    @property
    def frequency_x(self) -> Array:
        """(coefficient kept,) Fourier pixels."""

    @property
    def frequency_y(self) -> Array:
        """(coefficient kept,) Fourier pixels."""

    @property
    def coefficient_shells(self) -> Array:
        """(coefficient, shell) one where a coefficient belongs to a shell."""

    @property
    def xp(self) -> Any:
        """The backend's module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticleBlock:
    """The particles of one block: what one exposure gave, in the order of their picks.

    Attributes
    ----------
    sequence: the block's number in the ledger's sequence.
    uid: (particle,) uint64, identities fixed for life.
    images: (particle, y, x) float32, protein white, background mean 0 and standard deviation 1.
    defocus_u_angstrom, defocus_v_angstrom, defocus_angle_degrees, phase_shift_degrees: (particle,) float.
    optics: of the block, with the pixel size of the images.
    """

    sequence: int
    uid: np.ndarray[Any, Any]
    images: np.ndarray[Any, Any]
    defocus_u_angstrom: np.ndarray[Any, Any]
    defocus_v_angstrom: np.ndarray[Any, Any]
    defocus_angle_degrees: np.ndarray[Any, Any]
    phase_shift_degrees: np.ndarray[Any, Any]
    optics: Optics

    def __post_init__(self) -> None:
        count = self.uid.shape[0]
        columns = (
            self.images,
            self.defocus_u_angstrom,
            self.defocus_v_angstrom,
            self.defocus_angle_degrees,
            self.phase_shift_degrees,
        )
        if any(column.shape[0] != count for column in columns):
            raise InputError("BLOCK_LENGTHS", f"Give block {self.sequence} one image and one CTF per particle uid.")
        if self.images.ndim != 3 or self.images.shape[1] != self.images.shape[2]:
            raise InputError("BLOCK_SHAPE", f"Give block {self.sequence} square images (particle, y, x).")


def load_coefficients(grid: CoefficientLayout, images: Array) -> tuple[Array, Array]:
    """Return the kept coefficients and the power per shell of particle images.

    Each image is clipped, its mean outside 0.45 box subtracted, and faded out at the box's edge (the particle mask is not
    applied: delocalised signal stays). X = rfft2(image about its centre) / box.

    Parameters
    ----------
    grid: of the run.
    images: (particle, box, box) real.

    Returns
    -------
    (particle, kept) complex coefficients and (particle, shell) mean of |X|^2 over each shell.
    """
    xp = namespace(images)
    box = grid.box_size_px
    offset = xp.asarray(np.arange(box, dtype=np.float32) - box // 2)
    radius = xp.sqrt(offset[:, None] ** 2 + offset**2)
    outside = xp.astype(radius > 0.45 * box, images.dtype)
    ramp = xp.clip((box / 2 - 1 - radius) / (box / 16), 0, 1)
    window = xp.astype(0.5 - 0.5 * xp.cos(xp.pi * ramp), images.dtype)
    clipped = xp.clip(images, -_CLIP_SIGMA, _CLIP_SIGMA)
    background = xp.sum(clipped * outside, axis=(-2, -1), keepdims=True) / xp.sum(outside)
    faded = xp.roll((clipped - background) * window, (box // 2, box // 2), axis=(-2, -1))
    spectrum = xp.reshape(fft(xp).rfftn(faded, axes=(-2, -1)), (images.shape[0], -1))
    coefficients = xp.take(spectrum, grid.box_index, axis=1) / box
    power = xp.real(coefficients) ** 2 + xp.imag(coefficients) ** 2
    shells = xp.sum(grid.coefficient_shells, axis=0)
    shell_power = (power @ grid.coefficient_shells) / xp.where(shells > 0, shells, xp.ones_like(shells))
    return coefficients[:, : grid.kept], shell_power


Slab: TypeAlias = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Coefficients, CTFs and power of a block's particles."""


class ParticleImages:
    """Coefficients, CTFs and power of every particle of a run, by position in the block sequence (host memory)."""

    def __init__(self, grid: CoefficientLayout) -> None:
        self._grid = grid
        self._slabs: list[Slab | Callable[[], Slab]] = []  # what is loaded, and how the others are
        self._first: list[int] = [0]

    def __len__(self) -> int:
        return self._first[-1]

    def append(self, block: ParticleBlock) -> None:
        """Load a block behind the others.

        Raises InputError when box or pixel size differ from the run's.
        """
        slab = self._load(block)
        if block.uid.shape[0]:
            self._append(slab, block.uid.shape[0])

    def append_later(
        self, sequence: np.ndarray[Any, Any], uid: np.ndarray[Any, Any], load: Callable[[int], ParticleBlock]
    ) -> None:
        """Make room for blocks that are loaded when one of their particles is first asked for.

        Parameters
        ----------
        sequence: (particle,) of each particle's block; the particles of a block are neighbours.
        uid: (particle,) what the blocks hold.
        load: returns a block by its sequence. A block with other particles than before raises FrazilError BLOCK_CHANGED.
        """
        starts = np.flatnonzero(np.diff(sequence, prepend=sequence[:1] - 1))
        for first, end in pairwise([*starts.tolist(), sequence.size]):
            self._append(partial(self._load_again, int(sequence[first]), uid[first:end], load), end - first)

    def take(self, positions: np.ndarray[Any, Any], count: int) -> tuple[Array, Array]:
        """Return the first `count` coefficients and CTF values of the particles at sorted positions, on the backend."""
        coefficients = np.empty((positions.size, count), np.complex64)
        ctf = np.empty((positions.size, count), np.float32)
        for slab, inside, rows in self._by_slab(positions):
            coefficients[inside] = slab[0][rows, :count]
            ctf[inside] = slab[1][rows, :count]
        return to_device(coefficients, self._grid.xp), to_device(ctf, self._grid.xp)

    def power(self, positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return (particle, shell) mean of |X|^2 of the particles at sorted positions (host)."""
        power = np.empty((positions.size, self._grid.shell_count), np.float32)
        for slab, inside, rows in self._by_slab(positions):
            power[inside] = slab[2][rows]
        return power

    def _by_slab(self, positions: np.ndarray[Any, Any]) -> Iterator[tuple[Any, slice, np.ndarray[Any, Any]]]:
        if positions.size and not (positions[0] >= 0 and positions[-1] < len(self)):
            raise FrazilError("IMAGES_MISSING", "Load every block up to the cursor before going on.")
        bounds = np.searchsorted(positions, self._first)
        for number in np.flatnonzero(np.diff(bounds)):
            inside = slice(int(bounds[number]), int(bounds[number + 1]))
            yield self._slab(int(number)), inside, positions[inside] - self._first[number]

    def _slab(self, number: int) -> Slab:
        slab = self._slabs[number]
        if callable(slab):
            slab = self._slabs[number] = slab()
        return slab

    def _append(self, slab: Slab | Callable[[], Slab], count: int) -> None:
        self._slabs.append(slab)
        self._first.append(self._first[-1] + count)

    def _load_again(self, sequence: int, uid: np.ndarray[Any, Any], load: Callable[[int], ParticleBlock]) -> Slab:
        block = load(sequence)
        if not np.array_equal(block.uid, uid):
            raise FrazilError("BLOCK_CHANGED", f"Restore block {sequence}: it does not hold the particles that it held before.")
        return self._load(block)

    def _load(self, block: ParticleBlock) -> Slab:
        grid = self._grid
        pixel_size = grid.box_angstrom / grid.box_size_px
        if block.images.shape[1] != grid.box_size_px:
            raise InputError(
                "BOX_SIZE_DIFFERS",
                f"Extract block {block.sequence} in the run's box of {grid.box_size_px} px, not {block.images.shape[1]}.",
            )
        if abs(block.optics.pixel_size_angstrom - pixel_size) > 1e-3 * pixel_size:
            raise InputError(
                "PIXEL_SIZE_DIFFERS",
                f"Extract block {block.sequence} at the run's pixel size of {pixel_size:.4f} Å, "
                f"not {block.optics.pixel_size_angstrom:.4f}.",
            )
        count = block.uid.shape[0]
        coefficients = np.empty((count, grid.kept), np.complex64)
        power = np.empty((count, grid.shell_count), np.float32)
        for start in range(0, count, _LOAD_BATCH):
            part = slice(start, start + _LOAD_BATCH)
            loaded = load_coefficients(grid, to_device(np.asarray(block.images[part], np.float32), grid.xp))
            coefficients[part], power[part] = to_host(loaded[0]), to_host(loaded[1])
        if not np.isfinite(power).all():
            raise InputError("BAD_PIXELS", f"Replace the infinite or undefined pixels in block {block.sequence}.")
        return coefficients, self._ctf_of(block), power

    def _ctf_of(self, block: ParticleBlock) -> np.ndarray[Any, Any]:
        grid = self._grid
        values = ctf_at(
            to_host(grid.frequency_x).astype(np.float64) / grid.box_angstrom,
            to_host(grid.frequency_y).astype(np.float64) / grid.box_angstrom,
            defocus_u_angstrom=block.defocus_u_angstrom[:, None],
            defocus_v_angstrom=block.defocus_v_angstrom[:, None],
            defocus_angle_degrees=block.defocus_angle_degrees[:, None],
            phase_shift_degrees=block.phase_shift_degrees[:, None],
            optics=block.optics,
        )
        return np.asarray(values, np.float32)
