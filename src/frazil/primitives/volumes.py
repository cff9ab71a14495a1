"""Volumes `(z, y, x)`, cubes of even side, and their transforms about the centre: padding, cropping, filters, shells.

A *half transform* of a volume is that of `rfftn` in FFT order, `(z, y, x // 2 + 1)`. A *half cube* is centred in z and y and
holds x >= 0 (kernels/slices.py). Transforms are about voxel N/2 of each axis.
"""

from __future__ import annotations

from typing import Any

from frazil.array import Array, fft, namespace
from frazil.kernels.shells import shell_sums
from frazil.primitives.fourier import hermitian_weights, raised_cosine

PADDING = 2
_AXES = (-3, -2, -1)


def reach_of(radius: float) -> int:
    """Return the reach, in cells, of a half cube that can be read and written trilinearly up to a radius in Fourier pixels."""
    return int(PADDING * radius) + 2


def half_transform(volume: Array) -> Array:
    """Transform a real volume about its centre to a half transform."""
    xp = namespace(volume)
    return fft(xp).rfftn(_swap(xp, volume), axes=_AXES)


def from_half_transform(transform: Array, size: int) -> Array:
    """Transform a half transform back to a real volume of the given side."""
    xp = namespace(transform)
    return _swap(xp, fft(xp).irfftn(transform, s=(size, size, size), axes=_AXES))


