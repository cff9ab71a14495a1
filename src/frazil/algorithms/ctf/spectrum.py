"""The power spectra of a micrograph's tiles, and their average, as the CTF fit needs them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf.window import AxisWindows, Window, axis_windows, combined
from frazil.array import Array, namespace, to_device, to_host
from frazil.primitives.fourier import friendly_size, rfft2

_OUTLIER_DEVIATIONS = 5.0
_SPREAD_FLOOR = 0.05  # of the logarithm of a tile's power: tiles that agree this well are never outliers
_TILES_AT_A_TIME = 16
_SPARSE = 4  # one tile in so many is enough for the profile up to Nyquist
_FLAT = 1e-5  # an image that varies by less than this fraction of its mean is taken for constant


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Half of an averaged power spectrum, on the host.

    `power` is `(2 m + 1, m + 1)` float32: rows are frequencies from -m to +m, columns from 0 to m, in steps of
    `step_per_angstrom`; each tile was normalised to a mean power of 1 before the average. It is all 0 when `tile_count`
    is 0: an image without structure has no spectrum. `window` is what the tiles' windows did to it.
    """

    power: npt.NDArray[np.float32]
    step_per_angstrom: float
    tile_count: int
    tiles_rejected: int
    window: Window

    @property
    def tile_angstrom(self) -> float:
        """Length of a tile."""
        return 1.0 / self.step_per_angstrom

    def frequencies(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return `sx (1, m + 1)` and `sy (2 m + 1, 1)` in 1/Å."""
        m = self.power.shape[1] - 1
        return np.arange(m + 1)[None, :] * self.step_per_angstrom, np.arange(-m, m + 1)[:, None] * self.step_per_angstrom


@dataclass(frozen=True, slots=True)
class Tiles:
    """Power spectra of the tiles that are like each other, on the host.

    `powers` (tile, 2 m + 1, m + 1) float32 of mean 1, laid out as in `Spectrum`; `shares` (tile,) of the micrograph, sum 1;
    `x`, `y` (tile,) where they are, in parts of the field from its middle; `area_px` how many pixels the tiles see, each pixel
    counted once; `profile` (n,) the power of rings one step wide, up to Nyquist and on any scale, of every fourth tile.
    """

    powers: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float64]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    area_px: float
    length_px: int
    step_per_angstrom: float
    rejected: int
    window: Window
    profile: npt.NDArray[np.float64]

    def average(self) -> Spectrum:
        """Return the average of the tiles' spectra."""
        power = np.asarray(np.tensordot(self.shares.astype(np.float32), self.powers, axes=1), dtype=np.float32)
        return Spectrum(power, self.step_per_angstrom, len(self.powers), self.rejected, self.window)


def tile_spectra(micrograph: Array, *, pixel_size_angstrom: float, tile_angstrom: float, s_max: float) -> Tiles:
    """Return the power spectra of overlapping tiles, leaving out those unlike the others.

    Parameters
    ----------
    micrograph: `(y, x)`, real; pixels that are not finite count as the mean.
    pixel_size_angstrom: of the micrograph.
    tile_angstrom: wanted side of a tile; the nearest size good for an FFT is taken, two thirds of the micrograph's shorter
        side at most.
    s_max: highest frequency kept, 1/Å; cut to Nyquist.

    Returns
    -------
    The spectra. Tiles whose total power is more than 5 robust standard deviations (of its logarithm) from the median, such
    as those on carbon, ice or a gap, are not among them; none is when the image is constant.
    """
    length = _tile_px(micrograph.shape, tile_angstrom / pixel_size_angstrom)
    step = 1.0 / (length * pixel_size_angstrom)
    kept = max(1, min(length // 2 - 1, math.floor(s_max / step * (1.0 + 1e-9))))
    axes = (axis_windows(micrograph.shape[0], length), axis_windows(micrograph.shape[1], length))
    powers, total, profile = _tile_powers(_finite(micrograph), axes, kept)
    energy = np.outer(*((axis.values**2).sum(axis=1) for axis in axes)).ravel()
    used = _inliers(total / energy)
    powers = np.divide(powers[used], total[used, None, None], dtype=np.float32)
    y, x = np.meshgrid(*(axis.centres(n) for axis, n in zip(axes, micrograph.shape, strict=True)), indexing="ij")
    return Tiles(
        powers=powers,
        shares=energy[used] / max(float(energy[used].sum()), 1e-30),
        x=x.ravel()[used],
        y=y.ravel()[used],
        area_px=float(energy[used].sum()),
        length_px=length,
        step_per_angstrom=step,
        rejected=int((~used).sum()),
        window=combined(axes, pixel_size_angstrom),
        profile=profile,
    )


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


def _tile_powers(
    image: Array, axes: tuple[AxisWindows, AxisWindows], kept: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the tiles' power spectra (tile, 2 kept + 1, kept + 1), their means (tile,), and the power of rings (n,).

    Everything is on the host.
    """
    xp = namespace(image)
    length = axes[0].values.shape[1]
    windows = [to_device(axis.values.astype(np.float32), xp) for axis in axes]
    corners = [(i, j, y, x) for i, y in enumerate(axes[0].starts) for j, x in enumerate(axes[1].starts)]
    powers, totals = [], []
    whole = xp.zeros((length, length // 2 + 1), dtype=xp.float32)
    for first in range(0, len(corners), _TILES_AT_A_TIME):
        some = corners[first : first + _TILES_AT_A_TIME]
        window = xp.stack([windows[0][i, :, None] * windows[1][j, None, :] for i, j, _, _ in some])
        batch = xp.stack([image[y : y + length, x : x + length] for _, _, y, x in some])
        batch = batch - xp.mean(batch, axis=(1, 2), keepdims=True)
        transform = rfft2(batch * window)
        columns = transform[:, :, : kept + 1]
        band = _power(xp.concat([columns[:, length - kept :, :], columns[:, : kept + 1, :]], axis=1))
        total = xp.mean(band, axis=(1, 2))
        some_total = xp.reshape(xp.where(total > 0.0, total, xp.ones_like(total))[::_SPARSE], (-1, 1, 1))
        whole = whole + xp.sum(_power(transform[::_SPARSE, :, :]) / some_total, axis=0)
        powers.append(to_host(band))
        totals.append(to_host(total))
    return np.concatenate(powers), np.concatenate(totals).astype(np.float64), _rings(to_host(whole))


def _power(transform: Array) -> Array:
    xp = namespace(transform)
    return xp.real(transform) ** 2 + xp.imag(transform) ** 2


def _rings(power: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the mean over rings (n,) of a half spectrum in FFT order, without the two lines through the origin."""
    length = power.shape[0]
    ky, kx = np.rint(np.fft.fftfreq(length) * length)[:, None], np.arange(power.shape[1])[None, :]
    ring = np.rint(np.hypot(ky, kx)).astype(np.int64)
    weight = ((ky != 0) & (kx != 0)).astype(np.float64)
    count = np.bincount(ring.ravel(), weight.ravel())[: length // 2]
    return np.asarray(np.bincount(ring.ravel(), (power * weight).ravel())[: length // 2] / np.maximum(count, 1.0))


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
