"""What a session's parameters mean for one movie: optics, gain, defects, picker, thresholds, box."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from frazil.algorithms import picking
from frazil.algorithms.ctf.fit import CtfSearch
from frazil.algorithms.detection.peaks import Limits
from frazil.algorithms.extraction import BoxAdvice, advise_box, check_box
from frazil.algorithms.picking import Picker
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.defect_map import read_defects
from frazil.io.gain_reference import Flip, Sense, read_gain
from frazil.io.movies import MovieInfo, Rendering
from frazil.io.templates import chosen_templates
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from frazil.rpc.convert import metadata_from_message, optics_of
from frazil_preprocess.reading import load_crop, optics_as_read

DEFAULT_PICKER = "blob"
_PICKER_PREFIX = "picker_"
_THRESHOLDS = ("score_min", "power_min", "power_max", "max_picks")  # every picker's; applied to what it has found


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the stages that start from a micrograph need to know; `optics` are the micrograph's."""

    optics: Optics
    ctf_search: CtfSearch
    picker_name: str
    picker: Picker
    picking: Any  # the parameters of this picker; None where nothing is picked anew
    limits: Limits  # thresholds on what it finds
    particle_diameter_angstrom: float  # the largest
    box: BoxAdvice
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieSettings(Settings):
    """Everything the pipeline needs to know about one movie besides its pixels.

    `info` and `gain` are of the movie as it is read; `optics` of it once each side is cropped by `load_crop`.
    """

    info: MovieInfo
    load_crop: int
    gain: npt.NDArray[np.float32] | None
    defects: npt.NDArray[np.bool_] | None