def volume_to_cube(volume: Array, radius: float) -> Array:
    """Return the padded half cube whose slices are the transforms of the volume's projections, up to a radius.

    Its reach is that of `reach_of(radius)`, so that no slice up to the radius reads beyond it; past Nyquist it is zero.

    The volume is divided by the square of the sinc that trilinear reading multiplies it with: slices are then right to 1 %
    for volumes that fill up to two thirds of the box.

    Parameters
    ----------
    volume: (size, size, size) real. radius: Fourier pixels; below size / 2.
    """
    xp = namespace(volume)
    size = volume.shape[0]
    wide, margin = PADDING * size, (PADDING - 1) * size // 2
    padded = xp.zeros((wide, wide, wide), dtype=volume.dtype)
    inner = slice(margin, margin + size)
    padded[inner, inner, inner] = volume / _trilinear_envelope(size, xp, volume.dtype)
    transform = half_transform(padded)
    reach, known = reach_of(radius), min(reach_of(radius), wide // 2 - 1)
    cube = xp.zeros((2 * reach + 1, 2 * reach + 1, reach + 1), dtype=transform.dtype)
    inner = slice(reach - known, reach + known + 1)
    cube[inner, inner, : known + 1] = _centred_rows(xp, transform[:, :, : known + 1], known)
    return cube


def cube_to_volume(cube: Array, size: int) -> Array:
    """Return the volume of a padded half cube into which slices have been inserted; beyond the cube's reach it is zero.

    What trilinear insertion has spread in Fourier space is undone: the volume is divided by the square of a sinc.
    """
    xp = namespace(cube)
    wide, margin = PADDING * size, (PADDING - 1) * size // 2
    reach = min(cube.shape[2] - 1, wide // 2 - 1)
    start = cube.shape[2] - 1 - reach
    inside = cube[start : start + 2 * reach + 1, start : start + 2 * reach + 1, : reach + 1]
    transform = xp.zeros((wide, wide, wide // 2 + 1), dtype=cube.dtype)
    for target_z, source_z in _wrapped_rows(wide, reach):
        for target_y, source_y in _wrapped_rows(wide, reach):
            transform[target_z, target_y, : reach + 1] = inside[source_z, source_y, :]
    padded = from_half_transform(transform, wide)
    inner = slice(margin, margin + size)
    return padded[inner, inner, inner] / _trilinear_envelope(size, xp, padded.dtype)


def cube_radius(cube: Array) -> Array:
    """Return |k| of every cell of a half cube in Fourier pixels (float32)."""
    xp = namespace(cube)
    reach = cube.shape[2] - 1
    k = xp.astype(xp.arange(-reach, reach + 1), xp.float32) / PADDING
    return xp.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, reach:] ** 2)


def shell_indices(size: int, xp: Any) -> Array:
    """Return the shell, round |k|, of every coefficient of a volume's half transform (integer)."""
    return xp.astype(xp.round(transform_radius(size, xp)), xp.int64)


def transform_radius(size: int, xp: Any) -> Array:
    """Return |k| in Fourier pixels of every coefficient of a half transform (float32)."""
    k = xp.arange(size)
    k = xp.astype(xp.where(k < (size + 1) // 2, k, k - size), xp.float32)
    columns = xp.astype(xp.arange(size // 2 + 1), xp.float32)
    return xp.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + columns[None, None, :] ** 2)


def shell_totals(values: Array, size: int) -> Array:
    """Sum a real function of a half transform over shells 0 to size / 2, mates counted: (size // 2 + 1,) float64."""
    xp = namespace(values)
    weighted = values * hermitian_weights(size, xp, values.dtype)
    return shell_sums(weighted, shell_indices(size, xp), size // 2 + 1)


def filter_volume(volume: Array, shell_factors: Array) -> Array:
    """Multiply a volume's transform by a factor per shell, linear between shells and 0 beyond the last.

    shell_factors: (shell,) real, from shell 0.
    """
    xp = namespace(volume)
    size = volume.shape[0]
    radius = transform_radius(size, xp)
    last = shell_factors.shape[0] - 1
    low = xp.clip(xp.floor(radius), 0, last)
    part = xp.astype(radius - low, volume.dtype)
    index = xp.astype(low, xp.int64)
    padded = xp.concat([xp.astype(shell_factors, volume.dtype), xp.zeros(1, dtype=volume.dtype)])
    flat = xp.reshape(index, (-1,))
    lower = xp.reshape(xp.take(padded, flat), index.shape)
    upper = xp.reshape(xp.take(padded, flat + 1), index.shape)
    factor = xp.where(radius > last + 1, xp.zeros_like(lower), lower * (1 - part) + upper * part)
    return from_half_transform(half_transform(volume) * factor, size)


def low_pass(volume: Array, radius: float, width: float = 1.0) -> Array:
    """Remove detail beyond a radius in Fourier pixels, along half a cosine that ends at the radius; sharp for width 0."""
    size = volume.shape[0]
    factor = raised_cosine(transform_radius(size, namespace(volume)), radius - width, radius)
    return from_half_transform(half_transform(volume) * factor, size)


def resample(volume: Array, size: int) -> Array:
    """Return a volume over the same extent with another even number of voxels: its transform cropped or filled with zeros.

    Densities keep their scale. Nyquist lines of the smaller side are left out.
    """
    xp = namespace(volume)
    old = volume.shape[0]
    if old == size:
        return volume
    reach = min(old, size) // 2 - 1
    source = half_transform(volume)
    transform = xp.zeros((size, size, size // 2 + 1), dtype=source.dtype)
    rows = list(zip(_wrapped_rows(size, reach), _wrapped_rows(old, reach), strict=True))
    for (target_z, _), (source_z, _) in rows:
        for (target_y, _), (source_y, _) in rows:
            transform[target_z, target_y, : reach + 1] = source[source_z, source_y, : reach + 1]
    return from_half_transform(transform, size) * (size / old) ** 3


def radius_from_centre(size: int, xp: Any) -> Array:
    """Return the distance of every voxel from voxel size / 2, in voxels (float32)."""
    offset = xp.astype(xp.arange(size) - size // 2, xp.float32)
    return xp.sqrt(offset[:, None, None] ** 2 + offset[None, :, None] ** 2 + offset[None, None, :] ** 2)


def soft_sphere(size: int, radius_px: float, edge_px: float, xp: Any) -> Array:
    """Return a ball, 1 up to the radius minus half the edge and falling to 0 along half a cosine over the edge (float32)."""
    return raised_cosine(radius_from_centre(size, xp), radius_px - edge_px / 2, radius_px + edge_px / 2)


def _swap(xp: Any, volume: Array) -> Array:
    """Swap octants: for even sides the shift that centres is its own inverse."""
    half = volume.shape[-1] // 2
    return xp.roll(volume, (half, half, half), axis=_AXES)


def _trilinear_envelope(size: int, xp: Any, dtype: Any) -> Array:
    """Return what linear interpolation on the padded grid multiplies a volume with: sinc^2 along each axis."""
    x = xp.astype(xp.arange(size) - size // 2, dtype) * (xp.pi / (PADDING * size))
    safe = xp.where(x == 0, xp.ones_like(x), x)
    sinc = xp.where(x == 0, xp.ones_like(x), xp.sin(safe) / safe) ** 2
    return sinc[:, None, None] * sinc[None, :, None] * sinc[None, None, :]


def _wrapped_rows(size: int, reach: int) -> list[tuple[slice, slice]]:
    """Return pairs (rows in FFT order, rows in centred order) of the frequencies -reach ... reach; the same order each time."""
    return [(slice(0, reach + 1), slice(reach, 2 * reach + 1)), (slice(size - reach, size), slice(0, reach))]


def _centred_rows(xp: Any, transform: Array, reach: int) -> Array:
    """Return z and y of an FFT-ordered transform centred and cropped to -reach ... reach."""
    size = transform.shape[0]
    rows = xp.concat([transform[size - reach :, :, :], transform[: reach + 1, :, :]], axis=0)
    return xp.concat([rows[:, size - reach :, :], rows[:, : reach + 1, :]], axis=1)
