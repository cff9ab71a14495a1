"""Where a micrograph shows something much larger than a particle: ice, carbon, a crack. On the host, of a reduced image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from frazil.primitives.masks import Mask

Image = npt.NDArray[np.floating[Any]]

_SMOOTHING_DIAMETERS = 0.12
_DARK, _BRIGHT = 5.0, 8.0  # deviations of the smoothed background
_RADIUS_DIAMETERS = 0.7  # what holds a disc of this radius is no particle
_MARGIN_DIAMETERS = 0.5
_LOW, _HIGH = 0.1, 0.4  # quantiles that the background is judged by, counted from the bright side
_NORMAL_LOW, _NORMAL_HIGH = -1.2816, -0.2533  # where they lie in a normal distribution
_PLANE_ROUNDS, _PLANE_DEVIATIONS = 4, 2.5


def flattened(image: Image) -> Image:
    """Subtract the plane of the background from an inverted image `(y, x)`, in which particles are bright."""
    y, x = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in image.shape), indexing="ij")
    columns = np.stack([np.ones_like(x), y, x])
    good = np.ones(image.shape, dtype=np.bool_)
    flat = image
    for _ in range(_PLANE_ROUNDS):
        used = columns[:, good]
        normal = np.einsum("in,jn->ij", used, used)
        plane = np.linalg.solve(normal + 1e-9 * np.eye(3), np.einsum("in,n->i", used, image[good].astype(np.float64)))
        flat = image - np.einsum("i,iyx->yx", plane, columns)
        level, spread = background_level(flat)
        good = np.abs(flat - level) <= _PLANE_DEVIATIONS * spread
        if np.count_nonzero(good) < 16:
            break
    return np.asarray(flat - level, dtype=image.dtype)


def background_level(values: Image) -> tuple[float, float]:
    """Return level and standard deviation of the background of an inverted image, whatever is brighter than it."""
    low, high = np.quantile(values, [_LOW, _HIGH])
    spread = float(high - low) / (_NORMAL_HIGH - _NORMAL_LOW)
    return float(high) - _NORMAL_HIGH * spread, spread


def contamination(flat: Image, diameter_px: float) -> Mask:
    """Return a mask `(y, x)` of what is much larger than a particle and stands out, with a margin around it.

    Parameters
    ----------
    flat: inverted image, flattened.
    diameter_px: of a particle, in its pixels.
    """
    smooth = scipy.ndimage.gaussian_filter(flat, _SMOOTHING_DIAMETERS * diameter_px, mode="reflect")
    level, spread = background_level(smooth)
    nothing = np.zeros(flat.shape, dtype=np.bool_)
    if spread <= 0.0:
        return nothing
    outstanding = (smooth > level + _DARK * spread) | (smooth < level - _BRIGHT * spread)
    radius = _RADIUS_DIAMETERS * diameter_px
    if np.count_nonzero(outstanding) < radius * radius:
        return nothing
    padded = np.pad(outstanding, 1, mode="edge")
    core = scipy.ndimage.distance_transform_edt(padded)[1:-1, 1:-1] >= radius
    if not core.any():
        return nothing
    return np.asarray(scipy.ndimage.distance_transform_edt(~core) <= radius + _MARGIN_DIAMETERS * diameter_px)
