"""Matching of templates with an image: local normalised cross-correlation by FFT.

An image is padded by reflection, transformed once, and then compared with any number of templates. A template is an image of
the padded shape, centred at pixel (0, 0): a function of the matcher's `radius`, or of its `y` and `x`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.array import Array, namespace, to_device, to_host
from frazil.primitives.fourier import frequency_radius, friendly_size, irfft2, rfft2

HostFloats = npt.NDArray[np.float32]


class Matcher:
    """An image ready to be matched with templates.

    Attributes
    ----------
    shape: `(y, x)` of the image.
    y, x: `(y, 1)` and `(1, x)` of the padded image, host: position with respect to pixel (0, 0) around the edges, px.
    radius: `(y, x)` of the padded image, host: distance from pixel (0, 0), px.
    """

    def __init__(self, image: Array, margin_px: int) -> None:
        """Pad and transform an image `(y, x)`; templates may reach `margin_px` from their centre."""
        xp = namespace(image)
        self._xp: Any = xp
        self.shape = (image.shape[0], image.shape[1])
        self.margin = min(margin_px, min(self.shape) - 1)
        size = (friendly_size(self.shape[0] + 2 * self.margin), friendly_size(self.shape[1] + 2 * self.margin))
        self.padded = _reflected(image, self.margin, size)
        self.transform = rfft2(self.padded)
        self._squares = rfft2(self.padded * self.padded)
        y, x = (np.fft.fftfreq(n, 1.0 / n).astype(np.float32) for n in size)
        self.y: HostFloats = y[:, None]
        self.x: HostFloats = x[None, :]
        self.radius: HostFloats = np.hypot(self.y, self.x)

    def high_passed(self, template: HostFloats, sigma_px: float) -> HostFloats:
        """Return a template `(y, x)` of the padded image less its Gaussian blur."""
        shape = (template.shape[0], template.shape[1])
        return np.asarray(irfft2(rfft2(template) * gaussian_high_pass(shape, sigma_px, np), shape))

    def correlate(self, template: HostFloats) -> Array:
        """Return the correlation `(y, x)` of the image with a template."""
        return self._filtered(self.transform, template)

    def correlate_transform(self, transform: Array, template: HostFloats) -> Array:
        """Return the correlation `(y, x)` of another padded image, given by its half transform, with a template."""
        return self._filtered(transform, template)

    def local_deviation(self, window: HostFloats) -> Array:
        """Return the root of the summed squared deviation from the local mean in a window, `(y, x)`."""
        total = self._filtered(self.transform, window)
        squares = self._filtered(self._squares, window)
        return self._xp.sqrt(self._xp.clip(squares - total * total / float(window.sum()), 0.0, None))

    def ncc(self, template: HostFloats, window: HostFloats) -> Array:
        """Return the normalised cross-correlation `(y, x)` in [-1, 1] with a template.

        Where the image varies less than it does in the median, it is divided by the median: quiet places are not amplified.

        Parameters
        ----------
        template: 0 outside the window; its mean over the window is subtracted.
        window: weights between 0 and 1.
        """
        xp = self._xp
        centred = self.centred(template, window)
        # |sum T I| <= |T / sqrt(W)| |sqrt(W) (I - mean)|, which bounds the ratio for soft windows too.
        norm = float(np.sqrt((np.where(window > 0, centred, 0.0) ** 2 / np.maximum(window, 1e-6)).sum()))
        deviation = self.local_deviation(window)
        floor = max(float(np.median(to_host(deviation))), 1e-20)
        return xp.clip(self.correlate(centred) / (xp.clip(deviation, floor, None) * max(norm, 1e-20)), -1.0, 1.0)

    @staticmethod
    def centred(template: HostFloats, window: HostFloats) -> HostFloats:
        """Return a template less its mean over the window, cut to the window."""
        return np.asarray((template - (template * window).sum() / window.sum()) * window)

    def placed(self, image: HostFloats) -> HostFloats:
        """Return a small image, centred at its pixel N // 2, as a template."""
        template = np.zeros(self.radius.shape, np.float32)
        rows, columns = (np.arange(n) - n // 2 for n in image.shape)
        template[rows[:, None], columns[None, :]] = image
        return template

    def patches(self, points: npt.NDArray[np.int64], reach_px: int) -> Array:
        """Return the squares (n, 2 reach + 1, 2 reach + 1) around pixels `(y, x)`; the reach may not exceed the margin."""
        side = 2 * reach_px + 1
        corners = points + (self.margin - reach_px)
        return self._xp.stack([self.padded[y : y + side, x : x + side] for y, x in corners.tolist()])

    def filtered(self, response: Array) -> Array:
        """Return the image `(y, x)` after a filter given by its response in the half layout of the padded image."""
        return self._unpadded(self.transform * response)

    def _filtered(self, transform: Array, template: HostFloats) -> Array:
        return self._unpadded(transform * self._xp.conj(rfft2(to_device(template, self._xp))))

    def _unpadded(self, transform: Array) -> Array:
        full = irfft2(transform, (self.padded.shape[0], self.padded.shape[1]))
        return full[self.margin : self.margin + self.shape[0], self.margin : self.margin + self.shape[1]]


def gaussian_high_pass(shape: tuple[int, int], sigma_px: float, xp: Any) -> Array:
    """Return the filter, in the half layout, that subtracts a Gaussian blur of a standard deviation in px."""
    k = frequency_radius(shape, xp)
    return 1.0 - xp.exp(-2.0 * (math.pi * sigma_px) ** 2 * k * k)


def _reflected(image: Array, margin: int, size: tuple[int, int]) -> Array:
    """Pad by reflection, `margin` before and up to `size` in all."""
    xp = namespace(image)
    for axis in (0, 1):
        n = image.shape[axis]
        place = np.abs(np.arange(-margin, size[axis] - margin)) % (2 * n - 2)
        image = xp.take(image, xp.asarray(np.minimum(place, 2 * n - 2 - place)), axis=axis)
    return image
