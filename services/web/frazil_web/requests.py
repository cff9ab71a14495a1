"""Reads what the page sends: a new session, a request id. Every field that is wrong is named with what to do about it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from frazil.api.session.v1.session_pb2 import (
    AdviseComputeRequest,
    Alternation,
    AttributeThreshold,
    ComputeResources,
    Session,
    SessionParameters,
)
from frazil.model.errors import FrazilError
from frazil_web.records import enum_prefix

_FLOATS = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
_MOST_CHARACTERS = 4096
_MOST_LABELS = 100

# What no scheduler could accept; everything finer is the scheduler's to judge.
_POSITIVE = {
    "pixel_size_angstrom",
    "voltage_kv",
    "dose_per_frame_e_per_angstrom2",
    "particle_diameter_angstrom",
}
_NOT_NEGATIVE = {
    "spherical_aberration_mm",
    "amplitude_contrast",
    "particle_diameter_max_angstrom",
    "box_size_px",
    "output_box_px",
    "class_count",
    "class_max_resolution_angstrom",
    "class_batch_particles",
    "class_mask_diameter_angstrom",
    "preprocessing_workers",
    "priority",
    "auto_pause_idle_minutes",
    "update_interval_minutes",
    "turn_minutes_min",
}
_ABSOLUTE = {"movie_folder", "metadata_folder", "gain_path", "defects_path", "picker_templates_path", "initial_volume_path"}
_REASONS_OF_NAME = {"NAME_INVALID", "SESSION_EXISTS"}
_WORDS_OF_FIELD = {
    "The movie folder": "movie_folder",
    "The metadata folder": "metadata_folder",
    "The gain reference": "gain_path",
    "The defect file": "defects_path",
    "The file of templates": "picker_templates_path",
    "The initial volume": "initial_volume_path",
}
_CHOICES = {"gain_flip": ("", "none", "x", "y"), "until": ("", "preprocess", "class2d", "refine3d")}


def read_request_id(body: Any) -> str:
    """Return the request id of a body; raises FrazilError when it has none."""
    request_id = body.get("request_id") if isinstance(body, dict) else None
    if not isinstance(request_id, str) or not 8 <= len(request_id) <= 100:
        raise FrazilError("REQUEST_ID_MISSING", "Send a request_id of 8 to 100 characters, the same over retries.")
    return request_id


def read_session(body: Any) -> Session:
    """Return the session that a body describes: name, parameters, compute, labels.

    Raises FrazilError FIELDS_INVALID; its metadata maps each wrong field to one sentence.
    """
    if not isinstance(body, dict):
        raise FrazilError("BODY_INVALID", "Send a JSON object.")
    wrong: dict[str, str] = {}
    name = body.get("name")
    if not isinstance(name, str) or not name.strip():
        wrong["name"] = "Give the session a name."
        name = ""
    parameters, compute = _parameters_and_compute(body, wrong)
    if not parameters.movie_folder and "movie_folder" not in wrong:
        wrong["movie_folder"] = "Name the folder the movies arrive in."
    if not parameters.particle_diameter_angstrom and "particle_diameter_angstrom" not in wrong:
        wrong["particle_diameter_angstrom"] = "Give the diameter of the particle in Å."
    largest = parameters.particle_diameter_max_angstrom
    if largest and largest < parameters.particle_diameter_angstrom:
        wrong["particle_diameter_max_angstrom"] = "The largest diameter is smaller than the smallest."
    labels = _labels(body.get("labels") or {}, wrong)
    _refuse(wrong)
    return Session(name=name.strip(), parameters=parameters, compute=compute, labels=labels)


def read_compute(body: Any) -> ComputeResources:
    """Return the compute resources that a body describes; raises FrazilError FIELDS_INVALID."""
    wrong: dict[str, str] = {}
    _, compute = _parameters_and_compute(body, wrong)
    _refuse(wrong)
    return compute


def read_advice(body: Any) -> AdviseComputeRequest:
    """Return what to advise on: a session, or parameters and compute resources that are still being typed."""
    wrong: dict[str, str] = {}
    parameters, compute = _parameters_and_compute(body, wrong)
    _refuse(wrong)
    return AdviseComputeRequest(
        session=read_text(body, "session", optional=True),
        parameters=parameters if "parameters" in body else None,
        compute=compute if "compute" in body else None,
    )


def read_changes(body: Any, own: SessionParameters) -> SessionParameters:
    """Return a session's parameters with the changes that a body describes; null or an empty text unsets one.

    Raises FrazilError FIELDS_INVALID.
    """
    changes = body.get("parameters") if isinstance(body, dict) else None
    if not isinstance(changes, dict):
        raise FrazilError("BODY_INVALID", "Send the changed parameters as a JSON object.")
    changed = SessionParameters()
    changed.CopyFrom(own)
    for name in changes:
        if name in changed.DESCRIPTOR.fields_by_name:
            changed.ClearField(name)
    wrong: dict[str, str] = {}
    _fill(changed, changes, wrong)
    _refuse(wrong)
    return changed


def read_thresholds(body: Any) -> list[AttributeThreshold]:
    """Return the intervals that a body describes; raises FrazilError BODY_INVALID."""
    rows = body.get("thresholds") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FrazilError("BODY_INVALID", "Send thresholds as a list of objects.")
    found = []
    for row in rows:
        ends = {end: row[end] for end in ("minimum", "maximum") if row.get(end) is not None}
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in ends.values()):
            raise FrazilError("BODY_INVALID", "The ends of an interval are numbers.")
        found.append(AttributeThreshold(attribute=read_text(row, "attribute"), **ends))
    return found


def read_texts(body: Any, name: str, most: int) -> list[str]:
    """Return a list of texts of a body; raises FrazilError BODY_INVALID."""
    values = body.get(name) if isinstance(body, dict) else None
    if not isinstance(values, list) or len(values) > most or not all(isinstance(one, str) and one for one in values):
        raise FrazilError("BODY_INVALID", f"Send {name} as a list of at most {most:,} texts.")
    return values


def read_text(body: Any, name: str, *, optional: bool = False) -> str:
    """Return a text of a body; raises FrazilError when it is missing and needed, or no text."""
    value = body.get(name, "") if isinstance(body, dict) else None
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS or not (value or optional):
        raise FrazilError("BODY_INVALID", f"Send {name} as a text.")
    return value


def read_counts(body: Any, name: str) -> dict[str, int]:
    """Return a mapping from names to whole numbers; raises FrazilError when it is none."""
    values = body.get(name) if isinstance(body, dict) else None
    if not isinstance(values, dict) or not all(type(count) is int and 0 <= count < 1000 for count in values.values()):
        raise FrazilError("BODY_INVALID", f"Send {name} as an object of whole numbers.")
    return values


def _parameters_and_compute(body: Any, wrong: dict[str, str]) -> tuple[SessionParameters, ComputeResources]:
    if not isinstance(body, dict):
        raise FrazilError("BODY_INVALID", "Send a JSON object.")
    parameters, compute = SessionParameters(), ComputeResources()
    _fill(parameters, body.get("parameters") or {}, wrong)
    _fill(compute, body.get("compute") or {}, wrong)
    return parameters, compute


def _refuse(wrong: Mapping[str, str]) -> None:
    if wrong:
        raise FrazilError("FIELDS_INVALID", "Some fields need attention.", metadata=wrong)


def field_of(reason: str, sentence: str) -> str:
    """Return the field of a new session that the scheduler's refusal is about; empty when it names none."""
    if reason in _REASONS_OF_NAME:
        return "name"
    messages = (SessionParameters, ComputeResources, Alternation)
    fields = [name for message in messages for name in message.DESCRIPTOR.fields_by_name]
    named = re.search(rf"\b({'|'.join(fields)})\b", sentence)
    if named is not None:
        return named[1]
    return next((field for words, field in _WORDS_OF_FIELD.items() if sentence.startswith(words)), "")


