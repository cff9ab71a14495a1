"""Tiles of every frame, their Fourier coefficients, and the statistics over frames that motion is read from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.motion.field import Matrix, mean_terms, orthonormal_basis, relative_places
from frazil.algorithms.motion.frames import Survey
from frazil.array import Array, namespace, to_host
from frazil.kernels import tiles as kernels
from frazil.kernels.gain import bin_image
from frazil.primitives.filters import edge_taper
from frazil.primitives.fourier import frequencies, friendly_size, rfft2

_CHUNK = 1 << 19  # coefficients that are worked on at a time: few enough for a CPU's cache
_SHELLS_MIN, _EVIDENCE_PER_SHELL = 6, 1_000_000  # modes times pairs of frames that make a shell's covariance sound
_NYQUIST_MARGIN = 0.47
_BINNED_PIXEL_ANGSTROM = 2.3  # the largest
_TILES_MIN = 4  # along an axis, for a polynomial of third order
_TAPER = 20  # of a tile's side: the window's edges keep what a tile's own edges would add from its coefficients


@dataclass(frozen=True, slots=True)
class TileLayout:
    """Which tiles are cut, and which of their coefficients are kept, in what order.

    Attributes
    ----------
    factor: px of the movie per px of the tiles. shape: `(y, x)` of a tile.
    origins: (tile, 2) host, first px in the binned frame of shift 0, (y, x).
    basis, polynomials: of `field.orthonormal_basis`, over the tiles.
    overlap: area of all tiles over the area that they cover.
    positions: (mode,) flat positions in a tile's half transform; a half plane without mates, sorted by shell.
    waves: (mode,) twice, positions of y and x frequency in `axes`.
    ky, kx: (mode,) float32, cycles per px of the movie.
    axes: host, the frequencies of each axis, cycles per px of the movie.
    bounds: (shell + 1,) host, where each shell's modes begin. shell_frequencies: (shell,) host, mean |k|, cycles per px.
    """

    factor: int
    shape: tuple[int, int]
    origins: np.ndarray[Any, Any]
    basis: Matrix
    polynomials: Matrix
    overlap: float
    positions: Array
    waves: tuple[Array, Array]
    ky: Array
    kx: Array
    axes: tuple[Matrix, Matrix]
    bounds: np.ndarray[Any, Any]
    shell_frequencies: Matrix

    @property
    def shell_counts(self) -> np.ndarray[Any, Any]:
        """Modes per shell, of all tiles together, tiles that overlap counted for what they add."""
        return np.diff(self.bounds) * len(self.origins) / self.overlap


@dataclass(frozen=True, slots=True)
class Tiles:
    """Coefficients of the tiles of every group of frames, background taken away, tiles following the specimen.

    Attributes
    ----------
    layout: what they are.
    shells: per shell, (group, tile, mode) complex64; 0 for groups that cannot be used.
    offsets: (group, 2) host, px of the movie (y, x), whole binned px: shifts that are already applied.
    """

    layout: TileLayout
    shells: tuple[Array, ...]
    offsets: Matrix


def binning_factor(pixel_size_angstrom: float, shape: tuple[int, int]) -> int:
    """Return how many px of a movie, on each axis, make one px of the tiles."""
    return max(1, min(int(_BINNED_PIXEL_ANGSTROM / pixel_size_angstrom), min(shape) // 64))


def tile_layout(
    seen: Survey,
    shifts: Matrix,
    pixel_size_angstrom: float,
    tile_angstrom: float,
    band_angstrom: tuple[float, float],
    shells_max: int,
) -> TileLayout:
    """Choose tiles and coefficients for a movie.

    Tiles of some 340 Å fit together over what all frames have in common. Overlapping windows would tell no more and cost
    more; whole-frame motion is what all tiles have in common.

    Parameters
    ----------
    seen: the movie.
    shifts: (group, 2) to apply, (y, x) px, to within a few px.
    pixel_size_angstrom: of the movie.
    tile_angstrom: about the side of a tile.
    band_angstrom: coarsest and finest detail; nothing beyond 0.94 of Nyquist of the binned frames is used.
    shells_max: shells of equal width in the band; fewer for little data, so that each shell's statistics are sound.
    """
    xp = namespace(seen.total)
    factor = binning_factor(pixel_size_angstrom, seen.frames.shape)
    offsets = np.round(shifts / factor).astype(np.int64)
    axes = [
        _tile_axis(size // factor, offsets[:, axis], tile_angstrom / (pixel_size_angstrom * factor))
        for axis, size in enumerate(seen.frames.shape)
    ]
    (rows, height), (columns, width) = axes
    origins = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    centres = factor * (origins + np.array([height, width]) / 2) - 0.5
    side = factor * np.array([height, width]) / np.array(seen.frames.shape)
    tile_terms = mean_terms(relative_places(centres, seen.frames.shape), side)
    basis, polynomials = orthonormal_basis(tile_terms, len(rows), len(columns))
    covered = (rows[-1] - rows[0] + height) * (columns[-1] - columns[0] + width)
    ky, kx = (to_host(k).astype(np.float64) for k in frequencies((height, width), np))
    low_k = factor * pixel_size_angstrom / band_angstrom[0]
    high_k = min(factor * pixel_size_angstrom / band_angstrom[1], _NYQUIST_MARGIN)
    radius = np.hypot(ky, kx)
    positions = np.flatnonzero((radius >= low_k) & (radius < high_k) & ~((kx == 0) & (ky < 0)))
    radius = radius.ravel()[positions]
    evidence = len(positions) * len(origins) * len(offsets) ** 2 / _EVIDENCE_PER_SHELL
    shell_count = max(_SHELLS_MIN, min(shells_max, int(evidence)))
    shells = np.minimum(((radius - low_k) * (shell_count / (high_k - low_k))).astype(np.int64), shell_count - 1)
    counts = np.bincount(shells, minlength=shell_count)
    positions = positions[np.argsort(shells, kind="stable")]
    wave_y, wave_x = np.divmod(positions, kx.shape[1])
    return TileLayout(
        factor=factor,
        shape=(height, width),
        origins=origins,
        basis=basis,
        polynomials=polynomials,
        overlap=len(origins) * height * width / covered,
        positions=xp.asarray(positions),
        waves=(xp.asarray(wave_y), xp.asarray(wave_x)),
        ky=xp.asarray(ky[wave_y, 0] / factor, dtype=xp.float32),
        kx=xp.asarray(kx[0, wave_x] / factor, dtype=xp.float32),
        axes=(ky[:, 0] / factor, kx[0] / factor),
        bounds=np.concatenate([[0], np.cumsum(counts)]),
        shell_frequencies=np.bincount(shells, radius, shell_count) / np.maximum(counts, 1) / factor,
    )


def cut_tiles(seen: Survey, shifts: Matrix, layout: TileLayout, background: Array) -> Tiles:
    """Transform the tiles of every frame once and keep the coefficients of the layout.

    Tiles follow the specimen by whole binned px: ones that stand still would pull the shifts towards none.

    Parameters
    ----------
    seen: the movie.
    shifts: (group, 2) to apply, (y, x) px.
    layout: what to keep.
    background: `(y, x)` float32 of the sum of all frames, see `background_of`.
    """
    xp = namespace(background)
    binned_background = bin_image(background, layout.factor)
    window = edge_taper(layout.shape, min(layout.shape) // _TAPER, xp)
    steps = np.round(shifts / layout.factor).astype(np.int64)
    parts = [layout.positions[first:last] for first, last in itertools.pairwise(layout.bounds.tolist())]
    shells = tuple(xp.zeros((len(steps), len(layout.origins), part.shape[0]), dtype=xp.complex64) for part in parts)
    for g, step in enumerate(steps):
        if seen.brightness[g] == 0:
            continue
        binned = seen.frames.binned(seen.group(g), layout.factor) - binned_background * float(seen.shares[g])
        cut = kernels.cut_tiles(binned, layout.origins - step, window)
        transforms = xp.reshape(rfft2(cut), (len(layout.origins), -1))
        for shell, part in zip(shells, parts, strict=True):
            shell[g, ...] = kernels.take_modes(transforms, part)
    return Tiles(layout, shells, steps * float(layout.factor))


def covariances(tiles: Tiles, shifts: Matrix, highest_k: float) -> Matrix:
    """Return the mean over the modes of each shell of Re(conj(G_t) G_u), G aligned by `shifts`: (shell, group, group).

    Parameters
    ----------
    shifts: (group, tile, 2) to apply, (y, x) px. highest_k: shells beyond are left at 0, cycles per px.
    """
    groups = len(tiles.offsets)
    sums = np.zeros((len(tiles.shells), groups, groups))
    for shell, _, aligned in _aligned(tiles, shifts, highest_k):
        sums[shell] += to_host(kernels.pair_products(aligned))
    modes = np.diff(tiles.layout.bounds) * len(tiles.layout.origins)
    return np.asarray(sums / np.maximum(modes, 1)[:, None, None])


def gradient(tiles: Tiles, shifts: Matrix, weights: Matrix, highest_k: float) -> Matrix:
    """Return the derivative of sum over modes and pairs of groups of A_tu Re(conj(G_t) G_u) by the shifts of every tile.

    Parameters
    ----------
    shifts: (group, tile, 2) to apply, (y, x) px. weights: A, (shell, group, group), zero diagonals.
    highest_k: shells beyond are left out, cycles per px.

    Returns
    -------
    (group, tile, 2) float64 host, (y, x).
    """
    layout = tiles.layout
    result = np.zeros(shifts.shape)
    on_device = namespace(layout.ky).asarray(weights, dtype=layout.ky.dtype)
    for shell, part, aligned in _aligned(tiles, shifts, highest_k):
        modes = slice(int(layout.bounds[shell]), int(layout.bounds[shell + 1]))
        slope = kernels.pair_gradient(aligned, on_device[shell, ...], layout.ky[modes], layout.kx[modes])
        result[:, part] += to_host(slope)
    return result


def _aligned(tiles: Tiles, shifts: Matrix, highest_k: float) -> Iterator[tuple[int, slice, Array]]:
    """Yield shell, tiles and coefficients (group, tile, mode) with the shifts applied, a piece at a time."""
    layout = tiles.layout
    xp = namespace(layout.ky)
    turns = shifts - tiles.offsets[:, None]
    tables = [kernels.phase_table(turns[..., axis], layout.axes[axis], xp) for axis in (0, 1)]
    for shell, values in enumerate(tiles.shells):
        groups, tile_count, modes = values.shape
        if layout.shell_frequencies[shell] > highest_k:
            return
        if not modes:
            continue
        wave = tuple(axis[int(layout.bounds[shell]) : int(layout.bounds[shell + 1])] for axis in layout.waves)
        step = max(1, _CHUNK // (groups * modes))
        for start in range(0, tile_count, step):
            part = slice(start, min(start + step, tile_count))
            phases = (tables[0][:, part, :], tables[1][:, part, :])
            yield shell, part, kernels.align(values[:, part, :], phases, (wave[0], wave[1]))


def _tile_axis(size: int, offsets: np.ndarray[Any, Any], tile: float) -> tuple[np.ndarray[Any, Any], int]:
    """Return where tiles begin along an axis, in binned px of a frame of shift 0, and their side.

    They lie in the area that all shifted frames have in common, as many as come nearest to the wanted side, and smaller by
    up to half where a polynomial of third order needs more.
    """
    low, high = max(int(offsets.max()), 0), size + min(int(offsets.min()), 0)
    count = max(1, round((high - low) / tile), min(_TILES_MIN, int(2 * (high - low) / tile)))
    side = friendly_size(-(-(high - low) // count), at_most=count == 1)
    side = min(side, friendly_size(high - low, at_most=True))
    return np.round(np.linspace(low, high - side, count)).astype(np.int64), side
