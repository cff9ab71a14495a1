"""The automatic mask: the particle's density above the solvent's noise, widened, with a soft edge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from frazil.array import Array, namespace, to_host
from frazil.primitives.fourier import raised_cosine
from frazil.primitives.volumes import low_pass, radius_from_centre, soft_sphere

_LOW_PASS_ANGSTROM = 15.0
_SOLVENT_SIGMA = 4.0
_SHARE_OF_MAXIMUM = 0.15
_SMALLEST_PART = 0.1  # of the largest connected part
_WIDEN_ANGSTROM, _EDGE_ANGSTROM = 6.0, 12.0
_WIDEN_MIN_PX, _EDGE_MIN_PX = 2.0, 5.0


def automatic_mask(volume: Array, pixel_size_angstrom: float, particle_diameter_angstrom: float) -> Array:
    """Return a mask (size, size, size) float32 around the density of an unmasked average map.

    The map is low-passed to 15 Å (or 4 voxels); density counts where it exceeds both the solvent, by four of its standard
    deviations, and 0.15 of the map's largest value. Parts smaller than a tenth of the largest are dropped, holes are filled,
    and the rest is widened by 6 Å (at least 2 voxels) with an edge of 12 Å (at least 5). Where nothing stands out the mask is
    a soft sphere of the particle's diameter.

    Parameters
    ----------
    volume: (size, size, size) real, density positive.
    particle_diameter_angstrom: beyond it is solvent; the mask never exceeds 1.2 diameters.
    """
    xp = namespace(volume)
    size = volume.shape[0]
    radius_px = particle_diameter_angstrom / pixel_size_angstrom / 2
    edge = max(_EDGE_ANGSTROM / pixel_size_angstrom, _EDGE_MIN_PX)
    sphere = soft_sphere(size, min(1.2 * radius_px, size / 2 - edge / 2 - 1), edge, xp)
    resolution = max(_LOW_PASS_ANGSTROM, 4 * pixel_size_angstrom)
    smooth = to_host(low_pass(volume, size * pixel_size_angstrom / resolution, 2.0))
    core = _particle(smooth, to_host(radius_from_centre(size, xp)), radius_px)
    if not core.any():
        return soft_sphere(size, min(1.05 * radius_px, size / 2 - edge / 2 - 1), edge, xp)
    widen = max(_WIDEN_ANGSTROM / pixel_size_angstrom, _WIDEN_MIN_PX)
    distance = scipy.ndimage.distance_transform_edt(~core).astype(np.float32)
    return raised_cosine(xp.asarray(distance), widen, widen + edge) * sphere


def _particle(smooth: npt.NDArray[np.floating], radius: npt.NDArray[np.floating], radius_px: float) -> npt.NDArray[np.bool_]:
    """Return the voxels of the particle's large connected parts, holes filled."""
    inside = radius <= 1.1 * radius_px
    solvent = smooth[(radius > 1.1 * radius_px) & (radius < smooth.shape[0] / 2 - 1)]
    if solvent.size < 100:
        solvent = smooth[~inside]
    threshold = max(
        float(solvent.mean() + _SOLVENT_SIGMA * solvent.std()), _SHARE_OF_MAXIMUM * float(np.quantile(smooth[inside], 0.999))
    )
    labels, count = scipy.ndimage.label((smooth > threshold) & inside)
    if count == 0:
        return np.zeros(smooth.shape, np.bool_)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = sizes >= max(_SMALLEST_PART * sizes.max(), 1)
    filled: npt.NDArray[np.bool_] = scipy.ndimage.binary_fill_holes(kept[labels])
    return filled
