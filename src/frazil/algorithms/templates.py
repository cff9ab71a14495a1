"""Templates for picking: images of the particle without a CTF, from class averages or projected from a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.kernels.slices import take_slices
from frazil.model.errors import InputError
from frazil.primitives.fourier import frequencies, irfft2, raised_cosine, rfft2
from frazil.primitives.rotations import directions_to_matrices, sphere_points
from frazil.primitives.volumes import PADDING, volume_to_cube

VIEWS = 48  # of a volume; 29 degrees from one to the next, half of which blurs nothing that a picker sees


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """Images (template, y, x) float32, protein white, each centred at pixel N // 2, and their pixel size."""

    images: npt.NDArray[np.float32]
    pixel_size_angstrom: float

    def __post_init__(self) -> None:
        shape = self.images.shape
        if len(shape) != 3 or 0 in shape or shape[1] != shape[2]:
            raise InputError("TEMPLATES_SHAPE", f"Templates are square images (template, y, x), not an array of shape {shape}.")
        if not self.pixel_size_angstrom > 0.0:
            raise InputError("TEMPLATES_PIXEL_SIZE", "The pixel size of the templates is not known: write it to their header.")
        if not np.isfinite(self.images).all() or (np.ptp(self.images, axis=(1, 2)) == 0.0).all():
            raise InputError("TEMPLATES_BLANK", "The templates hold no images: every pixel is alike, or some are no numbers.")


def project(volume: npt.NDArray[Any], pixel_size_angstrom: float, views: int = VIEWS) -> Templates:
    """Project a volume along directions spread evenly over the sphere.

    Parameters
    ----------
    volume: `(z, y, x)`, a cube of even side, protein white.
    pixel_size_angstrom: of the volume.
    views: how many.

    Raises
    ------
    InputError: it is no cube of even side.
    """
    side = volume.shape[0]
    if volume.shape != (side, side, side) or side % 2:
        raise InputError("TEMPLATES_SHAPE", f"A volume for templates is a cube of even side, not one of shape {volume.shape}.")
    radius = side / 2 - 2
    cube = volume_to_cube(np.asarray(volume, dtype=np.float32), radius)
    ky, kx = (np.broadcast_to(k * side, (side, side // 2 + 1)) for k in frequencies((side, side), np))
    inside = np.hypot(ky, kx) <= radius
    matrices = directions_to_matrices(sphere_points(views), np.zeros(1)).astype(np.float32)
    slices = np.zeros((views, side, side // 2 + 1), dtype=np.complex64)
    x, y = (np.ascontiguousarray(k[inside], dtype=np.float32) for k in (kx, ky))
    slices[:, inside] = take_slices(cube, x, y, matrices, PADDING)
    images = np.fft.fftshift(irfft2(slices, (side, side)), axes=(1, 2))
    return Templates(np.asarray(images, dtype=np.float32), pixel_size_angstrom)


def lowpassed(templates: Templates, resolution_angstrom: float) -> npt.NDArray[np.float32]:
    """Return the images without detail finer than a resolution."""
    side = templates.images.shape[1]
    ky, kx = frequencies((side, side), np)
    cutoff = templates.pixel_size_angstrom / resolution_angstrom
    keep = raised_cosine(np.hypot(ky, kx), 0.9 * cutoff, 1.1 * cutoff)
    return np.asarray(irfft2(rfft2(templates.images) * keep, (side, side)), dtype=np.float32)
