"""Defect files: boxes, the lists of SerialEM and of Thermo Fisher's cameras, and maps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from defusedxml import DefusedXmlException

from frazil.io.camera_image import SUFFIXES, read_camera_image, shape_sentence
from frazil.io.movies import Rendering
from frazil.model.errors import InputError

_TEXT_MAX_BYTES = 16 * 2**20
_SERIALEM = re.compile(r"^\s*(CameraSize[XY]|BadPixels|Bad(Columns|Rows)|PartialBad(Column|Row)|UsableArea)\b", re.MULTILINE)

Box: TypeAlias = tuple[int, int, int, int]
"""x, y, width, height in px, from 0, the end exclusive."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """Boxes as a file lists them. `sensor`: (y, x) px that they are counted on; `from_top`: y is counted from the top."""

    boxes: list[Box]
    sensor: tuple[int, int]
    from_top: bool


def read_defects(path: Path | str, shape: tuple[int, int], *, rendering: Rendering | None = None) -> npt.NDArray[np.bool_]:
    """Read a defect map `(y, x)`: true where a pixel of the movie is bad.

    Parameters
    ----------
    path : one of
        boxes, one per line, `x y width height` in px, counted from 0 in MRC row order, the end exclusive (as MotionCor2 and
        RELION read them), `#` beginning a comment;
        SerialEM's list (`CameraSizeX`, `BadColumns`, `BadRows`, `BadPixels`, `PartialBadColumn`, `PartialBadRow`,
        `UsableArea`), whose rows count from the top; it may be that of the sensor when movies are in super-resolution;
        the XML of a Thermo Fisher camera (`<defects>` with `<row>`, `<col>`, `<area>`, `<point>`), rows from the top;
        an MRC, TIFF or DM4 image, in which values other than 0 mark bad pixels.
    shape : (y, x) of the movie's frames.
    rendering : how the movie's events are rendered (EER); None for movies that are stored as frames. Defects are those of the
        sensor, and the movie's first row is the top one.

    Raises
    ------
    InputError : the file cannot be read, a box lies outside the frame, or the sizes do not belong together.
    """
    source = Path(path)
    eer = rendering is not None
    sensor = shape if rendering is None else (shape[0] // rendering.upsampling, shape[1] // rendering.upsampling)
    if source.suffix.lower() in SUFFIXES:
        return _on_frame(read_camera_image(source, "defect map", from_top=eer) != 0, shape, source.name, exactly=not eer)
    text = _read_text(source)
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        listed = _camera_xml(text, source.name, sensor)
    elif _SERIALEM.search(text):
        listed = _serialem(text, source.name)
    else:
        listed = _Listed(list(_boxes(text, source.name, sensor)), sensor, from_top=False)
    bad = _on_frame(_fill(listed, source.name), shape, source.name, exactly=False)
    return np.ascontiguousarray(bad[::-1]) if listed.from_top and not eer else bad


def _fill(listed: _Listed, name: str) -> npt.NDArray[np.bool_]:
    """Mark the boxes on the sensor's pixels."""
    bad = np.zeros(listed.sensor, dtype=np.bool_)
    for x, y, width, height in listed.boxes:
        if x < 0 or y < 0 or x + width > bad.shape[1] or y + height > bad.shape[0]:
            raise InputError(
                "DEFECTS_OUTSIDE",
                f"A defect of {name} at x {x}, y {y} reaches beyond the frame of {bad.shape[1]:,} x {bad.shape[0]:,} px.",
            )
        bad[y : y + height, x : x + width] = True
    return bad


def _on_frame(bad: npt.NDArray[np.bool_], shape: tuple[int, int], name: str, *, exactly: bool) -> npt.NDArray[np.bool_]:
    """Bring a map of the sensor to the movie's pixels, which may be finer or, unless `exactly`, twice as coarse."""
    up = shape[0] // bad.shape[0]
    if bad.shape == shape:
        return np.ascontiguousarray(bad)
    if not exactly and up in (2, 4) and (bad.shape[0] * up, bad.shape[1] * up) == shape:
        return np.repeat(np.repeat(bad, up, axis=0), up, axis=1)
    if not exactly and bad.shape == (2 * shape[0], 2 * shape[1]):
        return np.asarray(bad.reshape(shape[0], 2, shape[1], 2).any(axis=(1, 3)))
    raise InputError("DEFECTS_SHAPE", shape_sentence(name, bad.shape, shape))


