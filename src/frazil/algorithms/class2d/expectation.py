"""The E-step as matrix products, and the sums of the M-step (algorithms 7.2; recipe: class2d 3.3).

log L = Re <x C e^{2 pi i k t}, m> - |C m|^2 / 2 for image x and rotated reference m, both divided by the noise, relative to
no particle. The first term is one real matrix product over all images, shifts, classes and angles of a tile, the second
another, smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.class2d.grid import PADDING, Grid
from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.class2d.state import ClassStatistics, ParticleTable, PassSums
from frazil.algorithms.class2d.transforms import shift_phases
from frazil.array import Array, is_cupy, namespace, to_host
from frazil.kernels.class2d_products import accumulate, as_complex, as_real, contiguous, multiply
from frazil.kernels.posterior import Posterior, posterior
from frazil.kernels.sample import sample_rotated
from frazil.kernels.scatter import Rows, scatter_rotated

_CPU_TILE = 16  # images whose products stay in cache
_DEVICE_TILE_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Search:
    """What images are compared with in one step.

    Attributes
    ----------
    references: (class, padded, padded) complex, masked transforms.
    deviation: (count,) real; standard deviation of the noise at each coefficient used.
    bias: (class,) real log prior.
    angles: (angle,) float64 host, radians. shifts: (shift, 2) float32 host, Å.
    shift_sigma_angstrom: of the prior around the centre of each particle.
    cutoff: nats below the best hypothesis at which others count as impossible.
    """

    references: Array
    deviation: Array
    bias: Array
    angles: np.ndarray[Any, Any]
    shifts: np.ndarray[Any, Any]
    shift_sigma_angstrom: float
    cutoff: float = 10.0

    @property
    def count(self) -> int:
        """Number of coefficients used."""
        return int(self.deviation.shape[0])


@dataclass(slots=True)
class Bank:
    """Rotated references of a step and the sums that belong to them, in the references' frame.

    Attributes
    ----------
    templates: (class x angle, count) complex, divided by the noise. rows: the same as real pairs, transposed.
    power: (count, class x angle) |template|^2.
    shift_phases: (shift, count).
    numerator: (class x angle, 2 count), denominator: (class x angle, count): sums for each of the two half sets.
    products: (tile images x shift, class x angle) memory of a tile's products. tile_images: images per tile.
    """

    templates: Array
    rows: Array
    power: Array
    shift_phases: Array
    numerator: list[Array]
    denominator: list[Array]
    products: Array
    tile_images: int


@dataclass(frozen=True, slots=True)
class Tile:
    """A few images made ready: shifted to where they were last found, divided by the noise.

    whitened: (image, count) complex; ctf: (image, count); log_prior_shift: (image, shift).
    """

    whitened: Array
    ctf: Array
    log_prior_shift: Array


def make_bank(grid: Grid, search: Search) -> Bank:
    """Rotate the references for one step."""
    xp, count = namespace(search.references), search.count
    kx, ky = grid.frequency_x[:count], grid.frequency_y[:count]
    sampled = sample_rotated(search.references, kx, ky, search.angles, PADDING)
    templates = xp.reshape(sampled, (-1, count)) / search.deviation
    power = xp.real(templates) ** 2 + xp.imag(templates) ** 2
    shifts = xp.astype(xp.asarray(search.shifts), power.dtype)
    tile_images = _tile_size(templates, search)
    return Bank(
        templates=templates,
        rows=contiguous(xp.matrix_transpose(as_real(templates))),
        power=contiguous(xp.matrix_transpose(power)),
        shift_phases=shift_phases(grid, shifts, count),
        numerator=[xp.zeros((templates.shape[0], 2 * count), dtype=power.dtype) for _ in range(2)],
        denominator=[xp.zeros(templates.shape, dtype=power.dtype) for _ in range(2)],
        products=xp.empty((tile_images * search.shifts.shape[0], templates.shape[0]), dtype=power.dtype),
        tile_images=tile_images,
    )


def tile_posterior(bank: Bank, tile: Tile, bias: Array, cutoff: float) -> tuple[Posterior, Array]:
    """Return the posterior of a tile and the rows (image x shift, 2 count) that were multiplied with the references."""
    xp = namespace(tile.whitened)
    images, count = tile.whitened.shape
    shifts = bank.shift_phases.shape[0]
    shifted = (tile.whitened * tile.ctf)[:, None, :] * bank.shift_phases[None, :, :]
    rows = as_real(xp.reshape(shifted, (images * shifts, count)))
    cross = xp.reshape(multiply(rows, bank.rows, bank.products), (images, shifts, -1))
    power = (tile.ctf * tile.ctf) @ bank.power
    return posterior(cross, power, tile.log_prior_shift, bias, cutoff), rows


def expect(
    grid: Grid, images: ParticleImages, table: ParticleTable, positions: np.ndarray[Any, Any], search: Search
) -> PassSums:
    """Assign particles and sum what the M-step needs.

    Parameters
    ----------
    grid, images: of the run.
    table: its rows at `positions` get class, pose, probability and likelihood.
    positions: sorted rows.
    search: what to compare with.

    Returns
    -------
    Sums over these particles on padded grids, and the residual of the best poses per shell.
    """
    bank = make_bank(grid, search)
    weight = np.zeros(search.bias.shape[0])
    residual = np.zeros(grid.shell_count)
    for half in (0, 1):
        members = positions[table.half[positions] == half]
        for start in range(0, members.size, bank.tile_images):
            part = members[start : start + bank.tile_images]
            tile = _make_tile(grid, images, table, part, search)
            found, rows = tile_posterior(bank, tile, search.bias, search.cutoff)
            _accumulate(bank, half, tile, found, rows)
            weight += to_host(found.classes).astype(np.float64).sum(axis=0)
            residual += _residual(grid, bank, tile, to_host(found.best), search.angles.size)
            _assign(table, part, search, found)
    classes = _to_grids(grid, bank, search, weight)
    return PassSums(classes, residual, images=int(positions.size), visited=int(positions.size))


def _tile_size(templates: Array, search: Search) -> int:
    """Images per tile: fixed on the CPU, so that sums always group alike; as many as memory allows on a device."""
    if not is_cupy(templates):
        return _CPU_TILE
    per_image = 4 * search.shifts.shape[0] * (templates.shape[0] + 4 * search.count)
    return int(np.clip(_DEVICE_TILE_BYTES // per_image, 1, 256))


def _make_tile(grid: Grid, images: ParticleImages, table: ParticleTable, part: np.ndarray[Any, Any], search: Search) -> Tile:
    xp, count = grid.xp, search.count
    coefficients, ctf = images.take(part, count)
    shift = table.shift[part]
    scale = xp.asarray((1 / table.scale[part]).astype(np.float32))
    centred = coefficients * shift_phases(grid, xp.asarray(shift), count)
    whitened = centred * (scale[:, None] / search.deviation)
    distance = shift[:, None, :] + search.shifts[None, :, :] - table.centre[part][:, None, :]
    log_prior = -(distance**2).sum(axis=2) / (2 * search.shift_sigma_angstrom**2)
    return Tile(whitened, ctf, xp.asarray(log_prior.astype(np.float32)))


def _accumulate(bank: Bank, half: int, tile: Tile, found: Posterior, rows: Array) -> None:
    xp = namespace(rows)
    images, shifts, hypotheses = found.weights.shape
    kept = int(to_host(xp.sum(found.kept)))
    flat = xp.reshape(found.weights, (images * shifts, hypotheses))
    bank.numerator[half] = accumulate(bank.numerator[half], flat, rows, kept)
    over_shifts = xp.sum(found.weights, axis=1)
    squared = tile.ctf * tile.ctf
    bank.denominator[half] = accumulate(bank.denominator[half], over_shifts, squared, min(kept, images * hypotheses))


def _residual(grid: Grid, bank: Bank, tile: Tile, best: np.ndarray[Any, Any], angles: int) -> np.ndarray[Any, Any]:
    """Return the sum over images of |x - C m|^2 at the best pose, per shell, in units of the noise."""
    xp = namespace(tile.whitened)
    template = xp.take(bank.templates, xp.asarray(best[:, 0] * angles + best[:, 2]), axis=0)
    turned = xp.take(bank.shift_phases, xp.asarray(best[:, 1]), axis=0)
    difference = tile.whitened * turned - tile.ctf * template
    power = xp.sum(xp.real(difference) ** 2 + xp.imag(difference) ** 2, axis=0)
    return to_host(power @ grid.coefficient_shells[: power.shape[0], :]).astype(np.float64)


def _assign(table: ParticleTable, part: np.ndarray[Any, Any], search: Search, found: Posterior) -> None:
    best, classes = to_host(found.best), to_host(found.classes).astype(np.float64)
    table.class_index[part] = best[:, 0]
    table.shift[part] += search.shifts[best[:, 1]]
    table.psi[part] = search.angles[best[:, 2]]
    table.probability[part] = classes.max(axis=1)
    entropy = -(classes * np.log(np.maximum(classes, 1e-12))).sum(axis=1)
    table.effective_classes[part] = np.exp(entropy)
    table.log_likelihood[part] = to_host(found.log_likelihood)


def _to_grids(grid: Grid, bank: Bank, search: Search, weight: np.ndarray[Any, Any]) -> ClassStatistics:
    """Turn the sums back and lay them on the padded grids; hypotheses that nobody supports are skipped."""
    xp, count = namespace(bank.templates), search.count
    class_count, angles = weight.size, search.angles.size
    per_row = np.repeat(np.arange(class_count), angles)
    parts = []
    for half in (0, 1):
        used = to_host(bank.denominator[half][:, 0]) > 0
        rows = Rows(
            values=as_complex(bank.numerator[half]) / search.deviation,
            weights=bank.denominator[half] / search.deviation**2,
            angles=np.tile(search.angles, class_count),
            target=np.where(used, per_row, -1),
        )
        shape = (class_count, grid.padded_size)
        parts.append(scatter_rotated(rows, grid.frequency_x[:count], grid.frequency_y[:count], shape, PADDING))
    return ClassStatistics(xp.stack([p[0] for p in parts]), xp.stack([p[1] for p in parts]), weight)
