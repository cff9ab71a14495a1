"""The picture of a micrograph that a person sees first."""

from __future__ import annotations

import numpy as np

from frazil.array import Array, namespace, to_host
from frazil.primitives.filters import lowpass
from frazil.primitives.fourier import fourier_crop

_CLIPPED_PERCENTILES = (0.5, 99.5)


def thumbnail(
    micrograph: Array, pixel_size_angstrom: float, max_px: int = 1024, resolution_angstrom: float = 20.0
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Make a small 8-bit picture: Fourier-cropped, low-passed, grey levels between the 0.5 and 99.5 percentiles.

    Parameters
    ----------
    micrograph: `(y, x)` real floating; values that are no numbers are shown as the mean.
    pixel_size_angstrom: of the micrograph.
    max_px: longest side of the picture; a smaller micrograph keeps its size.
    resolution_angstrom: detail that is kept, as far as the picture's pixels can show it.

    Returns
    -------
    `(y, x)` uint8 on the host, rows as in the micrograph.
    """
    xp = namespace(micrograph)
    finite = xp.isfinite(micrograph)
    zero = xp.asarray(0.0, dtype=micrograph.dtype)
    count = max(int(xp.sum(xp.astype(finite, xp.int64))), 1)
    mean = float(xp.sum(xp.where(finite, micrograph, zero))) / count
    image = xp.where(finite, micrograph - mean, zero)
    height, width = image.shape
    scale = min(1.0, max_px / max(height, width))
    if scale < 1:
        image = fourier_crop(image, (_scaled(height, scale), _scaled(width, scale)))
    resolution = max(resolution_angstrom, 2 * pixel_size_angstrom / scale)
    return _to_bytes(to_host(lowpass(image, pixel_size_angstrom / scale, resolution)))


def _scaled(size: int, scale: float) -> int:
    """Return a side of the picture, even."""
    return max(2, 2 * int(size * scale / 2 + 1e-6))


def _to_bytes(image: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    low, high = np.percentile(image, _CLIPPED_PERCENTILES)
    if not high > low:
        return np.full(image.shape, 128, np.uint8)
    grey: np.ndarray[tuple[int, int], np.dtype[np.uint8]] = np.clip(
        np.round((image - low) * (255.0 / (high - low))), 0, 255
    ).astype(np.uint8)
    return grey
