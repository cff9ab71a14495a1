"""The attributes by which exposures are curated: what preprocessing found, each with a name, a unit and a way to read it.

The same table serves thresholds in the scheduler, the command line and the page; docs/curation.md lists it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.model.errors import ErrorKind, FrazilError

TIME_UNIT = "s since 1970"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One number of an exposure; `read` returns None where it is not known."""

    name: str
    title: str
    unit: str
    read: Callable[[Exposure], float | None]


def _field(name: str) -> Callable[[Exposure], float | None]:
    return partial(_of_result, name=name)


def _of_result(exposure: Exposure, name: str) -> float | None:
    result = exposure.result
    if result.DESCRIPTOR.fields_by_name[name].has_presence and not result.HasField(name):  # type: ignore[arg-type]
        return None
    return float(getattr(result, name))


def _mean_defocus(exposure: Exposure) -> float | None:
    return (exposure.result.defocus_u_angstrom + exposure.result.defocus_v_angstrom) / 2


def _astigmatism(exposure: Exposure) -> float | None:
    return abs(exposure.result.defocus_u_angstrom - exposure.result.defocus_v_angstrom)


def _by_picker(exposure: Exposure, picker: str, name: str) -> float | None:
    return _of_result(exposure, name) if exposure.result.picker == picker else None


def _stage_end(exposure: Exposure, stage: str) -> float | None:
    return exposure.result.stage_end_times.get(stage)


def _seconds(time: Timestamp) -> float | None:
    return time.seconds + time.nanos * 1e-9 if time.seconds else None


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("motion_total_angstrom", "Total motion", "Å", _field("motion_total_angstrom")),
    Attribute("motion_early_angstrom", "Early motion", "Å", _field("motion_early_angstrom")),
    Attribute("motion_frame_max_angstrom", "Greatest motion in one frame", "Å", _field("motion_frame_max_angstrom")),
    Attribute("motion_local_angstrom", "Local motion", "Å", _field("motion_local_angstrom")),
    Attribute("defocus_mean_angstrom", "Average defocus", "Å", _mean_defocus),
    Attribute("defocus_range_angstrom", "Defocus range", "Å", _field("defocus_range_angstrom")),
    Attribute("tilt_angle_degrees", "Tilt", "°", _field("tilt_angle_degrees")),
    Attribute("tilt_axis_degrees", "Tilt axis", "°", _field("tilt_axis_degrees")),
    Attribute("astigmatism_angstrom", "Astigmatism", "Å", _astigmatism),
    Attribute("astigmatism_angle_degrees", "Astigmatism angle", "°", _field("defocus_angle_degrees")),
    Attribute("phase_shift_degrees", "Phase shift", "°", _field("phase_shift_degrees")),
    Attribute("ctf_fit_resolution_angstrom", "CTF fit", "Å", _field("ctf_fit_resolution_angstrom")),
    Attribute("ctf_score", "CTF score", "", _field("ctf_score")),
    Attribute("ice_thickness_relative", "Relative ice thickness", "", _field("ice_thickness_relative")),
    Attribute("ice_ring", "Ice ring", "", _field("ice_ring")),
    Attribute("pick_count", "Picks", "", _field("pick_count")),
    Attribute("blob_pick_count", "Blob picks", "", partial(_by_picker, picker="blob", name="pick_count")),
    Attribute("template_pick_count", "Template picks", "", partial(_by_picker, picker="template", name="pick_count")),
    Attribute("pick_score_median", "Median pick score (NCC)", "", _field("pick_score_median")),
    Attribute("blob_pick_score_median", "Median blob score", "", partial(_by_picker, picker="blob", name="pick_score_median")),
    Attribute(
        "template_pick_score_median",
        "Median template score",
        "",
        partial(_by_picker, picker="template", name="pick_score_median"),
    ),
    Attribute("pick_power_median", "Median power score", "", _field("pick_power_median")),
    Attribute("particle_count", "Extracted particles", "", _field("particle_count")),
    Attribute("blob_particle_count", "Particles of blobs", "", partial(_by_picker, picker="blob", name="particle_count")),
    Attribute(
        "template_particle_count", "Particles of templates", "", partial(_by_picker, picker="template", name="particle_count")
    ),
    Attribute("found_time", "Found", TIME_UNIT, lambda exposure: _seconds(exposure.register_time)),
    Attribute("read_time", "Movie read", TIME_UNIT, partial(_stage_end, stage="read")),
    Attribute("motion_time", "Motion corrected", TIME_UNIT, partial(_stage_end, stage="motion")),
    Attribute("thumbnail_time", "Thumbnail made", TIME_UNIT, partial(_stage_end, stage="thumbnail")),
    Attribute("ctf_time", "CTF fitted", TIME_UNIT, partial(_stage_end, stage="ctf")),
    Attribute("pick_time", "Picked", TIME_UNIT, partial(_stage_end, stage="pick")),
    Attribute("extract_time", "Extracted", TIME_UNIT, partial(_stage_end, stage="extract")),
    Attribute("ready_time", "Ready", TIME_UNIT, lambda exposure: _seconds(exposure.finish_time)),
)

BY_NAME: Mapping[str, Attribute] = {attribute.name: attribute for attribute in ATTRIBUTES}


def find(name: str) -> Attribute:
    """Return an attribute; raises FrazilError ATTRIBUTE_UNKNOWN naming the known ones."""
    if name not in BY_NAME:
        known = ", ".join(BY_NAME)
        sentence = f"Exposures have no attribute {name!r}; known are {known}."
        raise FrazilError("ATTRIBUTE_UNKNOWN", sentence, kind=ErrorKind.INVALID)
    return BY_NAME[name]


def values(exposure: Exposure) -> dict[str, float | None]:
    """Return every attribute of an exposure by name; None where it has no result or the number is not known or not finite."""
    if not exposure.HasField("result"):
        return dict.fromkeys(BY_NAME)
    read = {attribute.name: attribute.read(exposure) for attribute in ATTRIBUTES}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in read.items()}
