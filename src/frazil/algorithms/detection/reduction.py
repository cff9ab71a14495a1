"""The reduced micrograph that pickers search: inverted, flat, in units of its noise, with what is contaminated masked out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from frazil.algorithms.contamination import background_level, contamination, flattened
from frazil.array import Array, namespace, to_device, to_host
from frazil.primitives.fourier import fourier_crop, friendly_size
from frazil.primitives.masks import Mask
from frazil.primitives.matching import Matcher, gaussian_high_pass

_DIAMETER_PX = 20.0  # of a particle in the reduced micrograph
_SIDE_MIN_DIAMETERS = 2.0  # a micrograph smaller than this has no background
_CLIP_DEVIATIONS = 6.0


@dataclass(frozen=True, slots=True)
class Reduced:
    """A reduced micrograph.

    `image` `(y, x)` float32, particles bright, high-passed at the diameter, standard deviation 1; `blocked` `(y, x)` is true
    where it is contaminated; `scale_y`, `scale_x` are px of the micrograph per px; `diameter_px` is the particle's.
    """

    image: Array
    blocked: Mask
    scale_y: float
    scale_x: float
    diameter_px: float


def reduce_micrograph(micrograph: Array, diameter_px: float, largest_px: float) -> Reduced | None:
    """Reduce a micrograph until the particle's diameter is 20 px.

    Parameters
    ----------
    micrograph: `(y, x)`, real, protein dark; pixels that are not finite count as background.
    diameter_px: nominal diameter of the particle.
    largest_px: greatest diameter: what is much larger is contamination.

    Returns
    -------
    None where there is nothing to search: a constant image, one smaller than two diameters, one that is all contaminated.
    """
    if min(micrograph.shape) < _SIDE_MIN_DIAMETERS * diameter_px:
        return None
    xp = namespace(micrograph)
    image = _about_zero(xp.astype(micrograph, xp.float32))
    if image is None:
        return None
    factor = max(1.0, diameter_px / _DIAMETER_PX)
    height, width = image.shape
    shape = (min(height, friendly_size(round(height / factor))), min(width, friendly_size(round(width / factor))))
    scale_y, scale_x = height / shape[0], width / shape[1]
    diameter = diameter_px / math.sqrt(scale_y * scale_x)
    flat = flattened(-to_host(fourier_crop(image, shape)))
    blocked = contamination(flat, largest_px * diameter / diameter_px)
    limit = np.float32(_CLIP_DEVIATIONS * background_level(flat)[1])  # before the high pass spreads what is too strong
    flat = np.where(blocked, np.float32(0.0), np.clip(flat, -limit, limit))
    matcher = Matcher(to_device(flat, xp), math.ceil(3.0 * diameter))
    small = matcher.filtered(gaussian_high_pass((matcher.padded.shape[0], matcher.padded.shape[1]), diameter, xp))
    host = to_host(small)[~blocked]
    spread = 1.4826 * float(np.median(np.abs(host))) if host.size else 0.0
    if spread <= 0.0:
        return None
    small = xp.clip(small / spread, -_CLIP_DEVIATIONS, _CLIP_DEVIATIONS)
    return Reduced(xp.where(to_device(blocked, xp), xp.zeros_like(small), small), blocked, scale_y, scale_x, diameter)


def _about_zero(image: Array) -> Array | None:
    """Return the image less its mean, pixels that are not finite put to 0; None when it is constant."""
    xp = namespace(image)
    finite, zero = xp.isfinite(image), xp.zeros_like(image)
    count = max(1.0, float(xp.sum(xp.astype(finite, xp.float64))))
    mean = float(xp.sum(xp.where(finite, image, zero), dtype=xp.float64)) / count
    image = xp.where(finite, image - mean, zero)
    return image if float(xp.max(xp.abs(image))) > 1e-5 * abs(mean) else None
