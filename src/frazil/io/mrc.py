"""MRC images, stacks and volumes of our own making (MRC2014): written atomically, byte for byte repeatable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt

from frazil.io.atomic import atomic_path
from frazil.io.movies import mrc
from frazil.model.errors import InputError


def write_mrc(
    path: Path | str,
    array: npt.NDArray[Any],
    pixel_size_angstrom: float,
    *,
    float16: bool = False,
    image_stack: bool = False,
) -> None:
    """Write an image `(y, x)`, a volume `(z, y, x)` or, with `image_stack`, a stack or movie `(image, y, x)`.

    Parameters
    ----------
    path : where; an existing file is replaced.
    array : int8, int16, uint16, float16 or float32; uint8 becomes int8 where it fits, else uint16; other floats float32.
    pixel_size_angstrom : written as cell size / sampling, all axes alike.
    float16 : store as mode 12: half the bytes, relative error 5e-4.
    image_stack : mark a 3-D array as images (space group 0), not as a volume (space group 1).

    Raises
    ------
    DiskFullError : no room; nothing is left behind.
    ValueError : not 2 or 3 axes, or a dtype that MRC has not.
    """
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"an MRC file holds 2 or 3 axes, none empty; the array's shape is {array.shape}")
    with atomic_path(path) as temporary, mrcfile.new(temporary) as file:
        file.set_data(_storable(array, float16))
        if array.ndim == 3:
            file.set_image_stack() if image_stack else file.set_volume()
        file.voxel_size = pixel_size_angstrom
        file.header.label[0] = b"Frazil"  # in place of a time stamp: equal data, equal bytes


def read_mrc(path: Path | str) -> tuple[npt.NDArray[Any], float | None]:
    """Read an image `(y, x)`, stack or volume and its pixel size in Å (None where the header has no possible one).

    A stack of a single image is read as an image: the format does not tell them apart.

    Raises InputError when the file is not a whole MRC file.
    """
    source = Path(path)
    header = mrc.read_header(source)
    size = source.stat().st_size
    if size < header.file_bytes:
        raise InputError("MRC_TRUNCATED", f"{source.name} has {size:,} of {header.file_bytes:,} bytes.")
    info = header.info
    images = np.empty((info.frame_count, info.height_px, info.width_px), info.dtype)
    for index, image in enumerate(mrc.iterate_frames(source, info)):
        images[index] = image
    three_axes = header.space_group == 1 or info.frame_count > 1
    return images if three_axes else images[0], info.pixel_size_angstrom


def _storable(array: npt.NDArray[Any], float16: bool) -> npt.NDArray[Any]:
    """Return the array in a dtype that MRC has. Raises ValueError for one that has no counterpart."""
    if float16:
        return array.astype(np.float16)
    if array.dtype == np.uint8:
        return array.view(np.int8) if int(array.max()) < 128 else array.astype(np.uint16)
    if array.dtype == np.float64:
        return array.astype(np.float32)
    if array.dtype.name not in ("int8", "int16", "uint16", "float16", "float32"):
        raise ValueError(f"MRC has no mode for {array.dtype}")
    return array
