"""The power spectrum of a micrograph, averaged over tiles, as the CTF fit needs it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.array import Array, namespace, to_host
from frazil.primitives.fourier import friendly_size, rfft2

_OUTLIER_DEVIATIONS = 5.0
_SPREAD_FLOOR = 0.05  # of the logarithm of a tile's power: tiles that agree this well are never outliers
_TILES_AT_A_TIME = 16
_FLAT = 1e-5  # an image that varies by less than this fraction of its mean is taken for constant


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Half of an averaged power spectrum, on the host.

    `power` is `(2 m + 1, m + 1)` float32: rows are frequencies from -m to +m, columns from 0 to m, in steps of
    `step_per_angstrom`; each tile was normalised to a mean power of 1 before the average. It is all 0 when `tile_count`
    is 0: an image without structure has no spectrum.
    """

    power: npt.NDArray[np.float32]
    step_per_angstrom: float
    tile_count: int
    tiles_rejected: int

    @property
    def tile_angstrom(self) -> float:
        """Length of a tile."""
        return 1.0 / self.step_per_angstrom

    def frequencies(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return `sx (1, m + 1)` and `sy (2 m + 1, 1)` in 1/Å."""
        m = self.power.shape[1] - 1
        return np.arange(m + 1)[None, :] * self.step_per_angstrom, np.arange(-m, m + 1)[:, None] * self.step_per_angstrom


def average_spectrum(micrograph: Array, *, pixel_size_angstrom: float, tile_angstrom: float, s_max: float) -> Spectrum:
    """Average the power spectra of half-overlapping Hann-windowed tiles, leaving out tiles unlike the others.

    Parameters
    ----------
    micrograph: `(y, x)`, real; pixels that are not finite count as the mean.
    pixel_size_angstrom: of the micrograph.
    tile_angstrom: wanted side of a tile; the nearest size good for an FFT is taken, two thirds of the micrograph's shorter
        side at most.
    s_max: highest frequency kept, 1/Å; cut to Nyquist.

    Returns
    -------
    The spectrum. Tiles whose total power is more than 5 robust standard deviations (of its logarithm) from the median, such
    as those on carbon, ice or a gap, are not in it.
    """
    length = _tile_px(micrograph.shape, tile_angstrom / pixel_size_angstrom)
    step = 1.0 / (length * pixel_size_angstrom)
    kept = max(1, min(length // 2 - 1, math.floor(s_max / step * (1.0 + 1e-9))))
    tiles = _tile_powers(_finite(micrograph), length, kept)
    total = tiles.mean(axis=(1, 2), dtype=np.float64)
    used = _inliers(total)
    if not used.any():
        return Spectrum(np.zeros((2 * kept + 1, kept + 1), np.float32), step, 0, len(total))
    weights = (1.0 / total[used] / used.sum()).astype(np.float32)
    return Spectrum(np.tensordot(weights, tiles[used], axes=1), step, int(used.sum()), int((~used).sum()))


def _tile_px(shape: tuple[int, ...], wanted: float) -> int:
    longest = 2 * min(shape[-2:]) // 3
    return friendly_size(max(16, min(longest, round(wanted))), at_most=longest <= wanted)


def _finite(micrograph: Array) -> Array:
    """Return the image about mean 0, its pixels that are not finite put to 0; all 0 when it is constant."""
    xp = namespace(micrograph)
    image = xp.astype(micrograph, xp.float32)
    good = xp.isfinite(image)
    image = xp.where(good, image, xp.zeros_like(image))
    mean = xp.sum(image, dtype=xp.float64) / max(1.0, float(xp.sum(xp.astype(good, xp.float64))))
    image = xp.where(good, image - float(mean), xp.zeros_like(image))
    return image if float(xp.max(xp.abs(image))) > _FLAT * abs(float(mean)) else xp.zeros_like(image)


def _tile_powers(image: Array, length: int, kept: int) -> npt.NDArray[np.float32]:
    """Return the power spectra (tile, 2 kept + 1, kept + 1) of all tiles, on the host."""
    xp = namespace(image)
    ramp = xp.arange(length, dtype=xp.float32) * (2.0 * math.pi / length)
    hann = 0.5 - 0.5 * xp.cos(ramp)
    window = xp.reshape(hann, (-1, 1)) * xp.reshape(hann, (1, -1))
    rows, columns = (_starts(size, length) for size in image.shape)
    corners = [(y, x) for y in rows for x in columns]
    powers = []
    for first in range(0, len(corners), _TILES_AT_A_TIME):
        batch = xp.stack([image[y : y + length, x : x + length] for y, x in corners[first : first + _TILES_AT_A_TIME]])
        batch = batch - xp.mean(batch, axis=(1, 2), keepdims=True)
        powers.append(to_host(_band_power(rfft2(batch * window), kept)))
    return np.concatenate(powers)


def _band_power(transform: Array, kept: int) -> Array:
    xp = namespace(transform)
    columns = transform[:, :, : kept + 1]
    band = xp.concat([columns[:, columns.shape[1] - kept :, :], columns[:, : kept + 1, :]], axis=1)
    return xp.real(band) ** 2 + xp.imag(band) ** 2


def _starts(size: int, length: int) -> list[int]:
    count = math.ceil((size - length) / (length / 2)) + 1
    return [round(i * (size - length) / max(1, count - 1)) for i in range(count)]


def _inliers(total: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Say which tiles are like the others; tiles without any power never are."""
    alive = total > 0.0
    if not alive.any():
        return alive
    logarithm = np.log(np.where(alive, total, 1.0))
    deviation = np.abs(logarithm - np.median(logarithm[alive]))
    spread = max(1.4826 * float(np.median(deviation[alive])), _SPREAD_FLOOR)
    inliers: npt.NDArray[np.bool_] = alive & (deviation <= _OUTLIER_DEVIATIONS * spread)
    return inliers
