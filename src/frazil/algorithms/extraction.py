"""Extraction: boxes cut at picks, Fourier-cropped, normalised, particles white."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.array import Array, namespace, to_device, to_host
from frazil.model.errors import InputError
from frazil.model.particles import Pick
from frazil.primitives.fourier import fourier_crop, friendly_size

_BOX_DIAMETERS = 1.5  # box per particle diameter
_CLASSIFICATION_BOX_PX = 64
_NYQUIST_FLOOR_ANGSTROM = 6.0  # 2D classification needs no finer sampling
_EDGE_DIAMETERS = 0.5  # picks nearer to the edge than this are not cut
_DUST_SIGMA = 5.0
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxAdvice:
    """A box as cut from the micrograph, and as kept after Fourier cropping; even, px."""

    box_size_px: int
    output_box_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """The particles of one micrograph.

    Attributes
    ----------
    images: (particle, y, x) float32, protein white, background mean 0 and standard deviation 1.
    kept: (particle,) int64 index of each particle's pick.
    pixel_size_angstrom: of the images.
    """

    images: Array
    kept: npt.NDArray[np.int64]
    pixel_size_angstrom: float


def advise_box(particle_diameter_angstrom: float, pixel_size_angstrom: float) -> BoxAdvice:
    """Return boxes for a particle: 1.5 diameters as cut, about 64 px after cropping, never sampled finer than 3 Å/px.

    Raises InputError when the particle spans fewer than 8 px.
    """
    diameter_px = particle_diameter_angstrom / pixel_size_angstrom
    if diameter_px < 8:
        raise InputError(
            "PARTICLE_TOO_SMALL",
            f"A particle of {particle_diameter_angstrom:g} Å spans only {diameter_px:.1f} px of {pixel_size_angstrom:g} Å: "
            "check diameter and pixel size.",
        )
    box = friendly_size(math.ceil(_BOX_DIAMETERS * diameter_px))
    finest = max(8, int(box * pixel_size_angstrom / (_NYQUIST_FLOOR_ANGSTROM / 2)))
    output = min(box, _CLASSIFICATION_BOX_PX, friendly_size(finest, at_most=True))
    return BoxAdvice(box_size_px=box, output_box_px=output)


def extract(
    micrograph: Array,
    picks: Sequence[Pick],
    *,
    box: BoxAdvice,
    pixel_size_angstrom: float,
    particle_diameter_angstrom: float,
    seed: int,
) -> Extraction:
    """Cut a box around each pick, at its rounded coordinate: nothing is interpolated.

    Each box is fitted with a plane outside the particle, which is subtracted; background mean and standard deviation become
    0 and 1; contrast is inverted. Pixels beyond the micrograph are noise of the same kind. Picks nearer to the edge than
    half a particle diameter are left out. (RELION's normalisation: dust, ramp, mean and deviation, inversion.)

    Parameters
    ----------
    micrograph: (y, x) float32, protein dark.
    picks: coordinates in px of the micrograph.
    box: even sizes; the output box is no larger than the box.
    pixel_size_angstrom: of the micrograph.
    particle_diameter_angstrom: what lies outside is background.
    seed: of the noise beyond the edge.

    Returns
    -------
    Extraction, with images on the micrograph's backend.

    Raises
    ------
    InputError: the box does not fit the micrograph, or is not larger than the particle.
    """
    xp = namespace(micrograph)
    height, width = micrograph.shape
    if box.box_size_px > min(height, width):
        raise InputError(
            "BOX_TOO_LARGE",
            f"A box of {box.box_size_px} px does not fit a micrograph of {width} by {height} px: make it smaller.",
        )
    design = _Background.of(box.box_size_px, particle_diameter_angstrom / pixel_size_angstrom)
    margin = _EDGE_DIAMETERS * particle_diameter_angstrom / pixel_size_angstrom
    centres = np.array([(round(pick.y_px), round(pick.x_px)) for pick in picks], dtype=np.int64).reshape(-1, 2)
    inside = (centres >= margin).all(axis=1) & (centres < np.array([height, width]) - margin).all(axis=1)
    kept = np.flatnonzero(inside)
    pixel_size = pixel_size_angstrom * box.box_size_px / box.output_box_px
    host = to_host(micrograph)
    images = np.empty((kept.size, box.output_box_px, box.output_box_px), dtype=np.float32)
    for start in range(0, kept.size, _BATCH):
        rows = kept[start : start + _BATCH]
        boxes, beyond = _cut(host, centres[rows], box.box_size_px)
        normal = design.normalise(boxes, beyond)
        _fill(normal, beyond, rows, seed)
        cropped = fourier_crop(-normal, (box.output_box_px, box.output_box_px))
        images[start : start + rows.size] = _rescaled(cropped, particle_diameter_angstrom / pixel_size)
    return Extraction(images=to_device(images, xp), kept=kept, pixel_size_angstrom=pixel_size)


def _cut(
    image: npt.NDArray[Any], centres: npt.NDArray[np.int64], box: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return boxes (particle, y, x) and which of their pixels lie beyond the image, where the nearest pixel stands in."""
    offsets = np.arange(box) - box // 2
    rows, columns = centres[:, :1] + offsets, centres[:, 1:] + offsets
    height, width = image.shape
    beyond_rows, beyond_columns = (rows < 0) | (rows >= height), (columns < 0) | (columns >= width)
    clipped_rows, clipped_columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    boxes = image[clipped_rows[:, :, None], clipped_columns[:, None, :]].astype(np.float32)
    return boxes, beyond_rows[:, :, None] | beyond_columns[:, None, :]


@dataclass(frozen=True, slots=True)
class _Background:
    """The pixels of a box outside the particle, and the plane through them."""

    outside: npt.NDArray[np.bool_]
    plane: npt.NDArray[np.float64]  # (pixel, 3): 1, x, y

    @staticmethod
    def of(box: int, diameter_px: float) -> _Background:
        offset = (np.arange(box) - box // 2) / (box / 2)
        radius = np.hypot(offset[:, None], offset)
        outside = radius > min(diameter_px / box, 0.95)
        if not (outside & (radius <= 1)).any():
            raise InputError(
                "BOX_TOO_SMALL", f"A box of {box} px is not larger than the particle ({diameter_px:.0f} px): enlarge it."
            )
        y, x = np.broadcast_arrays(offset[:, None], offset)
        return _Background(outside, np.stack([np.ones(box * box), x.ravel(), y.ravel()], axis=1))

    def normalise(self, boxes: npt.NDArray[np.float32], beyond: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return boxes without ramp, background mean 0 and deviation 1, dust replaced by 0."""
        flat = boxes.reshape(len(boxes), -1).astype(np.float64)
        used = (self.outside & ~beyond).reshape(len(boxes), -1)
        result = np.empty_like(flat)
        for index, (values, good) in enumerate(zip(flat, used, strict=True)):
            coefficients, *_ = np.linalg.lstsq(self.plane[good], values[good], rcond=None)
            level = values - self.plane @ coefficients
            deviation = level[good].std()
            result[index] = level / deviation if deviation > 0 else 0.0
        result[np.abs(result) > 4 * _DUST_SIGMA] = 0.0
        return result.reshape(boxes.shape).astype(np.float32)


def _fill(boxes: npt.NDArray[np.float32], beyond: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64], seed: int) -> None:
    """Put noise of deviation 1 where the micrograph ends; each pick has its own generator."""
    for one, outside, row in zip(boxes, beyond, rows, strict=True):
        if outside.any():
            rng = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, int(row)]))
            one[outside] = rng.standard_normal(int(outside.sum()), dtype=np.float32)


def _rescaled(images: npt.NDArray[np.float32], diameter_px: float) -> npt.NDArray[np.float32]:
    """Bring the background of cropped images back to mean 0 and deviation 1: cropping took part of the noise away."""
    box = images.shape[-1]
    offset = np.arange(box) - box // 2
    outside = np.hypot(offset[:, None], offset) > min(diameter_px / 2, 0.475 * box)
    background = images[:, outside]
    mean, deviation = background.mean(axis=1), background.std(axis=1)
    scaled: npt.NDArray[np.float32] = (images - mean[:, None, None]) / np.where(deviation > 0, deviation, 1)[:, None, None]
    return scaled.astype(np.float32)
