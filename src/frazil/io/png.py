"""PNG pictures: thumbnails, spectra, class averages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from frazil.io.atomic import atomic_path


def write_png(path: Path | str, pixels: npt.NDArray[np.uint8]) -> None:
    """Write a grey `(y, x)` or colour `(y, x, 3)` picture of uint8 atomically; row 0 is drawn at the top.

    Raises ValueError for another shape or dtype, DiskFullError when there is no room.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"a PNG picture is uint8 (y, x) or (y, x, 3), not {pixels.dtype} {pixels.shape}")
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG", optimize=False)
