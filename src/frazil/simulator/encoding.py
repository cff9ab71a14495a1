"""Movies and gain references as bytes: TIFF with its rows from the top (reversed), MRC as it is.

With 4-bit pixels, as a K2 or K3 is recorded in super-resolution; EER has a module of its own (`simulator.eer`).
"""

from __future__ import annotations

import io
import struct
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


def encode_tiff_4bit(frames: npt.NDArray[np.uint8]) -> bytes:
    """Return a TIFF-LZW movie as SerialEM packs it: two pixels to a byte, and nothing but its size tells so.

    Parameters
    ----------
    frames : `(frame, y, x)`, 0 to 15, of the size of a K2's or K3's super-resolution frames.
    """
    return encode_tiff(pack_nibbles(frames))


def encode_mrc_4bit(frames: npt.NDArray[np.uint8], pixel_size_angstrom: float) -> bytes:
    """Return an MRC movie of mode 101 of frames `(frame, y, x)`, 0 to 15."""
    header = bytearray(encode_mrc(np.zeros((2, 1, 1), np.int8), pixel_size_angstrom)[:1024])
    count, height, width = frames.shape
    struct.pack_into("<4i", header, 0, width, height, count, 101)
    struct.pack_into("<3i", header, 28, width, height, count)
    struct.pack_into("<3f", header, 40, *(pixel_size_angstrom * side for side in (width, height, count)))
    return bytes(header) + pack_nibbles(frames).tobytes()


def pack_nibbles(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pack pixels `(..., y, x)` of 0 to 15, the left one of two into the low half of a byte. Raises ValueError above 15."""
    if frames.max() > 15:
        raise ValueError(f"4-bit pixels hold at most 15, not {frames.max()}")
    odd = [(0, 0)] * (frames.ndim - 1) + [(0, frames.shape[-1] % 2)]
    padded = np.pad(frames, odd)
    return np.ascontiguousarray(padded[..., ::2] | padded[..., 1::2] << 4)


def encode_mrc(images: npt.NDArray[Any], pixel_size_angstrom: float) -> bytes:
    """Return an MRC image `(y, x)` or movie `(frame, y, x)`; counts become int8 where they fit, else uint16."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "movie.mrc"
        write_mrc(path, images, pixel_size_angstrom, image_stack=True)
        return path.read_bytes()


def encode_gain_tiff(camera: Camera, *, flip: bool = True) -> bytes:
    """Return the gain reference as a float32 TIFF, rows reversed as in the TIFF movies unless told not to `flip` (EER)."""
    buffer = io.BytesIO()
    gain = np.ascontiguousarray(camera.gain[::-1] if flip else camera.gain)
    tifffile.imwrite(buffer, gain, photometric="minisblack", metadata=None)
    return buffer.getvalue()


def defect_text(camera: Camera) -> str:
    """Return the defect file: a box `x y width height` per line, 0-based, MRC row order."""
    return "".join(f"{x} {y} {width} {height}\n" for x, y, width, height in camera.defect_boxes)