def _read_text(source: Path) -> str:
    try:
        if source.stat().st_size > _TEXT_MAX_BYTES:
            raise InputError("DEFECTS_UNREADABLE", f"The defect file {source.name} is too large to be a list.")
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("DEFECTS_UNREADABLE", f"The defect file {source.name} cannot be read: {error}.") from error


def _boxes(text: str, name: str, shape: tuple[int, int]) -> Iterator[Box]:
    """Yield the boxes of `x y width height` lines."""
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        x, y, width, height = _box(fields, number, name)
        if x < 0 or y < 0 or x + width > shape[1] or y + height > shape[0]:
            raise InputError(
                "DEFECTS_OUTSIDE",
                f"Line {number} of {name} reaches beyond the frame of {shape[1]:,} x {shape[0]:,} px.",
            )
        yield x, y, width, height


def _box(fields: list[str], number: int, name: str) -> Box:
    """Parse one box. Raises InputError when it is not four whole numbers."""
    if len(fields) != 4 or not all(field.lstrip("-").isdecimal() for field in fields):
        raise InputError("DEFECTS_SYNTAX", f"Line {number} of {name} is not a box `x y width height`.")
    x, y, width, height = map(int, fields)
    return x, y, width, height


def _serialem(text: str, name: str) -> _Listed:
    """Read SerialEM's list; keys that say nothing of where defects are, are passed over."""
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        key, *fields = line.split("#")[0].split() or [""]
        try:
            entries.append((key, [int(field) for field in fields]))
        except ValueError:
            if key.startswith(("Bad", "PartialBad", "CameraSize", "UsableArea")):
                raise InputError("DEFECTS_SYNTAX", f"Line {number} of {name} holds {line.strip()!r}: no numbers.") from None
    size = {key: values[0] for key, values in entries if key.startswith("CameraSize") and values}
    width, height = size.get("CameraSizeX", 0), size.get("CameraSizeY", 0)
    if not (0 < width <= 65_536 and 0 < height <= 65_536):
        raise InputError("DEFECTS_SYNTAX", f"{name} does not say the size of its camera (CameraSizeX, CameraSizeY).")
    boxes = [box for key, values in entries for box in _serialem_boxes(key, values, width, height)]
    return _Listed(boxes, (height, width), from_top=True)


def _serialem_boxes(key: str, values: list[int], width: int, height: int) -> Iterator[Box]:
    """Yield the boxes of one entry; ends of partial columns and rows are part of them."""
    if key == "BadColumns":
        yield from ((x, 0, 1, height) for x in values)
    elif key == "BadRows":
        yield from ((0, y, width, 1) for y in values)
    elif key == "BadPixels":
        yield from ((x, y, 1, 1) for x, y in zip(values[::2], values[1::2], strict=False))
    elif key == "PartialBadColumn" and len(values) == 4:
        x, wide, first, last = values
        yield x, first, wide, last - first + 1
    elif key == "PartialBadRow" and len(values) == 4:
        y, high, first, last = values
        yield first, y, last - first + 1, high
    elif key == "UsableArea" and len(values) == 4 and any(values):
        top, left, bottom, right = values
        yield from ((0, 0, width, top), (0, 0, left, height))
        if bottom > 0:
            yield 0, bottom + 1, width, height - bottom - 1
        if right > 0:
            yield right + 1, 0, width - right - 1, height


def _camera_xml(text: str, name: str, sensor: tuple[int, int]) -> _Listed:
    """Read `<defects>`: rows and columns as "4-7", areas as "x1,y1,x2,y2" with the ends part of them, points as "x,y"."""
    try:
        root: Any = defusedxml.ElementTree.fromstring(text)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise InputError("DEFECTS_SYNTAX", f"{name} is not readable XML: {error}.") from error
    boxes: list[Box] = []
    for element in root.iter():
        kind, numbers = str(element.tag).rpartition("}")[2], [int(n) for n in re.findall(r"\d{1,6}", element.text or "")]
        if kind == "row" and numbers:
            boxes.append((0, numbers[0], sensor[1], numbers[-1] - numbers[0] + 1))
        elif kind == "col" and numbers:
            boxes.append((numbers[0], 0, numbers[-1] - numbers[0] + 1, sensor[0]))
        elif kind == "area" and len(numbers) == 4:
            boxes.append((numbers[0], numbers[1], numbers[2] - numbers[0] + 1, numbers[3] - numbers[1] + 1))
        elif kind in ("point", "nonmaskingpoint") and len(numbers) == 2:
            boxes.append((numbers[0], numbers[1], 1, 1))
    if not boxes:
        raise InputError("DEFECTS_SYNTAX", f"{name} lists no defects.")
    return _Listed(boxes, sensor, from_top=True)
