"""Between coefficients, working images and padded grids; all transforms about the image centre, X = DFT / box."""

from __future__ import annotations

from typing import Any

from frazil.algorithms.class2d.grid import Grid
from frazil.array import Array, fft, namespace


def phase(xp: Any, angle: Array) -> Array:
    """Return exp(i angle) in the complex type that matches the angle's."""
    complex_type = xp.complex128 if angle.dtype == xp.float64 else xp.complex64
    return xp.astype(xp.cos(angle), complex_type) + 1j * xp.astype(xp.sin(angle), complex_type)


def shift_phases(grid: Grid, shifts: Array, count: int) -> Array:
    """Return the phases that move content by minus each shift, for the first `count` coefficients.

    shifts: (row, 2) real, (x, y) in Å. Returns (row, count) complex: exp(+2 pi i k.t / box).
    """
    xp = namespace(shifts)
    turn = 2 * xp.pi / grid.box_angstrom
    kx = xp.astype(grid.frequency_x[:count], shifts.dtype)
    ky = xp.astype(grid.frequency_y[:count], shifts.dtype)
    return phase(xp, turn * (shifts[:, :1] * kx[None, :] + shifts[:, 1:] * ky[None, :]))


def working_images(grid: Grid, coefficients: Array) -> Array:
    """Return the images of coefficient rows.

    coefficients: (row, count) complex, the first `count` coefficients, count <= kept; the others are taken as zero.
    Returns (row, size, size) real, in the units of the particle images.
    """
    xp = namespace(coefficients)
    rows, count = coefficients.shape
    weighted = coefficients * grid.mate_weight[:count]
    filled = xp.concat([weighted, xp.zeros((rows, grid.kept + 1 - count), dtype=coefficients.dtype)], axis=1)
    spectrum = xp.reshape(xp.take(filled, grid.working_index, axis=1), (rows, grid.size, grid.size // 2 + 1))
    images = fft(xp).irfftn(spectrum, s=(grid.size, grid.size), axes=(-2, -1))
    return _centred(xp, images, grid.size) * (grid.size**2 / grid.box_size_px)


def coefficients_of(grid: Grid, images: Array, count: int) -> Array:
    """Return the first `count` coefficients of working images, (image, size, size) to (image, count) complex."""
    xp = namespace(images)
    spectrum = fft(xp).rfftn(_centred(xp, images, grid.size), axes=(-2, -1))
    flat = xp.reshape(spectrum, (images.shape[0], -1))
    return xp.take(flat, working_positions(grid, count), axis=1) * (grid.box_size_px / grid.size**2)


def working_positions(grid: Grid, count: int) -> Array:
    """Return the flat position of each of the first `count` coefficients in the rfft of the working box."""
    xp = namespace(grid.frequency_x)
    column = xp.astype(grid.frequency_x[:count], xp.int64)
    row = xp.astype(grid.frequency_y[:count], xp.int64)
    row = xp.where(row < 0, row + grid.size, row)
    return row * (grid.size // 2 + 1) + column


def padded_to_images(grid: Grid, grids: Array) -> Array:
    """Return the images of Hermitian padded grids, (grid, padded, padded) complex to (grid, size, size) real."""
    xp = namespace(grids)
    width, margin = grid.padded_size, (grid.padded_size - grid.size) // 2
    spectrum = xp.roll(grids, (-(width // 2), -(width // 2)), axis=(-2, -1))[:, :, : width // 2 + 1]
    images = _centred(xp, fft(xp).irfftn(spectrum, s=(width, width), axes=(-2, -1)), width)
    inner = images[:, margin : margin + grid.size, margin : margin + grid.size]
    return inner * (grid.size**2 / grid.box_size_px)


def images_to_padded(grid: Grid, images: Array) -> Array:
    """Return the transforms of images on padded grids, (image, size, size) real to (image, padded, padded) complex."""
    xp = namespace(images)
    width, margin = grid.padded_size, (grid.padded_size - grid.size) // 2
    complex_type = xp.complex128 if images.dtype == xp.float64 else xp.complex64
    padded = xp.zeros((images.shape[0], width, width), dtype=complex_type)
    padded[:, margin : margin + grid.size, margin : margin + grid.size] = xp.astype(images, complex_type)
    spectrum = fft(xp).fftn(_centred(xp, padded, width), axes=(-2, -1))
    return _centred(xp, spectrum, width) * (grid.box_size_px / grid.size**2)


def full_images(grid: Grid, images: Array) -> Array:
    """Return working images resampled to the particle box, (image, size, size) to (image, box, box)."""
    xp = namespace(images)
    box, size = grid.box_size_px, grid.size
    if box == size:
        return images
    half, columns = size // 2 - 1, size // 2
    spectrum = fft(xp).rfftn(_centred(xp, images, size), axes=(-2, -1))
    whole = xp.zeros((images.shape[0], box, box // 2 + 1), dtype=spectrum.dtype)
    whole[:, : half + 1, :columns] = spectrum[:, : half + 1, :columns]
    whole[:, box - half :, :columns] = spectrum[:, size - half :, :columns]
    return _centred(xp, fft(xp).irfftn(whole, s=(box, box), axes=(-2, -1)), box) * (box / size) ** 2


def _centred(xp: Any, images: Array, width: int) -> Array:
    """Swap quadrants: for even widths the shift that centres is its own inverse."""
    return xp.roll(images, (width // 2, width // 2), axis=(-2, -1))
