"""Bad pixels take the value of a good neighbour: gather and scatter, which the array standard lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.array import Array, is_cupy, is_numpy, namespace, to_device

FIRST_REACH_PX = 2  # the window of (2 d + 1)^2 px that a neighbour is drawn from, doubled where it holds few good ones
_DRAWS_PER_REACH = 6


def draw_sources(
    bad_positions: np.ndarray[Any, Any], bad: np.ndarray[Any, Any], generator: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Draw for every bad pixel a good one nearby, at random.

    The window starts at `FIRST_REACH_PX` and doubles for pixels that found none in a few draws, as inside wide defects.

    Parameters
    ----------
    bad_positions: (bad pixel,) flat positions.
    bad: `(y, x)` bool, true where a pixel is bad; at least one pixel is good.
    generator: where the draws come from.

    Returns
    -------
    (bad pixel,) flat positions of good pixels.
    """
    height, width = bad.shape
    flat = bad.ravel()
    sources = bad_positions.copy()
    open_ = np.arange(len(bad_positions))
    reach = FIRST_REACH_PX
    while len(open_):
        y, x = np.divmod(bad_positions[open_], width)
        for _ in range(_DRAWS_PER_REACH):
            step = generator.integers(-reach, reach + 1, size=(2, len(open_)))
            candidate = np.clip(y + step[0], 0, height - 1) * width + np.clip(x + step[1], 0, width - 1)
            sources[open_] = candidate
            still = flat[candidate]
            open_, y, x = open_[still], y[still], x[still]
        reach = min(2 * reach, max(height, width))
    return sources


def copy_pixels(image: Array, targets: np.ndarray[Any, Any], sources: np.ndarray[Any, Any]) -> Array:
    """Give the pixels at flat positions `targets` the values at `sources`; numpy and cupy images are changed in place.

    Returns the image. Positions are host arrays; no target may be a source.
    """
    if is_numpy(image) or is_cupy(image):
        xp = namespace(image)
        flat = image.reshape(-1)
        flat[to_device(targets, xp)] = flat[to_device(sources, xp)]
        return flat.reshape(image.shape)
    return copy_pixels_standard(image, targets, sources)


def copy_pixels_standard(image: Array, targets: np.ndarray[Any, Any], sources: np.ndarray[Any, Any]) -> Array:
    """The twin of `copy_pixels` by one gather over the whole image."""
    xp = namespace(image)
    size = image.shape[0] * image.shape[1]
    origin = np.arange(size)
    origin[targets] = sources
    return xp.reshape(xp.take(xp.reshape(image, (-1,)), xp.asarray(origin)), image.shape)
