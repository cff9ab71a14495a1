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
from frazil.primitives.symmetry import Symmetry, symmetry
from frazil.primitives.volumes import PADDING, volume_to_cube

VIEWS = 48  # of a volume; 29 degrees from one to the next, half of which blurs nothing that a picker sees
_CANDIDATES = (2000, 12)  # directions among which views are placed: at least so many, and so many for each view
_ROUNDS = 30


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


def even_views(count: int, group: Symmetry) -> npt.NDArray[np.float64]:
    """Return directions that show a particle of a symmetry from all sides, spaced as evenly as `count` over the whole sphere.

    Mates under the symmetry show the same and are left out: of 48 directions two remain for an octahedron. Each view is moved
    to the middle of the directions that are closest to it or a mate of it (Lloyd's algorithm), from a start in which it is far
    from all before it.

    Returns
    -------
    (view, 3) unit vectors, max(1, round(count / order)) of them.
    """
    wanted = max(1, round(count / group.order))
    if group.order == 1:
        return sphere_points(wanted)
    directions = group.views(max(_CANDIDATES[0], _CANDIDATES[1] * wanted) * group.order, np.eye(3))
    views, closeness = np.zeros((0, 3)), np.zeros(len(directions))
    while len(views) < wanted:
        views = np.concatenate([views, directions[[closeness.argmin()]]])
        closest = _cosines(directions, views[-1:], group).max(axis=1)
        closeness = closest if len(views) == 1 else np.maximum(closeness, closest)
    for _ in range(_ROUNDS):
        mates, nearest = np.divmod(_cosines(directions, views, group).argmax(axis=1), wanted)
        moved = np.einsum("dij,dj->di", group.operators[mates], directions)  # to beside their view
        sums = np.stack([moved[nearest == view].sum(axis=0) for view in range(wanted)])
        views = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return views


def _cosines(directions: npt.NDArray[np.float64], views: npt.NDArray[np.float64], group: Symmetry) -> npt.NDArray[np.float64]:
    """Return the cosines between every operator's image of directions and views, (direction, operator x view)."""
    mates = np.einsum("gij,vi->gvj", group.operators, views).reshape(-1, 3)
    cosines: npt.NDArray[np.float64] = directions @ mates.T
    return cosines


def project(
    volume: npt.NDArray[Any], pixel_size_angstrom: float, views: int = VIEWS, group: Symmetry | None = None
) -> Templates:
    """Project a volume along directions spread evenly over the sphere.

    Parameters
    ----------
    volume: `(z, y, x)`, a cube of even side, protein white.
    pixel_size_angstrom: of the volume.
    views: how many, as `even_views` counts them.
    group: the volume's symmetry; None means none.

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
    directions = even_views(views, group or symmetry("C1"))
    matrices = directions_to_matrices(directions, np.zeros(1)).astype(np.float32)
    slices = np.zeros((len(directions), side, side // 2 + 1), dtype=np.complex64)
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
