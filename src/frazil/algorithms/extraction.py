"""Extraction of particles: boxes cut at whole pixels, Fourier-cropped, flattened, normalised, white on black."""

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

_BOX_DIAMETERS = 1.6
_ELECTRON_WAVELENGTH_ANGSTROM = 0.02  # 300 kV; good enough to size a box
_OUTPUT_PX = 64
_OUTPUT_PIXEL_ANGSTROM = (3.0, 6.0)
_BACKGROUND_RADIUS = 0.75  # of half a box, as RELION has it
_MARGIN_DIAMETERS = 0.3
_PARTICLES_AT_A_TIME = 256
_DIAMETER_MIN_PX = 8
_FLAT = 1e-5
_EDGE_STREAM, _DUST_STREAM = 0, 1  # of random numbers
_DUST_SHARE = 0.01  # of a box; where more pixels stand out it is no dust but what the image shows
_DUST_ROUNDS = 6  # dust adds to the deviation that it is judged by


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxAdvice:
    """Side of the box cut from the micrograph, and of the box it is Fourier-cropped to; both even, px."""

    box_size_px: int
    output_box_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """Particles of one micrograph.

    `images` (particle, y, x) float32, white, background mean 0 and standard deviation 1; `kept` (particle,) are the indices of
    their picks; `pixel_size_angstrom` is that of the images, exactly the micrograph's times box over output box.
    """

    images: Array
    kept: npt.NDArray[np.int64]
    pixel_size_angstrom: float


def advise_box(
    particle_diameter_angstrom: float, pixel_size_angstrom: float, *, defocus_angstrom: float = 15_000.0
) -> BoxAdvice:
    """Return a box for a particle: 1.6 diameters, or room for what defocus spreads if that is more; for 2D classes of 64 px.

    The output pixel is a 64th of the box, at least 3 Å (2D classes need no better than 6 Å) and at most 6 Å: beyond that the
    output box grows. It is never smaller than the micrograph's pixel.

    Parameters
    ----------
    particle_diameter_angstrom: largest extent.
    pixel_size_angstrom: of the micrograph.
    defocus_angstrom: typical of the session.
    """
    if particle_diameter_angstrom <= 0.0 or pixel_size_angstrom <= 0.0:
        raise InputError("BOX_UNKNOWN", "Give a positive particle diameter and pixel size, in Å, to get a box.")
    if particle_diameter_angstrom < _DIAMETER_MIN_PX * pixel_size_angstrom:
        raise InputError(
            "PARTICLE_TOO_SMALL",
            f"A particle of {particle_diameter_angstrom:g} Å spans fewer than {_DIAMETER_MIN_PX} px of "
            f"{pixel_size_angstrom:g} Å: check diameter and pixel size.",
        )
    low, high = _OUTPUT_PIXEL_ANGSTROM
    resolution = 2.0 * min(max(_BOX_DIAMETERS * particle_diameter_angstrom / _OUTPUT_PX, low), high)
    spread = 2.0 * _ELECTRON_WAVELENGTH_ANGSTROM * defocus_angstrom / resolution
    extent = max(_BOX_DIAMETERS * particle_diameter_angstrom, particle_diameter_angstrom + spread)
    box = friendly_size(max(16, math.ceil(extent / pixel_size_angstrom)))
    output_pixel = max(min(max(extent / _OUTPUT_PX, low), high), pixel_size_angstrom)
    output = friendly_size(max(16, round(box * pixel_size_angstrom / output_pixel)), at_most=True)
    return BoxAdvice(box_size_px=box, output_box_px=min(box, output))


