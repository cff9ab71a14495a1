"""The volume that a refinement starts from: any map on the particles' own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from frazil.io.mrc import read_mrc
from frazil.model.errors import InputError
from frazil.primitives.volumes import low_pass


def read_start_volume(
    path: Path, box_size_px: int, pixel_size_angstrom: float, resolution_angstrom: float
) -> npt.NDArray[np.float32]:
    """Read a map and bring it onto the particles' box, see `fit_to_box`.

    Raises InputError with one sentence for a file that is none, is no map, or does not say its pixel size.
    """
    if not path.is_file():
        raise InputError(
            "START_VOLUME_MISSING", f"There is no initial volume at {path}: check the path, or make one by abinitio."
        )
    volume, pixel_size = read_mrc(path)
    if volume.ndim != 3:
        raise InputError("START_VOLUME_INVALID", f"{path.name} is no volume: it has {volume.ndim} axes.")
    if pixel_size is None:
        raise InputError("START_VOLUME_INVALID", f"{path.name} does not say its pixel size: write it into the header.")
    return fit_to_box(volume.astype(np.float32), pixel_size, box_size_px, pixel_size_angstrom, resolution_angstrom)


def fit_to_box(
    volume: npt.NDArray[np.float32],
    from_angstrom: float,
    box_size_px: int,
    to_angstrom: float,
    resolution_angstrom: float,
) -> npt.NDArray[np.float32]:
    """Return a map in another box with other voxels, about the same centre; beyond the map it is zero.

    Detail finer than the resolution is removed first: what is left is smooth enough for cubic splines.

    Parameters
    ----------
    volume : (z, y, x), density positive; its centre is voxel size / 2 of each axis.
    from_angstrom, to_angstrom : voxel sizes.
    box_size_px : side of the result.
    """
    size = max(volume.shape) + max(volume.shape) % 2
    cube = np.zeros((size, size, size), dtype=np.float32)
    corner = [size // 2 - side // 2 for side in volume.shape]
    cube[tuple(slice(first, first + side) for first, side in zip(corner, volume.shape, strict=True))] = volume
    radius = size * from_angstrom / resolution_angstrom
    smooth = low_pass(cube, radius) if radius < size / 2 else cube
    step = to_angstrom / from_angstrom
    offset = size // 2 - step * (box_size_px // 2)
    shape = (box_size_px,) * 3
    fitted = ndimage.affine_transform(smooth, np.full(3, step), offset=offset, output_shape=shape, order=3)
    return np.asarray(fitted, dtype=np.float32)
