"""Fourier transforms of images, their frequencies, cropping, shifting and averages over shells.

Images are `(..., y, x)`; the transform is over the last two axes. A *half* transform is that of `rfft2`: x frequencies
from 0 to Nyquist. Signs and shells: docs/conventions.md.
"""

from __future__ import annotations

import math
from typing import Any

from frazil.array import Array, fft, is_numpy, namespace, thread_count
from frazil.kernels.shells import shell_sums

_AXES = (-2, -1)


def rfft2(image: Array) -> Array:
    """Transform real images `(..., y, x)` to half transforms `(..., y, x // 2 + 1)`; float32 gives complex64."""
    return fft(namespace(image)).rfftn(image, axes=_AXES, **_workers(image))


def irfft2(transform: Array, shape: tuple[int, int]) -> Array:
    """Transform half transforms back to real images `(..., y, x)` of the given `(y, x)` shape."""
    return fft(namespace(transform)).irfftn(transform, s=shape, axes=_AXES, **_workers(transform))


def fft2(image: Array) -> Array:
    """Transform real or complex images `(..., y, x)` to full transforms of the same shape."""
    xp = namespace(image)
    if xp.isdtype(image.dtype, "real floating"):
        image = xp.astype(image, xp.complex128 if image.dtype == xp.float64 else xp.complex64)
    return fft(xp).fftn(image, axes=_AXES, **_workers(image))


def ifft2(transform: Array) -> Array:
    """Transform full transforms back to complex images of the same shape."""
    return fft(namespace(transform)).ifftn(transform, axes=_AXES, **_workers(transform))


def friendly_size(size: int, *, at_most: bool = False) -> int:
    """Return the nearest even size that is a product of 2, 3, 5 and 7: the smallest >= `size`, or the largest <= it.

    Raises ValueError for a size below 2.
    """
    if size < 2:
        raise ValueError(f"a size of {size} px has no friendly even neighbour")
    size += -(size % 2) if at_most else size % 2
    while not _is_smooth(size):
        size += -2 if at_most else 2
    return size