def settings_of(parameters: SessionParameters, exposure: Exposure, info: MovieInfo) -> MovieSettings:
    """Return the settings for an exposure whose movie is read as `info` says.

    Raises InputError: pixel size unknown, gain or defects unusable.
    """
    shape, crop = (info.height_px, info.width_px), load_crop(parameters, info)
    optics = optics_as_read(parameters, exposure, info)
    return MovieSettings(
        info=info,
        load_crop=crop,
        gain=_gain_of(parameters, exposure, shape, _grid(info)),
        defects=_defects(parameters.defects_path, shape, _grid(info)) if parameters.defects_path else None,
        **_later(parameters, exposure, optics, (shape[0] // crop, shape[1] // crop), picks=True),
    )


def stored_settings_of(parameters: SessionParameters, exposure: Exposure, *, picks: bool) -> Settings:
    """Return the settings for an exposure whose micrograph is there already; `picks` tells whether picking is done anew.

    Raises InputError: templates unusable, a box that does not fit.
    """
    result, metadata = exposure.result, metadata_from_message(exposure.metadata)
    said = SessionParameters()
    said.CopyFrom(parameters)
    said.pixel_size_angstrom = result.pixel_size_angstrom
    said.ClearField("total_dose_e_per_angstrom2")
    said.dose_per_frame_e_per_angstrom2 = result.dose_per_frame_e_per_angstrom2
    shape = (result.height_px, result.width_px)
    return Settings(**_later(parameters, exposure, optics_of(said, metadata), shape, picks=picks))


def _later(
    parameters: SessionParameters, exposure: Exposure, optics: Optics, shape: tuple[int, int], *, picks: bool
) -> dict[str, Any]:
    """Return the fields of `Settings` for a micrograph of `shape` `(y, x)`."""
    largest = parameters.particle_diameter_max_angstrom or parameters.particle_diameter_angstrom
    name = parameters.picker or DEFAULT_PICKER
    picker = picking.load(name)
    return {
        "optics": optics,
        "ctf_search": ctf_search_of(parameters),
        "picker_name": name,
        "picker": picker,
        "picking": picker.Parameters(**picker_options(parameters, picker)) if picks else None,
        "limits": limits_of(parameters),
        "particle_diameter_angstrom": largest,
        "box": _box(parameters, largest, optics, shape),
        "seed": _seed(parameters.seed, exposure),
    }


def limits_of(parameters: SessionParameters) -> Limits:
    """Return a session's thresholds on picks."""
    said = {field.name: value for field, value in parameters.ListFields()}
    return Limits(**{name: said[_PICKER_PREFIX + name] for name in _THRESHOLDS if _PICKER_PREFIX + name in said})


def ctf_search_of(parameters: SessionParameters) -> CtfSearch:
    """Return what the CTF fit searches for; raises InputError for a range of phase shifts that cannot be."""
    low = parameters.phase_shift_min_degrees
    high = parameters.phase_shift_max_degrees if parameters.HasField("phase_shift_max_degrees") else low
    return CtfSearch(phase_shift_min_degrees=low, phase_shift_max_degrees=high)


def picker_options(parameters: SessionParameters, picker: Picker) -> dict[str, Any]:
    """Return what a session says to a picker: its fields `picker_…`, where set, under the names of the picker's parameters.

    Raises InputError for an option that this picker has not, and when it needs templates that are not given.
    """
    known = {field.name for field in dataclasses.fields(picker.Parameters)}
    smallest = parameters.particle_diameter_angstrom
    options: dict[str, Any] = {
        "diameter_min_angstrom": smallest,
        "diameter_max_angstrom": parameters.particle_diameter_max_angstrom or smallest,
    }
    for field, value in parameters.ListFields():
        name = field.name.removeprefix(_PICKER_PREFIX)
        if name in (field.name, "template_numbers", *_THRESHOLDS):  # numbers are read with the templates
            continue
        if name == "templates_path":
            name, value = "templates", chosen_templates(value, parameters.picker_template_numbers)
        if name not in known:
            raise InputError("PICKER_OPTION", f"The picker {picker.TITLE!r} has no option {field.name}: leave it away.")
        options[name] = tuple(value) if field.is_repeated else value
    if "templates" in known and "templates" not in options:
        raise InputError(
            "TEMPLATES_MISSING",
            f"The picker {picker.TITLE!r} needs templates: give class averages (.mrcs, .star) or a volume (.mrc).",
        )
    return options


def _seed(seed: int, exposure: Exposure) -> int:
    """Each movie draws numbers of its own, the same in every session with the same seed."""
    text = f"{seed}:{exposure.file.relative_path}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "little")


def _existing(path: str | None) -> str:
    """A gain that only the metadata name is used when it can be reached; camera computers often name a drive of their own."""
    return path if path and Path(path).is_file() else ""


def _box(parameters: SessionParameters, diameter_angstrom: float, optics: Optics, shape: tuple[int, int]) -> BoxAdvice:
    advice = advise_box(diameter_angstrom, optics.pixel_size_angstrom)
    output = parameters.output_box_px or parameters.box_size_px or advice.output_box_px
    box = BoxAdvice(box_size_px=parameters.box_size_px or max(advice.box_size_px, output), output_box_px=output)
    check_box(box, diameter_angstrom / optics.pixel_size_angstrom, shape)
    return box


def _grid(info: MovieInfo) -> Rendering | None:
    """Return the rendering as far as it matters for the camera: raw frames, whose number varies, would make no other gain."""
    return None if info.rendering is None else Rendering(upsampling=info.rendering.upsampling)


def _gain_of(
    parameters: SessionParameters, exposure: Exposure, shape: tuple[int, int], rendering: Rendering | None
) -> npt.NDArray[np.float32] | None:
    path = parameters.gain_path or _existing(exposure.metadata.gain_path)
    if not path:
        return None
    return _gain(path, parameters.gain_flip or "none", parameters.gain_rotate, parameters.gain_sense, shape, rendering)


@lru_cache(maxsize=2)
def _gain(
    path: str, flip: str, rotate: int, sense: str, shape: tuple[int, int], rendering: Rendering | None
) -> npt.NDArray[np.float32]:
    return read_gain(
        path,
        flip=cast(Flip, flip),
        rotate=rotate,
        expected_shape=shape,
        sense=cast(Sense, sense),
        rendering=rendering,
    )


@lru_cache(maxsize=2)
def _defects(path: str, shape: tuple[int, int], rendering: Rendering | None) -> npt.NDArray[Any]:
    return read_defects(path, shape, rendering=rendering)
