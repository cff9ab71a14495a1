"""Movies and gain references as bytes: TIFF with its rows from the top (reversed), MRC as it is."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from frazil.io.mrc import write_mrc
from frazil.simulator.camera import Camera


def encode_tiff(frames: npt.NDArray[np.uint8]) -> bytes:
    """Return a TIFF-LZW movie of frames `(frame, y, x)` in MRC row order; each page's first row is the top one."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        for frame in frames:
            tiff.write(
                np.ascontiguousarray(frame[::-1]),
                compression="lzw",
                rowsperstrip=64,
                photometric="minisblack",
                contiguous=False,
                metadata=None,
                software="Frazil simulator",
            )
    return buffer.getvalue()


def encode_mrc(images: npt.NDArray[Any], pixel_size_angstrom: float) -> bytes:
    """Return an MRC image `(y, x)` or movie `(frame, y, x)`; counts become int8 where they fit, else uint16."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "movie.mrc"
        write_mrc(path, images, pixel_size_angstrom, image_stack=True)
        return path.read_bytes()


def encode_gain_tiff(camera: Camera) -> bytes:
    """Return the gain reference as a float32 TIFF, rows reversed as in the TIFF movies."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ascontiguousarray(camera.gain[::-1]), photometric="minisblack", metadata=None)
    return buffer.getvalue()


def defect_text(camera: Camera) -> str:
    """Return the defect file: a box `x y width height` per line, 0-based, MRC row order."""
    return "".join(f"{x} {y} {width} {height}\n" for x, y, width, height in camera.defect_boxes)
