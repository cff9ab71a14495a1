"""SerialEM: an autodoc file (`.mdoc`) beside each movie, its sections `[FrameSet = n]` or `[ZValue = n]`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from frazil.io.metadata._contract import COMPANION_MAX_BYTES, beside_or_above, count, number, positive
from frazil.model.optics import MovieMetadata

NAME = "SerialEM mdoc"


def companion_names(movie_name: str) -> tuple[str, ...]:
    """`stack.tif` has `stack.tif.mdoc`; some scripts write `stack.mdoc`."""
    return f"{movie_name}.mdoc", f"{Path(movie_name).stem}.mdoc"


def parse(companion: Path, movie: Path) -> MovieMetadata:
    """Read an mdoc; one without any known key gives metadata that know nothing, with a note."""
    if companion.stat().st_size > COMPANION_MAX_BYTES:
        return MovieMetadata(provenance=(("companion", f"{companion.name} is too large to be an mdoc file"),))
    keys = parse_autodoc(companion.read_bytes().decode("utf-8", errors="replace"))
    values = _values(keys, movie)
    known = [(field, NAME) for field, value in values.items() if value is not None]
    note = companion.name if known else f"{companion.name} says nothing that is known"
    return MovieMetadata(**values, provenance=(("companion", note), *known))


def parse_autodoc(text: str) -> dict[str, str]:
    """Return the global keys, overlaid by those of the first section: a movie's mdoc has one frame set."""
    keys: dict[str, str] = {}
    sections = 0
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            sections += stripped.startswith(("[FrameSet", "[ZValue", "[Image"))
            if sections > 1:
                break
            continue
        key, equals, value = stripped.partition("=")
        if equals and not stripped.startswith("#"):
            keys[key.strip()] = value.strip()
    return keys


def _values(keys: dict[str, str], movie: Path) -> dict[str, Any]:
    """Collect the fields, each None where the mdoc does not say it."""
    frames = count(keys.get("NumSubFrames"))
    total_dose = positive(keys.get("ExposureDose"))
    per_frame, dosed_frames = _frame_doses(keys.get("FrameDosesAndNumber"))
    frames = frames or dosed_frames
    if per_frame is None and total_dose is not None and frames:
        per_frame = total_dose / frames
    size, stage, shift = (_pair(keys.get(name)) for name in ("ImageSize", "StagePosition", "ImageShift"))
    return {
        "pixel_size_angstrom": positive(keys.get("PixelSpacing")),
        "voltage_kv": positive(keys.get("Voltage")),
        "dose_per_frame_e_per_angstrom2": per_frame,
        "total_dose_e_per_angstrom2": total_dose,
        "frame_count": frames,
        "width_px": count(size[0]),
        "height_px": count(size[1]),
        "beam_shift_x": number(shift[0]),
        "beam_shift_y": number(shift[1]),
        "stage_x_um": number(stage[0]),
        "stage_y_um": number(stage[1]),
        "acquired_at": keys.get("DateTime"),
        "gain_path": beside_or_above(movie, keys.get("GainReference")),
        **_place(keys),
    }


def _place(keys: dict[str, str]) -> dict[str, str | None]:
    """Return grid square and hole: the navigator's label "7-12" is point 12 of map 7; a shot at several holes counts them."""
    label = keys.get("NavigatorLabel") or None
    square = re.match(r"(\d+)-\d+", label or "")
    hole = (keys.get("MultishotHoleAndPosition") or "").split()
    return {
        "grid_square": square.group(1) if square else None,
        "foil_hole": f"{label}/{hole[0]}" if label and hole else label,
    }


def _pair(text: str | None) -> tuple[str | None, str | None]:
    """Split "a b" into its first two values."""
    parts = (text or "").split()
    return (parts[0], parts[1]) if len(parts) >= 2 else (None, None)


def _frame_doses(text: str | None) -> tuple[float | None, int | None]:
    """Read `FrameDosesAndNumber = dose frames [dose frames ...]`: dose per frame where all frames have one, and frames."""
    parts = (text or "").split()
    doses = {positive(dose) for dose in parts[0::2]}
    numbers = [count(frames) for frames in parts[1::2]]
    if not parts or len(parts) % 2 or None in doses or None in numbers:
        return None, None
    return (doses.pop() if len(doses) == 1 else None), sum(n for n in numbers if n is not None)
