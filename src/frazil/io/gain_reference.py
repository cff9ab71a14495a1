"""Gain references and defect maps: read, turned, checked against the movie (algorithms: gain and defects)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from frazil.io.movies import tiff
from frazil.io.movies._tiff_directory import read_pages
from frazil.io.movies._tiff_page import read_page
from frazil.io.movies._tiff_pixels import iterate_pages
from frazil.io.mrc import read_mrc
from frazil.model.errors import InputError

Flip = Literal["none", "x", "y"]
_TIFF_SUFFIXES = (".tif", ".tiff", ".gain")


def read_gain(
    path: Path | str, *, flip: Flip = "none", rotate: int = 0, expected_shape: tuple[int, int] | None = None
) -> npt.NDArray[np.float32]:
    """Read a multiplicative gain reference: corrected frame = raw frame x gain.

    Parameters
    ----------
    path : MRC, or TIFF (`.tif`, `.tiff`, `.gain`), whose rows are turned into MRC order as those of movies are.
    flip : after the rotation: "x" left to right, "y" upside down (RELION's FlipGain 2 and 1).
    rotate : times 90 degrees, clockwise when row 0 is drawn at the top, as relion_display does (RELION's RotGain).
    expected_shape : (y, x) of the movie's frames; None to accept any.

    Returns
    -------
    float32 `(y, x)` with median 1 over the good pixels; 0 marks a defect.

    Raises
    ------
    InputError : unreadable, not a number or negative somewhere, or of another shape than the movie.
    """
    source = Path(path)
    if flip not in ("none", "x", "y") or rotate not in (0, 1, 2, 3):
        raise InputError("GAIN_ORIENTATION", "A gain is flipped none, x or y and rotated 0, 1, 2 or 3 times.")
    gain = np.rot90(_read_image(source, "gain reference"), k=-rotate)
    gain = {"none": gain, "x": gain[:, ::-1], "y": gain[::-1]}[flip]
    if expected_shape is not None and gain.shape != expected_shape:
        raise InputError("GAIN_SHAPE", _shape_sentence(source.name, gain.shape, expected_shape))
    if not np.isfinite(gain).all():
        raise InputError("GAIN_NOT_FINITE", f"The gain reference {source.name} holds values that are not numbers.")
    if (gain < 0).any():
        raise InputError("GAIN_NEGATIVE", f"The gain reference {source.name} holds negative values: is it a dark image?")
    good = gain[gain > 0]
    if not good.size:
        raise InputError("GAIN_EMPTY", f"The gain reference {source.name} is zero everywhere.")
    return np.ascontiguousarray(gain / np.median(good), dtype=np.float32)


def read_defects(path: Path | str, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read a defect map: true where a pixel of the movie is bad.

    A text file has one box per line, `x y width height` in px, counted from 0 in MRC row order, the end exclusive (as
    MotionCor2 and RELION read it); `#` begins a comment. An MRC or TIFF image marks bad pixels by values other than 0.

    Raises InputError when the file cannot be read, a box lies outside the frame, or an image has another shape.
    """
    source = Path(path)
    if source.suffix.lower() in (*_TIFF_SUFFIXES, ".mrc"):
        image = _read_image(source, "defect map")
        if image.shape != shape:
            raise InputError("DEFECTS_SHAPE", _shape_sentence(source.name, image.shape, shape))
        return np.ascontiguousarray(image != 0)
    bad = np.zeros(shape, dtype=np.bool_)
    for number, line in enumerate(_read_text(source).splitlines(), start=1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        x, y, width, height = _box(fields, number, source.name)
        if x < 0 or y < 0 or x + width > shape[1] or y + height > shape[0]:
            raise InputError(
                "DEFECTS_OUTSIDE",
                f"Line {number} of {source.name} reaches beyond the frame of {shape[1]:,} x {shape[0]:,} px.",
            )
        bad[y : y + height, x : x + width] = True
    return bad


def _read_text(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("DEFECTS_UNREADABLE", f"The defect file {source.name} cannot be read: {error}.") from error


def _box(fields: list[str], number: int, name: str) -> tuple[int, int, int, int]:
    """Parse one box. Raises InputError when it is not four whole numbers."""
    if len(fields) != 4 or not all(field.lstrip("-").isdecimal() for field in fields):
        raise InputError("DEFECTS_SYNTAX", f"Line {number} of {name} is not a box `x y width height`.")
    x, y, width, height = map(int, fields)
    return x, y, width, height


def _read_image(source: Path, what: str) -> npt.NDArray[Any]:
    """Read one image in MRC row order, float32. Raises InputError when that is not possible."""
    if not source.is_file():
        raise InputError("GAIN_MISSING", f"The {what} {source} does not exist.")
    image = _read_tiff(source) if source.suffix.lower() in _TIFF_SUFFIXES else read_mrc(source)[0]
    if image.ndim == 3 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 2:
        raise InputError("GAIN_UNREADABLE", f"The {what} {source.name} is not a single image.")
    return image.astype(np.float32, copy=False)


def _read_tiff(source: Path) -> npt.NDArray[Any]:
    """Read the first page, rows in MRC order, with the bounds that movies are read with."""
    tiff.read_info(source)
    return next(iterate_pages(source, read_pages(source, read_page).pages[:1]))


def _shape_sentence(name: str, have: tuple[int, ...], want: tuple[int, int]) -> str:
    """Say how the shapes differ and what the likely cause is."""
    sentence = f"{name} is {have[1]:,} x {have[0]:,} px but the movies are {want[1]:,} x {want[0]:,} px"
    hints = {
        (2 * want[0], 2 * want[1]): "it was taken in super-resolution and the movies were not",
        (want[0] // 2, want[1] // 2): "the movies are in super-resolution and it is not",
        (want[1], want[0]): "rotate it by 90 degrees (gain rotation 1 or 3)",
    }
    return f"{sentence}: {hints.get((have[0], have[1]), 'it belongs to another camera or binning')}."
