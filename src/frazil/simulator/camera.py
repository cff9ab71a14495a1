"""The counting camera: gain, dead and hot pixels, and Poisson counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from frazil.simulator.parameters import SimulationParameters

_BLOCK = 16_384  # pixels worked on at a time: they stay in the cache
_HOT_COUNTS = 40.0
_COUNTS_MAX = 200
_ROUNDING = np.float32(1e-6)  # the float32 terms add up to 1 only so well; without it a few counts would never end


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera: corrected frame = raw frame x `gain`; gain is 0 on dead pixels. Hot pixels are not in the gain."""

    gain: npt.NDArray[np.float32]  # (y, x)
    sensitivity: npt.NDArray[np.float32]  # (y, x): 1 / gain, 0 where nothing is counted
    hot_index: npt.NDArray[np.int64]  # flat indices
    defect_boxes: tuple[tuple[int, int, int, int], ...]  # x, y, width, height

    def expose(self, expected: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Return counts `(y, x)` uint8 for the electrons expected in each pixel of one frame."""
        counts = poisson((expected * self.sensitivity).reshape(-1), rng)
        counts[self.hot_index] = np.minimum(rng.poisson(_HOT_COUNTS, len(self.hot_index)), 255)
        return counts.reshape(expected.shape)


def draw_camera(parameters: SimulationParameters, rng: np.random.Generator) -> Camera:
    """Draw the camera of a session: pixel gains, a slow variation, column stripes, dead and hot pixels, defect columns."""
    shape = (parameters.height_px, parameters.width_px)
    slow = scipy.ndimage.zoom(rng.normal(0.0, 0.02, (4, 5)), (shape[0] / 4, shape[1] / 5), order=3)[: shape[0], : shape[1]]
    stripes = rng.normal(0.0, 0.01, (1, shape[1]))
    gain = np.exp(rng.normal(0.0, parameters.gain_spread, shape) + slow + stripes).astype(np.float32)
    special = rng.choice(gain.size, parameters.dead_pixel_count + parameters.hot_pixel_count, replace=False)
    gain.reshape(-1)[special[: parameters.dead_pixel_count]] = 0.0
    columns = rng.choice(shape[1] - 8, parameters.defect_column_count, replace=False) + 4
    boxes = tuple((int(x), 0, 1, shape[0]) for x in sorted(columns))
    gain /= np.median(gain[gain > 0])
    sensitivity = np.divide(1.0, gain, out=np.zeros_like(gain), where=gain > 0)
    for x, _, _, _ in boxes:
        sensitivity[:, x] = 0.0
    return Camera(gain, sensitivity, np.sort(special[parameters.dead_pixel_count :]), boxes)


def poisson(expected: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw Poisson counts `(n,)` uint8 for float32 means `(n,)`, by inverting the distribution step by step.

    A few times faster than numpy's for means of a few counts, because whole blocks advance together. Means above about
    80 would underflow and are not meant for it: counts end at 200.
    """
    counts = np.empty(expected.size, dtype=np.uint8)
    for start in range(0, expected.size, _BLOCK):
        counts[start : start + _BLOCK] = _poisson_block(expected[start : start + _BLOCK], rng)
    return counts


def _poisson_block(mean: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    left = rng.random(mean.shape, dtype=np.float32)  # what of the drawn probability is not yet used up
    term = np.exp(-mean)
    counts = np.zeros(mean.shape, dtype=np.uint8)
    above: npt.NDArray[Any] = np.empty(mean.shape, dtype=np.bool_)
    left -= term
    for k in range(1, _COUNTS_MAX):
        np.greater(left, _ROUNDING, out=above)
        if k > 4 and not above.any():
            break
        counts += above
        term *= mean
        term *= np.float32(1.0 / k)
        left -= term
    return counts