def frequencies(shape: tuple[int, int], xp: Any, *, half: bool = True, dtype: Any = None) -> tuple[Array, Array]:
    """Return the frequencies of each axis in cycles per pixel, in FFT order.

    Parameters
    ----------
    shape: `(y, x)` of the real image.
    xp: the array module.
    half: x frequencies of the half transform (Nyquist positive), else of the full one.
    dtype: float32 unless told.

    Returns
    -------
    `ky (y, 1)` and `kx (1, x // 2 + 1)` or `(1, x)`.
    """
    dtype = dtype or xp.float32
    height, width = shape
    ky = xp.astype(_wrapped(height, xp), dtype) / height
    columns = xp.arange(width // 2 + 1) if half else _wrapped(width, xp)
    return xp.reshape(ky, (-1, 1)), xp.reshape(xp.astype(columns, dtype) / width, (1, -1))


def frequency_radius(shape: tuple[int, int], xp: Any, *, half: bool = True, dtype: Any = None) -> Array:
    """Return |k| in cycles per pixel of every coefficient, `(y, x // 2 + 1)` or `(y, x)`."""
    ky, kx = frequencies(shape, xp, half=half, dtype=dtype)
    return xp.sqrt(ky * ky + kx * kx)


def shell_indices(shape: tuple[int, int], xp: Any, *, half: bool = True) -> Array:
    """Return the shell of every coefficient: |k| times the shorter side, rounded; each axis normalised by its own length.

    Integer, `(y, x // 2 + 1)` or `(y, x)`. Shell `min(shape) // 2` is the Nyquist shell; corners lie beyond it.
    """
    radius = frequency_radius(shape, xp, half=half, dtype=xp.float64) * min(shape)
    return xp.astype(xp.round(radius), xp.int64)


def hermitian_weights(width: int, xp: Any, dtype: Any = None) -> Array:
    """Return how often a column of the half transform counts in the full one: 1 or 2, `(x // 2 + 1,)`.

    Parameters
    ----------
    width: x size of the real image; the columns of 0 and (even width) Nyquist count once.
    """
    columns = xp.arange(width // 2 + 1)
    single = (columns == 0) | (2 * columns == width)
    dtype = dtype or xp.float32
    return xp.where(single, xp.asarray(1.0, dtype=dtype), xp.asarray(2.0, dtype=dtype))


def radial_mean(power: Array, shape: tuple[int, int]) -> Array:
    """Average a real function of the transform over shells.

    Parameters
    ----------
    power: half `(y, x // 2 + 1)` or full `(y, x)` layout, FFT order, real.
    shape: `(y, x)` of the real image.

    Returns
    -------
    (min(shape) // 2 + 1,) float64: the mean of shells 0 to Nyquist; mates left out of a half transform are counted.
    """
    xp = namespace(power)
    half = power.shape[-1] != shape[1]
    shells = shell_indices(shape, xp, half=half)
    count = min(shape) // 2 + 1
    weights = hermitian_weights(shape[1], xp) if half else xp.ones(shape[1], dtype=xp.float32)
    weights = xp.broadcast_to(weights, power.shape)
    return shell_sums(power * xp.astype(weights, power.dtype), shells, count) / shell_sums(weights, shells, count)


def raised_cosine(values: Array, start: float, stop: float) -> Array:
    """Fall from 1 at `start` to 0 at `stop` along half a cosine; 1 before, 0 after.

    With `start > stop` it rises instead: 0 up to `stop`, 1 from `start` on. Equal ends give a step.
    """
    xp = namespace(values)
    if start == stop:
        return xp.astype(values <= start, values.dtype)
    position = xp.clip((values - start) / (stop - start), 0.0, 1.0)
    return 0.5 + 0.5 * xp.cos(math.pi * position)


def crop_transform(transform: Array, width: int, shape: tuple[int, int]) -> Array:
    """Keep the low frequencies of half transforms: those of an image with fewer pixels over the same extent.

    Nyquist lines of an axis that shrinks are set to 0: what arrives there is of two frequencies that cannot be told apart.
    Values are not rescaled (see `fourier_crop`).

    Parameters
    ----------
    transform: `(..., y, width // 2 + 1)`.
    width: x size of the real image of `transform`.
    shape: `(y, x)` of the image to keep; not larger than the present one on either axis.

    Returns
    -------
    `(..., shape[0], shape[1] // 2 + 1)`.
    """
    xp = namespace(transform)
    height, (new_height, new_width) = transform.shape[-2], shape
    if new_height > height or new_width > width:
        raise ValueError(f"cannot crop a transform of {height} x {width} px to {new_height} x {new_width} px")
    columns = transform[..., : new_width // 2 + 1]
    if new_width < width and new_width % 2 == 0:
        columns = xp.concat([columns[..., :-1], xp.zeros_like(columns[..., -1:])], axis=-1)
    if new_height == height:
        return columns
    positive = columns[..., : (new_height + 1) // 2, :]
    negative = columns[..., height - (new_height - 1) // 2 :, :] if new_height > 2 else columns[..., :0, :]
    nyquist = [xp.zeros_like(columns[..., :1, :])] if new_height % 2 == 0 else []
    return xp.concat([positive, *nyquist, negative], axis=-2)


def fourier_crop(image: Array, shape: tuple[int, int]) -> Array:
    """Resample images `(..., y, x)` to fewer pixels over the same extent, without aliasing; the mean is kept.

    Pixel 0 stays at pixel 0: `x_full = x_small * N_full / N_small`. Raises ValueError when `shape` is larger on an axis.
    """
    height, width = image.shape[-2:]
    if (height, width) == tuple(shape):
        return image
    scale = shape[0] * shape[1] / (height * width)
    return irfft2(crop_transform(rfft2(image), width, shape) * scale, shape)


def crop_axis(image: Array, size: int, axis: int) -> Array:
    """Resample real images along one axis, 0 or 1, as `fourier_crop` does along both: done in turn, the same result.

    Parameters
    ----------
    image: `(y, x)` real floating. size: px of that axis afterwards, no more than now.
    """
    old = int(image.shape[axis])
    transform = fft(namespace(image)).rfft(image, axis=axis, **_workers(image))
    kept = transform[: size // 2 + 1, :] if axis == 0 else transform[:, : size // 2 + 1]
    if size < old and size % 2 == 0:
        xp = namespace(image)
        inside = kept[:-1, :] if axis == 0 else kept[:, :-1]
        kept = xp.concat([inside, xp.zeros_like(kept[-1:, :] if axis == 0 else kept[:, -1:])], axis=axis)
    return fft(namespace(image)).irfft(kept * (size / old), n=size, axis=axis, **_workers(image))


def shift_phases(shape: tuple[int, int], shift_yx: tuple[float, float], xp: Any, dtype: Any = None) -> tuple[Array, Array]:
    """Return the factors that translate the content of a half transform by `(dy, dx)` px: `(y, 1)` and `(1, x // 2 + 1)`.

    Their product multiplies the transform; separate factors are cheaper. Nyquist lines of even axes get the cosine, the real
    part of the phase, which keeps the image real. Computed in float64, returned as `dtype`, complex64 unless told.
    """
    ky, kx = frequencies(shape, xp, dtype=xp.float64)
    factors = []
    for k, shift, size in ((ky, shift_yx[0], shape[0]), (kx, shift_yx[1], shape[1])):
        angle = -2.0 * math.pi * float(shift) * k
        sine = xp.where(xp.abs(k) * (2 * size) == size, xp.zeros_like(angle), xp.sin(angle))
        factors.append(xp.astype(xp.cos(angle) + 1j * sine, dtype or xp.complex64))
    return factors[0], factors[1]


def fourier_shift(image: Array, shift_yx: tuple[float, float]) -> Array:
    """Translate the content of real images `(..., y, x)` by `(dy, dx)` px, periodically; dtype in = dtype out."""
    xp = namespace(image)
    shape = (image.shape[-2], image.shape[-1])
    transform = rfft2(image)
    phase_y, phase_x = shift_phases(shape, shift_yx, xp, transform.dtype)
    return irfft2(transform * phase_y * phase_x, shape)


def _workers(array: Array) -> dict[str, int]:
    """Return the keyword that only scipy's transforms take."""
    return {"workers": thread_count()} if is_numpy(array) else {}


def _wrapped(size: int, xp: Any) -> Array:
    """Return integer frequencies in FFT order, Nyquist negative."""
    k = xp.arange(size)
    return xp.where(k < (size + 1) // 2, k, k - size)


def _is_smooth(size: int) -> bool:
    for factor in (2, 3, 5, 7):
        while size % factor == 0:
            size //= factor
    return size == 1
