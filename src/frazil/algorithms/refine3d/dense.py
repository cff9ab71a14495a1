"""Comparison of images with every orientation of a grid, as matrix products (algorithms 7.2, 8; recipe: refine3d 3).

log L = Re <x C e^{2 pi i k t}, m> - |C m|^2 / 2 for image x and slice m, both divided by the noise, relative to no particle.
One real matrix product over all images, shifts and orientations of a tile gives the first term, a smaller one the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d.layout import HalfPlane, centring_phases
from frazil.algorithms.refine3d.tiles import Tile, log_shift_prior, shell_residual, shifted
from frazil.array import Array, is_cupy, to_host
from frazil.kernels.class2d_products import accumulate, as_complex, as_real, multiply
from frazil.kernels.posterior import Posterior, posterior
from frazil.kernels.slices import insert_slices, take_slices
from frazil.primitives.volumes import PADDING

_CPU_PRODUCT_BYTES = 24 * 2**20
_DEVICE_PRODUCT_BYTES = 2**30
_CUTOFF = 10.0
_TILE_IMAGES = (2, 32)


@dataclass(frozen=True, slots=True)
class Bank:
    """Slices of one or several volumes at every orientation of a grid, and memory for products.

    Attributes
    ----------
    matrices: (orientation, 3, 3) float32 host.
    templates: (volume x orientation, count) complex, divided by the noise. power: the same shape, |template|^2.
    shifts: (shift, 2) float32 host, Å. phases: (shift, insert count).
    products: (tile images x shift, volume x orientation). tile_images: images per tile.
    volumes: number of volumes.
    """

    matrices: npt.NDArray[np.float32]
    templates: Array
    power: Array
    shifts: npt.NDArray[np.float32]
    phases: Array
    products: Array
    tile_images: int
    volumes: int

    @property
    def count(self) -> int:
        """Number of coefficients compared."""
        return int(self.templates.shape[1])


@dataclass(slots=True)
class BankSums:
    """Sums over images in the frame of the slices: (hypothesis, 2 insert count) and (hypothesis, insert count)."""

    numerator: Array
    denominator: Array


def make_bank(
    plane: HalfPlane,
    cubes: list[Array],
    deviation: Array,
    matrices: npt.NDArray[Any],
    shifts: npt.NDArray[np.float32],
    count: int,
) -> Bank:
    """Take slices of each cube at each orientation.

    deviation: (insert count,) of the noise; the first `count` coefficients are compared.
    """
    xp = plane.xp
    turns = xp.asarray(matrices.astype(np.float32))
    kx, ky = plane.frequency_x[:count], plane.frequency_y[:count]
    slices = [take_slices(cube, kx, ky, turns, PADDING) / deviation[:count] for cube in cubes]
    templates = slices[0] if len(slices) == 1 else xp.concat(slices, axis=0)
    tile_images = _tile_images(templates, len(shifts))
    return Bank(
        matrices=matrices.astype(np.float32),
        templates=templates,
        power=xp.real(templates) ** 2 + xp.imag(templates) ** 2,
        shifts=shifts,
        phases=centring_phases(plane, xp.asarray(shifts), int(deviation.shape[0])),
        products=xp.empty((tile_images * len(shifts), templates.shape[0]), dtype=xp.float32),
        tile_images=tile_images,
        volumes=len(cubes),
    )


def compare(plane: HalfPlane, bank: Bank, tile: Tile, *, fit_scale: bool = False) -> tuple[Array, Array, Array]:
    """Return cross (image, shift, hypothesis), power (image, hypothesis), and the images at every shift (rows, insert count).

    `cross` is memory of the bank: it lasts until the next call. With `fit_scale` the log likelihood is profiled over the
    scale of the reference, max(cross, 0)^2 / (2 power): it stands in `cross`, and the power is zero.
    """
    xp, images, shifts = plane.xp, tile.whitened.shape[0], len(bank.shifts)
    moved = xp.reshape(shifted(tile, bank.phases, int(tile.whitened.shape[1])), (images * shifts, -1))
    templates = xp.matrix_transpose(as_real(bank.templates))
    cross = multiply(as_real(moved[:, : bank.count]), templates, bank.products)
    cross = xp.reshape(cross, (images, shifts, -1))
    ctf = tile.ctf[:, : bank.count]
    power = (ctf * ctf) @ xp.matrix_transpose(bank.power)
    if fit_scale:
        positive = xp.clip(cross, 0, None)
        return positive * positive / (2 * power[:, None, :] + 1e-12), xp.zeros_like(power), moved
    return cross, power, moved


def dense_posterior(
    plane: HalfPlane, bank: Bank, tile: Tile, shift_sigma_angstrom: float, *, fit_scale: bool = False, temperature: float = 1.0
) -> tuple[Posterior, Array]:
    """Return the posterior over shift, volume and orientation, and the images at every shift.

    `temperature` divides the log likelihood. Volumes have equal priors.
    """
    xp = plane.xp
    cross, power, moved = compare(plane, bank, tile, fit_scale=fit_scale)
    prior = xp.asarray(log_shift_prior(tile.offset, bank.shifts, shift_sigma_angstrom))
    if temperature != 1.0:
        cross *= 1 / temperature
        power = power / temperature
    return posterior(cross, power, prior, xp.zeros(bank.volumes, dtype=xp.float32), _CUTOFF), moved


def empty_bank_sums(plane: HalfPlane, bank: Bank) -> BankSums:
    """Return sums of nothing."""
    xp, insert = plane.xp, int(bank.phases.shape[1])
    hypotheses = bank.templates.shape[0]
    return BankSums(xp.zeros((hypotheses, 2 * insert), dtype=xp.float32), xp.zeros((hypotheses, insert), dtype=xp.float32))


def add_to_bank(plane: HalfPlane, sums: BankSums, tile: Tile, found: Posterior, moved: Array) -> None:
    """Add a tile to the sums of every hypothesis by its posterior."""
    xp = plane.xp
    images, shifts, hypotheses = found.weights.shape
    kept = int(to_host(xp.sum(found.kept)))
    weights = xp.reshape(found.weights, (images * shifts, hypotheses))
    sums.numerator = accumulate(sums.numerator, weights, as_real(moved), kept)
    over_shifts = xp.sum(found.weights, axis=1)
    sums.denominator = accumulate(sums.denominator, over_shifts, tile.ctf * tile.ctf, min(kept, images * hypotheses))


def insert_bank(
    plane: HalfPlane, bank: Bank, sums: BankSums, deviation: Array, numerators: list[Array], denominators: list[Array]
) -> None:
    """Insert the sums of each volume's hypotheses into its half cubes; hypotheses that nobody supports are skipped."""
    xp, orientations = plane.xp, len(bank.matrices)
    insert = int(bank.phases.shape[1])
    kx, ky = plane.frequency_x[:insert], plane.frequency_y[:insert]
    inverse = 1 / deviation
    for volume in range(bank.volumes):
        rows = slice(volume * orientations, (volume + 1) * orientations)
        used = np.flatnonzero(to_host(xp.sum(sums.denominator[rows, :], axis=1)) > 0)
        chosen = xp.asarray(used + volume * orientations)
        values = as_complex(xp.take(sums.numerator, chosen, axis=0)) * inverse
        weights = xp.take(sums.denominator, chosen, axis=0) * (inverse * inverse)
        turns = xp.asarray(bank.matrices[used])
        insert_slices(numerators[volume], denominators[volume], values, weights, kx, ky, turns, PADDING)


def dense_residual(plane: HalfPlane, bank: Bank, tile: Tile, best: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sum over images of |x - C m|^2 at the best hypotheses per shell; beyond what is compared m counts as zero."""
    xp = plane.xp
    hypothesis = best[:, 0] * len(bank.matrices) + best[:, 2]
    template = xp.take(bank.templates, xp.asarray(hypothesis), axis=0)
    turned = xp.take(bank.phases, xp.asarray(best[:, 1]), axis=0)
    centred = tile.whitened * turned
    near = centred[:, : bank.count] - tile.ctf[:, : bank.count] * template
    return shell_residual(plane, xp.concat([near, centred[:, bank.count :]], axis=1))


def _tile_images(templates: Array, shifts: int) -> int:
    """Images per tile, a function of sizes alone: products stay small on the CPU, and within a share of a device's memory."""
    budget = _DEVICE_PRODUCT_BYTES if is_cupy(templates) else _CPU_PRODUCT_BYTES
    low, high = _TILE_IMAGES
    return int(np.clip(budget // (4 * shifts * templates.shape[0]), low, high if not is_cupy(templates) else 512))
