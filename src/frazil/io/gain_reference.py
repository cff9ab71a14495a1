"""Gain references: read, turned, brought to one sense and to the size of the movie's frames."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from frazil.io.camera_image import read_camera_image, shape_sentence
from frazil.io.movies import Rendering
from frazil.model.errors import InputError

Flip = Literal["none", "x", "y"]
Sense = Literal["", "multiply", "divide"]

Gain = npt.NDArray[np.float32]

_MEDIAN_FROM_ONE_MAX = 0.5


def read_gain(
    path: Path | str,
    *,
    flip: Flip = "none",
    rotate: int = 0,
    expected_shape: tuple[int, int] | None = None,
    sense: Sense = "",
    rendering: Rendering | None = None,
) -> Gain:
    """Read a gain reference as a multiplicative one: corrected frame = raw frame x gain.

    Parameters
    ----------
    path : MRC, TIFF (`.tif`, `.tiff`, `.gain`) or DM4. Rows of TIFF and DM4 files are turned as those of TIFF movies are.
    flip : after the rotation: "x" left to right, "y" upside down (RELION's FlipGain 2 and 1).
    rotate : times 90 degrees, clockwise when row 0 is drawn at the top, as relion_display does (RELION's RotGain).
    expected_shape : (y, x) of the movie's frames; None to accept any.
    sense : what the file's values are: factors ("multiply") or what the camera sees under even light ("divide"); empty: as
        RELION takes them, that is factors, but of EER movies only in `.gain` files.
    rendering : how the movie's events are rendered (EER); None for movies that are stored as frames. The gain of the sensor
        is then brought to the rendered grid, and no rows are turned.

    Returns
    -------
    float32 `(y, x)` with median 1 over the good pixels; 0 marks a defect.

    Raises
    ------
    InputError : unreadable, not a number or negative somewhere, of another shape than the movie, or its factors are far from
        1 and nobody said that they are factors.
    """
    source = Path(path)
    if flip not in ("none", "x", "y") or rotate not in (0, 1, 2, 3):
        raise InputError("GAIN_ORIENTATION", "A gain is flipped none, x or y and rotated 0, 1, 2 or 3 times.")
    image = read_camera_image(source, "gain reference", from_top=rendering is not None)
    gain = np.rot90(image, k=-rotate)
    gain = {"none": gain, "x": gain[:, ::-1], "y": gain[::-1]}[flip]
    if not np.isfinite(gain).all():
        raise InputError("GAIN_NOT_FINITE", f"The gain reference {source.name} holds values that are not numbers.")
    if (gain < 0).any():
        raise InputError("GAIN_NEGATIVE", f"The gain reference {source.name} holds negative values: is it a dark image?")
    if not (gain > 0).any():
        raise InputError("GAIN_EMPTY", f"The gain reference {source.name} is zero everywhere.")
    gain = _factors(gain, source, sense, eer=rendering is not None)
    if expected_shape is not None and rendering is not None:
        gain = _on_grid(gain, expected_shape)
    if expected_shape is not None and gain.shape != expected_shape:
        raise InputError("GAIN_SHAPE", shape_sentence(source.name, gain.shape, expected_shape))
    return np.ascontiguousarray(gain / np.median(gain[gain > 0]), dtype=np.float32)


def _factors(gain: Gain, source: Path, sense: Sense, *, eer: bool) -> Gain:
    """Return factors, 0 at defects, for values of either sense."""
    median = float(np.median(gain[gain > 0]))
    if sense == "divide" or (not sense and eer and source.suffix.lower() != ".gain"):
        return np.divide(np.float32(median), gain, out=np.zeros_like(gain), where=gain > 0)
    if not sense and abs(median - 1.0) > _MEDIAN_FROM_ONE_MAX:
        raise InputError(
            "GAIN_SENSE",
            f"The values of the gain reference {source.name} lie around {median:.4g}, where factors lie around 1: "
            "say whether it is to multiply or to divide (gain sense).",
        )
    return gain


def _on_grid(gain: Gain, shape: tuple[int, int]) -> Gain:
    """Repeat every pixel of a coarser gain, or average those of a finer one that are good, where the sizes are multiples.

    The mean where RELION adds up: it differs by a factor that the median takes out.
    """
    up = shape[0] // gain.shape[0]
    if up in (2, 4) and (gain.shape[0] * up, gain.shape[1] * up) == shape:
        return np.repeat(np.repeat(gain, up, axis=0), up, axis=1)
    down = gain.shape[0] // shape[0]
    if down not in (2, 4) or (shape[0] * down, shape[1] * down) != gain.shape:
        return gain
    blocks = gain.reshape(shape[0], down, shape[1], down)
    good = (blocks > 0).sum(axis=(1, 3), dtype=np.float32)
    mean = np.zeros(shape, np.float32)
    np.divide(blocks.sum(axis=(1, 3), dtype=np.float32), good, out=mean, where=good > 0)
    return mean
