"""Template picker: finds particles that look like given images, in any in-plane rotation, through the micrograph's CTF.

1. The micrograph is reduced as for every picker (`detection.reduction`).
2. Each template is low-passed, resampled to the reduced micrograph, turned in steps, multiplied by the CTF and high-passed as
   the micrograph is.
3. The turned templates are written in their principal components: the micrograph is correlated with these few images by FFT,
   and every template's correlation is a sum over them. The score at a pixel is the highest normalised correlation.
4. Peaks that noise does not explain are picks (`detection.peaks`); noise is searched with the same templates.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from frazil.algorithms.ctf.model import ctf_2d
from frazil.algorithms.detection.peaks import Limits, PeakSearch
from frazil.algorithms.detection.reduction import reduce_micrograph
from frazil.algorithms.templates import Templates, lowpassed
from frazil.array import Array, to_device, to_host
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from frazil.model.particles import Candidates
from frazil.primitives.fourier import irfft2, rfft2
from frazil.primitives.masks import soft_disc
from frazil.primitives.matching import HostFloats, gaussian_high_pass

TITLE = "Template picker"

_MASK_DIAMETERS = 0.55  # radius of what is kept of a template
_WINDOW_DIAMETERS = 0.75  # radius of what is compared; the CTF spreads a particle
_FIELD_DIAMETERS = 4.0  # side of the field on which the CTF acts
_COMPONENTS, _ENERGY = 80, 0.98  # most principal components; share of the templates' power that they must hold
_PIXELS_AT_A_TIME = 1 << 15
_NULL_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemplateParameters(Limits):
    """What to look for. The diameter is that of the particle: templates are masked by it."""

    templates: Templates
    diameter_min_angstrom: float
    diameter_max_angstrom: float
    lowpass_angstrom: float = 20.0
    angular_step_degrees: float = 10.0  # half of it moves the rim of a particle by less than a reduced pixel

    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        if not 0.0 < self.diameter_min_angstrom <= self.diameter_max_angstrom < math.inf:
            raise InputError(
                "PICK_DIAMETER", "Give a particle diameter in Å: positive, the minimum no larger than the maximum."
            )
        if not (self.lowpass_angstrom > 0.0 and 0.0 < self.angular_step_degrees <= 360.0):
            raise InputError("PICK_PARAMETERS", "Give a positive low pass in Å and an angular step of 0 to 360 degrees.")


Parameters = TemplateParameters


def search(
    micrograph: Array, parameters: TemplateParameters, *, optics: Optics, seed: int, ctf: Ctf | None = None
) -> Candidates:
    """Search a dose-weighted micrograph, protein dark, for particles.

    Parameters
    ----------
    micrograph: `(y, x)`, real; pixels that are not finite count as background.
    parameters: templates and diameter, and thresholds where wanted.
    optics: with the pixel size of the micrograph.
    seed: of the random phases of the noise estimate.
    ctf: of the micrograph; None matches the templates as they are.

    Returns
    -------
    Candidates, highest score first: `score` is the normalised cross-correlation with the best template.
    """
    pixel_size, diameter = optics.pixel_size_angstrom, parameters.diameter_max_angstrom
    reduced = reduce_micrograph(micrograph, diameter / pixel_size, diameter / pixel_size)
    if reduced is None:
        return Candidates()
    peak_search = PeakSearch(reduced, parameters)
    diameter_px = peak_search.diameter_px
    reduced_optics = dataclasses.replace(optics, pixel_size_angstrom=diameter / diameter_px)
    bank = _Bank(peak_search, _transferred(_turned(parameters, diameter_px), diameter_px, reduced_optics, ctf))
    score = bank.score()
    peaks = peak_search.accepted(score, bank.correlation, np.random.default_rng(seed), rounds=_NULL_ROUNDS)
    return peak_search.candidates(peaks, score, diameter)


class _Bank:
    """Templates in their principal components, ready to be matched."""

    def __init__(self, search: PeakSearch, images: HostFloats) -> None:
        """Take images (template, y, x), centred, on the reduced micrograph's pixels."""
        self._matcher, self._xp = search.matcher, search.xp
        reach = math.ceil(_WINDOW_DIAMETERS * search.diameter_px) + 1
        middle = images.shape[1] // 2
        core = images[:, middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
        y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
        disc = soft_disc(np.hypot(y, x), _WINDOW_DIAMETERS * search.diameter_px, 1.0).astype(np.float32)
        self._window = self._matcher.placed(disc)
        components, coefficients = _principal(_normalised(core, disc))
        self._components = [self._matcher.placed(component) for component in components]
        self._coefficients = to_device(coefficients, self._xp)

    def score(self) -> HostFloats:
        """Return the highest normalised cross-correlation at each pixel."""
        deviation = to_host(self._matcher.local_deviation(self._window))
        floor = max(float(np.median(deviation)), 1e-20)  # quiet places are not amplified
        return np.asarray(np.clip(self.correlation(self._matcher.transform) / np.maximum(deviation, floor), -1.0, 1.0))

    def correlation(self, transform: Array) -> HostFloats:
        """Return the highest correlation at each pixel of a padded image given by its half transform."""
        xp = self._xp
        maps = xp.stack([self._matcher.correlate_transform(transform, component) for component in self._components])
        shape = maps.shape[1:]
        flat = xp.reshape(maps, (maps.shape[0], -1))
        starts = range(0, flat.shape[1], _PIXELS_AT_A_TIME)
        ends = [*starts[1:], flat.shape[1]]
        best = [xp.max(self._coefficients @ flat[:, start:end], axis=0) for start, end in zip(starts, ends, strict=True)]
        return np.asarray(to_host(xp.reshape(xp.concat(best), shape)))


def _turned(parameters: TemplateParameters, diameter_px: float) -> HostFloats:
    """Return the templates in every turn, masked, on the field of the reduced micrograph's pixels (template x turn, y, x)."""
    templates = parameters.templates
    pixel_size = parameters.diameter_max_angstrom / diameter_px
    smooth = lowpassed(templates, max(parameters.lowpass_angstrom, 2.1 * pixel_size, 2.1 * templates.pixel_size_angstrom))
    radius = _MASK_DIAMETERS * diameter_px
    reach = math.ceil(radius) + 1
    y, x = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1), indexing="ij")
    turns = np.deg2rad(np.arange(0.0, 360.0, parameters.angular_step_degrees))[:, None, None]
    scale, middle = pixel_size / templates.pixel_size_angstrom, smooth.shape[1] // 2
    rows = middle + scale * (y * np.cos(turns) - x * np.sin(turns))
    columns = middle + scale * (x * np.cos(turns) + y * np.sin(turns))
    mask = soft_disc(np.hypot(y, x), radius, 0.1 * diameter_px).astype(np.float32)
    side = 2 * (math.ceil(_FIELD_DIAMETERS * diameter_px / 2))
    field = np.zeros((len(smooth) * turns.size, side, side), dtype=np.float32)
    inner = slice(side // 2 - reach, side // 2 + reach + 1)
    for i, image in enumerate(smooth):
        turned = scipy.ndimage.map_coordinates(image, [rows, columns], order=3, mode="constant", cval=0.0)
        rim = np.average(turned, axis=(1, 2), weights=mask * (1.0 - mask) + 1e-6)  # the mask leaves no step
        field[i * turns.size : (i + 1) * turns.size, inner, inner] = (turned - rim[:, None, None]) * mask
    return field


def _transferred(images: HostFloats, diameter_px: float, optics: Optics, ctf: Ctf | None) -> HostFloats:
    """Return images (n, y, x) as the reduced micrograph shows them: multiplied by the CTF, high-passed at the diameter."""
    shape = (images.shape[1], images.shape[2])
    response = gaussian_high_pass(shape, diameter_px, np)
    if ctf is not None:
        response = response * ctf_2d(shape, ctf, optics, np)
    return np.asarray(irfft2(rfft2(images) * response.astype(np.float32), shape))


def _normalised(images: HostFloats, window: HostFloats) -> HostFloats:
    """Return images of mean 0 in the window, whose correlation with an image over its local deviation is at most 1."""
    mean = (images * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    centred = (images - mean) * window
    norm = np.sqrt((np.where(window > 0, centred**2 / np.maximum(window, 1e-6), 0.0)).sum(axis=(1, 2), keepdims=True))
    return np.asarray(centred / np.maximum(norm, 1e-20), dtype=np.float32)


def _principal(images: HostFloats) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return principal components (component, y, x) and the coefficients (image, component) that make images of them."""
    flat = images.reshape(len(images), -1)
    powers, vectors = np.linalg.eigh(flat.T @ flat)
    order = np.argsort(-powers)
    share = np.cumsum(powers[order]) / max(float(powers.sum()), 1e-20)
    count = min(_COMPONENTS, int(np.searchsorted(share, _ENERGY)) + 1)
    components = np.ascontiguousarray(vectors[:, order[:count]].T, dtype=np.float32)
    return components.reshape(count, *images.shape[1:]), np.asarray(flat @ components.T, dtype=np.float32)
