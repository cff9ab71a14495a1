"""Windows of the tiles that a micrograph's spectrum is taken from, and what they do to the spectrum.

Their squares add up to one over the micrograph but for a rim, so that every part of it counts alike: Hann windows that overlap
by half leave out a third of the information, most of it near the edges (Welch 1967 for averages of overlapping tiles).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_RIM = 0.125  # of a tile: where the window rises at the micrograph's edges

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """What windows do to an averaged spectrum.

    `visible` (n,) is what is left of a spectrum's modulation with the period 1 / lag, for lags of 0, 1, … steps of
    `lag_step_angstrom`; `correlation` the pixels of the averaged spectrum per independent one.
    """

    visible: Floats
    lag_step_angstrom: float
    correlation: float

    def visibility(self, lag_angstrom: Floats) -> Floats:
        """Return what is left of a modulation at lags of any shape; nothing beyond a tile."""
        lags = np.arange(self.visible.size) * self.lag_step_angstrom
        return np.asarray(np.interp(lag_angstrom, lags, self.visible, right=0.0))


@dataclass(frozen=True, slots=True)
class AxisWindows:
    """The windows along one axis: first pixels (n,) and values (n, length)."""

    starts: tuple[int, ...]
    values: Floats

    def centres(self, size: int) -> Floats:
        """Return where the windows' weight lies (n,), in parts of the axis from its middle: -1/2 to 1/2."""
        weight = self.values**2
        pixel = np.array(self.starts)[:, None] + np.arange(self.values.shape[1])
        return np.asarray((weight * pixel).sum(axis=1) / weight.sum(axis=1) / (size - 1) - 0.5)


def axis_windows(size: int, length: int) -> AxisWindows:
    """Return windows of a length, overlapping by half or more, along an axis of `size` px."""
    count = math.ceil((size - length) / (length / 2)) + 1
    starts = tuple(round(i * (size - length) / max(1, count - 1)) for i in range(count))
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(length) + 0.5) / length)
    values = np.tile(hann, (count, 1))
    values[0, : length // 2] = 1.0
    values[-1, length - length // 2 :] = 1.0
    values /= np.sqrt(np.stack([_cover(starts, values, size)[start : start + length] for start in starts]))
    rim = max(2, round(_RIM * length))
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(rim) + 0.5) / rim)
    values[0, :rim] *= rise
    values[-1, length - rim :] *= rise[::-1]
    return AxisWindows(starts, values)


def combined(axes: tuple[AxisWindows, AxisWindows], pixel_size_angstrom: float) -> Window:
    """Return what products of the windows of two axes do to a spectrum, averaged over directions."""
    visible = np.mean([_autocorrelation(axis.values) for axis in axes], axis=0)
    return Window(visible, pixel_size_angstrom, math.prod(_pixels_per_independent(axis) for axis in axes))


def single_hann(tile_angstrom: float) -> Window:
    """Return the window of one tile, or of tiles that do not overlap: Hann's along both axes."""
    u = np.linspace(0.0, 1.0, 129)
    visible = (1.0 - u) * (2.0 + np.cos(2.0 * np.pi * u)) / 3.0 + np.sin(2.0 * np.pi * u) / (2.0 * np.pi)
    return Window(np.maximum(visible, 0.0), tile_angstrom / 128.0, (35.0 / 18.0) ** 2)


def _cover(starts: tuple[int, ...], values: Floats, size: int) -> Floats:
    cover = np.zeros(size)
    for start, value in zip(starts, values, strict=True):
        cover[start : start + value.size] += value**2
    return cover


def _autocorrelation(values: Floats) -> Floats:
    """Return the mean autocorrelation (length,) of windows (n, length), 1 at lag 0."""
    length = values.shape[1]
    power = (np.abs(np.fft.rfft(values, 2 * length)) ** 2).sum(axis=0)
    correlation = np.fft.irfft(power)[:length]
    return np.asarray(np.maximum(correlation / correlation[0], 0.0))


def _pixels_per_independent(axis: AxisWindows) -> float:
    """Return the sum of the covariances of a pixel of the average with all others, over its variance.

    cov(k, k') is the sum over pairs of tiles of `|sum over x of w w' exp(2 pi i (k - k') x / length)|²`; by Parseval its sum
    over k' is `length x sum over x of (sum over tiles of w²)²`.
    """
    length = axis.values.shape[1]
    size = axis.starts[-1] + length
    placed = np.zeros((len(axis.starts), size))
    for row, start, value in zip(placed, axis.starts, axis.values, strict=True):
        row[start : start + length] = value
    gram = np.einsum("ax,bx->ab", placed, placed)
    return float(length * ((placed**2).sum(axis=0) ** 2).sum() / (gram**2).sum())