def _fill(message: Message, values: Any, wrong: dict[str, str]) -> None:
    if not isinstance(values, dict):
        raise FrazilError("BODY_INVALID", "Send parameters and compute as JSON objects.")
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if name not in fields:
            wrong[str(name)[:100]] = "This field is not known."
        elif name == "alternation":
            _fill(getattr(message, name), value or {}, wrong)
        elif value is not None and value != "":
            sentence = _set(message, fields[name], value)
            if sentence:
                wrong[name] = sentence


def _set(message: Message, field: FieldDescriptor, value: Any) -> str:
    """Set a field, or say what is wrong with the value."""
    if field.is_repeated:
        if not isinstance(value, list) or not all(isinstance(one, str) and not _text_problem(field.name, one) for one in value):
            return "This is not a list of texts."
        getattr(message, field.name).extend(one.strip() for one in value)
        return ""
    if field.enum_type is not None:
        known = field.enum_type.values_by_name.get(f"{enum_prefix(field.enum_type)}{value}".upper())
        if known is None:
            return "This choice is not known."
        value = known.number
    elif field.type == FieldDescriptor.TYPE_BOOL:
        if not isinstance(value, bool):
            return "This is neither true nor false."
    elif sentence := _problem(field, value):
        return sentence
    setattr(message, field.name, value.strip() if isinstance(value, str) else value)
    return ""


def _problem(field: FieldDescriptor, value: Any) -> str:
    """Say what is wrong with a value; empty when nothing is."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text_problem(field.name, value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "This is not a number."
    if field.type not in _FLOATS and (int(value) != value or abs(value) >= 2**31):
        return "This must be a whole number."
    if field.type not in _FLOATS and not isinstance(value, int):
        return "This must be a whole number."
    if field.name in _POSITIVE and value <= 0:
        return "This must be greater than 0."
    if field.name in _NOT_NEGATIVE and value < 0:
        return "This cannot be negative."
    if field.name == "amplitude_contrast" and value >= 1:
        return "Amplitude contrast lies between 0 and 1; 0.1 is usual."
    if field.name == "gain_rotate" and value not in (0, 1, 2, 3):
        return "The rotation is 0, 1, 2 or 3 quarter turns."
    return ""


def _text_problem(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS or "\0" in value:
        return "This is not a usable text."
    if name in _ABSOLUTE and not value.strip().startswith("/"):
        return "Give an absolute path, as the machine that runs Frazil sees it."
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"Choose one of: {', '.join(choice for choice in _CHOICES[name] if choice)}."
    return ""


def _labels(values: Any, wrong: dict[str, str]) -> Mapping[str, str]:
    if not isinstance(values, dict) or len(values) > _MOST_LABELS:
        wrong["labels"] = f"Labels are at most {_MOST_LABELS} pairs of texts."
        return {}
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in values.items()):
        wrong["labels"] = "Labels are texts."
        return {}
    return values
