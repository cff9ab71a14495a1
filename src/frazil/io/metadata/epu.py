"""EPU (Thermo Fisher): one XML beside each movie, root MicroscopeImage (or, in old versions, Acquisition)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree  # type: ignore[import-untyped]
from defusedxml import DefusedXmlException

from frazil.io.metadata._contract import COMPANION_MAX_BYTES, beside_or_above, count, number, path_part, positive
from frazil.model.optics import MovieMetadata

NAME = "EPU XML"

Element: TypeAlias = Any  # xml.etree.ElementTree.Element, built by defusedxml

_MOVIE_ENDING = re.compile(r"(?:_fractions|_eer)?\.[a-z]+$", re.IGNORECASE)
_GRID_SQUARE = re.compile(r"GridSquare_(\d+)")
_FOIL_HOLE = re.compile(r"FoilHole_(\d+)")
_PER_SQUARE_METRE = 1e-20  # e/m² -> e/Å²


def companion_names(movie_name: str) -> tuple[str, ...]:
    """`FoilHole_..._fractions.tiff` has `FoilHole_....xml`."""
    stem = _MOVIE_ENDING.sub("", movie_name)
    return (f"{stem}.xml",)


def parse(companion: Path, movie: Path) -> MovieMetadata:
    """Read EPU's XML; a broken one gives metadata that know only what the movie's path says."""
    parts = {"grid_square": path_part(_GRID_SQUARE, movie, companion), "foil_hole": path_part(_FOIL_HOLE, movie, companion)}
    place: dict[str, Any] = {field: value for field, (value, _) in parts.items()}
    named = [(field, source) for field, (value, source) in parts.items() if value is not None]
    try:
        if companion.stat().st_size > COMPANION_MAX_BYTES:
            raise ValueError("it is too large")
        root = defusedxml.ElementTree.fromstring(companion.read_bytes())
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        note = ("companion", f"{companion.name} is not readable XML: {error}")
        return MovieMetadata(**place, provenance=(note, *named))
    values = _values(root, movie)
    known = [(field, NAME) for field, value in values.items() if value is not None]
    return MovieMetadata(**values, **place, provenance=(("companion", companion.name), *known, *named))


def _values(root: Element, movie: Path) -> dict[str, Any]:
    """Collect the fields, each None where the XML does not say it."""
    custom = _custom_data(root)
    total_dose = positive(custom.get("Dose"), scale=_PER_SQUARE_METRE)
    camera = _find(root, "camera")
    frames = count(_text(camera, "NumberOffractions"))
    width, height = count(_text(camera, "ReadoutArea", "width")), count(_text(camera, "ReadoutArea", "height"))
    return {
        "pixel_size_angstrom": positive(_text(root, "pixelSize", "x", "numericValue"), scale=1e10),
        "voltage_kv": positive(_text(root, "AccelerationVoltage"), scale=1e-3),
        "dose_per_frame_e_per_angstrom2": total_dose / frames if total_dose and frames else None,
        "total_dose_e_per_angstrom2": total_dose,
        "frame_count": frames,
        "width_px": width,
        "height_px": height,
        "beam_shift_x": number(_text(root, "BeamShift", "_x")),
        "beam_shift_y": number(_text(root, "BeamShift", "_y")),
        "stage_x_um": number(_text(root, "stage", "Position", "X"), scale=1e6),
        "stage_y_um": number(_text(root, "stage", "Position", "Y"), scale=1e6),
        "acquired_at": _text(root, "acquisitionDateTime"),
        "gain_path": beside_or_above(movie, _gain_name(custom)),
    }


def _gain_name(custom: dict[str, str]) -> str | None:
    """Return the gain reference that a Falcon names, `Detectors[EF-Falcon].EerGainReference` or `.GainReference`."""
    for ending in ("].EerGainReference", "].GainReference"):
        for key, value in custom.items():
            if key.startswith("Detectors[") and key.endswith(ending):
                return value
    return None


def _custom_data(root: Element) -> dict[str, str]:
    """Return the key-value pairs of CustomData: `Dose`, `AppliedDefocus`, ..."""
    pairs = {}
    for element in root.iter():
        if _local(element) == "KeyValueOfstringanyType":
            key, value = _text(element, "Key"), _text(element, "Value")
            if key is not None and value is not None:
                pairs[key] = value
    return pairs


def _find(element: Element | None, name: str) -> Element | None:
    """Return the first descendant of that name in any namespace: EPU's versions differ in theirs."""
    if element is None:
        return None
    return next((found for found in element.iter() if _local(found) == name), None)


def _text(element: Element | None, *names: str) -> str | None:
    """Follow names downwards, each at any depth, and return the text found, or None."""
    for name in names:
        element = _find(element, name)
    text = element.text if element is not None else None
    return text.strip() if text else None


def _local(element: Element) -> str:
    """Return a tag without its namespace."""
    return str(element.tag).rpartition("}")[2]
