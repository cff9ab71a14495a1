"""Single images that describe a camera, gain references and defect maps, from every kind of file they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.io import dm4
from frazil.io.movies import tiff
from frazil.io.movies._tiff_directory import read_pages
from frazil.io.movies._tiff_page import read_page
from frazil.io.mrc import read_mrc
from frazil.model.errors import InputError

TIFF_SUFFIXES = (".tif", ".tiff", ".gain")
SUFFIXES = (*TIFF_SUFFIXES, *dm4.SUFFIXES, ".mrc")


def read_camera_image(source: Path, what: str, *, from_top: bool = False) -> npt.NDArray[np.float32]:
    """Read the first image of a file, `(y, x)` float32, its rows in the order of the movies' rows.

    Parameters
    ----------
    source : MRC, TIFF (`.tif`, `.tiff`, `.gain`) or DigitalMicrograph (`.dm4`, `.dm3`), by its name; MRC when it has another.
    what : what to call it in a sentence.
    from_top : the movies' first row is the top one (EER): files that begin at the top are not turned.

    Raises
    ------
    InputError : there is no such file, or it holds no single image.
    """
    if not source.is_file():
        raise InputError("GAIN_MISSING", f"The {what} {source} does not exist.")
    suffix = source.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        image = _read_tiff(source)
    elif suffix in dm4.SUFFIXES:
        image = dm4.read_dm4(source)
    else:
        image, from_top = read_mrc(source)[0], True
    if image.ndim == 3 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 2:
        raise InputError("GAIN_UNREADABLE", f"The {what} {source.name} is not a single image.")
    return np.ascontiguousarray(image if from_top else image[::-1], dtype=np.float32)


def _read_tiff(source: Path) -> npt.NDArray[Any]:
    """Read the first page, its top row first, with the bounds that movies are read with."""
    from frazil.io.movies._tiff_pixels import iterate_pages

    tiff.read_info(source)
    return next(iterate_pages(source, read_pages(source, read_page).pages[:1], flip=False))


def shape_sentence(name: str, have: tuple[int, ...], want: tuple[int, int]) -> str:
    """Say how the shapes `(y, x)` of a camera's image and its movies differ, and what the likely cause is."""
    sentence = f"{name} is {have[1]:,} x {have[0]:,} px but the movies are {want[1]:,} x {want[0]:,} px"
    hints = {
        (2 * want[0], 2 * want[1]): "it was taken in super-resolution and the movies were not",
        (want[0] // 2, want[1] // 2): "the movies are in super-resolution and it is not",
        (want[1], want[0]): "rotate it by 90 degrees (gain rotation 1 or 3)",
    }
    return f"{sentence}: {hints.get((have[0], have[1]), 'it belongs to another camera or binning')}."