def extract(
    micrograph: Array,
    picks: Sequence[Pick],
    *,
    box: BoxAdvice,
    pixel_size_angstrom: float,
    particle_diameter_angstrom: float,
    seed: int,
    dust_deviations: float = 8.0,
) -> Extraction:
    """Cut out picked particles.

    A box's pixel N/2 is the micrograph's pixel nearest to the pick; nothing is interpolated. Dust, the few pixels that lie
    many deviations from the background (hot ones, X-rays), becomes noise of the background's mean and deviation, before
    the Fourier crop could spread it (as RELION's `--white_dust` and `--black_dust` do). After the Fourier crop a plane,
    fitted outside the particle, is subtracted; the image is divided by the standard deviation there and inverted. Pixels that
    lie outside the micrograph become noise of mean 0 and standard deviation 1.

    Parameters
    ----------
    micrograph: `(y, x)`, real, protein dark.
    picks: coordinates in px of this micrograph.
    box: sizes; both even, the output no larger than the box.
    pixel_size_angstrom: of the micrograph.
    particle_diameter_angstrom: the background is measured outside of it.
    seed: of the noise; a particle's noise depends on it and on the particle's place only.
    dust_deviations: how far from the background dust lies, in its standard deviations, on either side; infinity leaves all.

    Returns
    -------
    The particles whose centre lies inside the micrograph by 0.3 diameters or more; those of a constant background are 0.

    Raises
    ------
    InputError: sizes that are odd, a box smaller than the particle or larger than the micrograph.
    """
    size, output = box.box_size_px, box.output_box_px
    shape = (micrograph.shape[0], micrograph.shape[1])
    diameter_px = particle_diameter_angstrom / pixel_size_angstrom
    check_box(box, diameter_px, shape)
    xp = namespace(micrograph)
    centres = np.array([(round(p.y_px), round(p.x_px)) for p in picks], dtype=np.int64).reshape(-1, 2)
    margin = _MARGIN_DIAMETERS * diameter_px
    limits = np.array(shape) - 1 - margin
    kept = np.flatnonzero(((centres >= margin) & (centres <= limits)).all(axis=1))
    new_pixel_size = pixel_size_angstrom * size / output
    padded = _padded(xp.astype(micrograph, xp.float32), size // 2)
    radius = min(max(diameter_px / size, _BACKGROUND_RADIUS), 1.0) / 2  # of the box
    outside_particle = _outside_disc(output, radius * output)
    stacks = [xp.zeros((0, output, output), dtype=xp.float32)]
    for first in range(0, len(kept), _PARTICLES_AT_A_TIME):
        batch = centres[kept[first : first + _PARTICLES_AT_A_TIME]]
        boxes = xp.stack([padded[y : y + size, x : x + size] for y, x in batch.tolist()])
        background = _inside(batch, shape, size, size) & _outside_disc(size, radius * size)
        boxes = _without_dust(boxes, to_device(background, xp), batch, dust_deviations, seed)
        inside = _inside(batch, shape, size, output)
        noise = _noise(batch, inside, seed)
        cropped = fourier_crop(boxes, (output, output))
        weight = to_device((inside & outside_particle).astype(np.float32), xp)
        images = _normalised(cropped, weight)
        stacks.append(xp.where(to_device(inside, xp), images, to_device(noise, xp)))
    return Extraction(images=xp.concat(stacks), kept=kept, pixel_size_angstrom=new_pixel_size)


def check_box(box: BoxAdvice, diameter_px: float, shape: tuple[int, int]) -> None:
    """Raise InputError for a box that cannot be cut.

    Sizes that are odd, an output larger than the box, a box smaller than the particle (`diameter_px`) or larger than the
    micrograph of `shape` `(y, x)`.
    """
    size, output = box.box_size_px, box.output_box_px
    if size % 2 or output % 2 or not 0 < output <= size:
        raise InputError(
            "BOX_INVALID", f"Boxes must be even and the output box ({output} px) no larger than the box ({size} px)."
        )
    if diameter_px > size:
        raise InputError(
            "BOX_TOO_SMALL", f"A box of {size} px is smaller than the particle ({diameter_px:.0f} px): enlarge it."
        )
    if size > min(shape):
        raise InputError(
            "BOX_TOO_LARGE",
            f"A box of {size} px does not fit a micrograph of {shape[1]} by {shape[0]} px: make it smaller, "
            "or check particle diameter and pixel size.",
        )


def _padded(image: Array, margin: int) -> Array:
    """Surround an image by its mean; pixels that are not finite become the mean too."""
    xp = namespace(image)
    finite = xp.isfinite(image)
    count = max(1.0, float(xp.sum(xp.astype(finite, xp.float64))))
    mean = float(xp.sum(xp.where(finite, image, xp.zeros_like(image)), dtype=xp.float64)) / count
    padded = xp.full((image.shape[0] + 2 * margin, image.shape[1] + 2 * margin), mean, dtype=image.dtype)
    padded[margin : margin + image.shape[0], margin : margin + image.shape[1]] = xp.where(finite, image, mean)
    return padded


def _outside_disc(size: int, radius: float) -> npt.NDArray[np.bool_]:
    y, x = np.ogrid[-(size // 2) : size // 2, -(size // 2) : size // 2]
    return np.asarray(y * y + x * x > radius * radius)


def _inside(centres: npt.NDArray[np.int64], shape: tuple[int, int], size: int, output: int) -> npt.NDArray[np.bool_]:
    """Say which pixels (particle, y, x) of the cropped boxes lie inside the micrograph."""
    offset = np.arange(output) * (size / output) - size // 2
    inside = [
        (centre[:, None] + offset >= 0) & (centre[:, None] + offset <= n - 1)
        for centre, n in zip(centres.T, shape, strict=True)
    ]
    return np.asarray(inside[0][:, :, None] & inside[1][:, None, :])


def _without_dust(boxes: Array, background: Array, centres: npt.NDArray[np.int64], deviations: float, seed: int) -> Array:
    """Return boxes (particle, y, x) with dust replaced by noise; `background` says which pixels are judged by."""
    xp = namespace(boxes)
    every_other, judging = boxes[:, ::2, ::2], background[:, ::2, ::2]
    used, count = judging, -1
    for _ in range(_DUST_ROUNDS):
        before, count = count, int(xp.count_nonzero(used))
        if count == before:
            break
        weight = xp.astype(used, xp.float32)
        total = xp.maximum(xp.sum(weight, axis=(1, 2), keepdims=True), 1.0)
        level = xp.sum(every_other * weight, axis=(1, 2), keepdims=True) / total
        deviation = xp.sqrt(xp.sum(weight * (every_other - level) ** 2, axis=(1, 2), keepdims=True) / total)
        used = judging & (xp.abs(every_other - level) <= deviations * deviation)
    dust = xp.abs(boxes - level) > deviations * deviation
    dust = dust & (xp.mean(xp.astype(dust, xp.float32), axis=(1, 2), keepdims=True) <= _DUST_SHARE)
    if not bool(xp.any(dust)):
        return boxes
    affected = to_host(xp.any(dust, axis=(1, 2)))
    noise = np.zeros(boxes.shape, dtype=np.float32)
    for i in np.flatnonzero(affected):
        noise[i] = _generator(centres[i], seed, _DUST_STREAM).standard_normal(boxes.shape[1:], dtype=np.float32)
    return xp.where(dust, level + deviation * to_device(noise, xp), boxes)


def _generator(centre: npt.NDArray[np.int64], seed: int, stream: int) -> np.random.Generator:
    """Return the random numbers of a particle: they depend on the seed and the particle's place only."""
    return np.random.default_rng([seed % 2**32, *(int(c) for c in centre), stream])


def _noise(centres: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.float32]:
    noise = np.zeros(inside.shape, dtype=np.float32)
    for i in np.flatnonzero(~inside.all(axis=(1, 2))):
        noise[i] = _generator(centres[i], seed, _EDGE_STREAM).standard_normal(inside.shape[1:], dtype=np.float32)
    return noise


def _normalised(images: Array, weight: Array) -> Array:
    """Subtract the plane fitted where the weight is 1, divide by the standard deviation there, invert; (particle, y, x)."""
    xp: Any = namespace(images)
    n, size = images.shape[0], images.shape[-1]
    ramp = (xp.arange(size, dtype=xp.float32) - size / 2) / size
    count = xp.sum(weight, axis=(1, 2), keepdims=True)
    level = xp.sum(images * weight, axis=(1, 2), keepdims=True) / count
    largest = xp.max(xp.abs(images), axis=(1, 2), keepdims=True)
    flat = images - level  # the plane is fitted about the level, where single precision suffices
    columns = [
        xp.ones((size, size), dtype=xp.float32),
        xp.broadcast_to(ramp[:, None], (size, size)),
        xp.broadcast_to(ramp[None, :], (size, size)),
    ]
    normal = [[xp.sum(weight * a * b, axis=(1, 2)) for b in columns] for a in columns]
    right = [xp.sum(weight * a * flat, axis=(1, 2)) for a in columns]
    matrix = xp.stack([xp.stack(row, axis=-1) for row in normal], axis=-2)
    plane = xp.linalg.solve(matrix, xp.stack(right, axis=-1)[:, :, None])
    for i, column in enumerate(columns):
        flat = flat - xp.reshape(plane[:, i, 0], (n, 1, 1)) * column
    deviation = xp.sqrt(xp.sum(weight * flat * flat, axis=(1, 2), keepdims=True) / count)
    usable = deviation > _FLAT * largest
    return xp.where(usable, -flat / xp.where(usable, deviation, xp.ones_like(deviation)), xp.zeros_like(flat))
