"""A session's records as a table and as JSON: what `exposures.csv` and `session.json` hold."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from frazil import __version__
from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult, MovieFile, MovieMetadata
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages, Volume
from frazil.api.session.v1.session_pb2 import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """A session's records at one moment, as the scheduler tells them."""

    session: Session
    exposures: Sequence[Exposure]  # by number
    classes: ClassAverages | None = None
    refined: Volume | None = None
    ab_initio: Volume | None = None
    devices: Sequence[str] = ()


def exposures_csv(names: Sequence[str], exposures: Sequence[Exposure]) -> str:
    """Return the table of every exposure seen: file, stage, every attribute, verdict and why."""
    attributes = {
        "file": [column for column in _scalar_names(MovieFile) if column != "relative_path"],
        "metadata": _scalar_names(MovieMetadata),
        "result": _scalar_names(ExposureResult),
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["number", "file", "name", "stage", "verdict", "reason", "attempts", "exposure_id"]
    columns = [f"{part}_{name}" if part != "result" else name for part, fields in attributes.items() for name in fields]
    writer.writerow([*head, *columns, "warnings"])
    for name, exposure in zip(names, exposures, strict=True):
        stage = Exposure.State.Name(exposure.state).removeprefix("STATE_").lower()
        verdict = {"done": "rejected" if exposure.rejected else "accepted", "quarantined": "failed"}.get(stage, "waiting")
        reason = exposure.failure or exposure.rejected
        values: list[Any] = [exposure.number, exposure.file.relative_path, name, stage, verdict, reason]
        values += [exposure.attempts, exposure.exposure_id]
        for part, fields in attributes.items():
            message = getattr(exposure, part)
            known = exposure.HasField(part)  # type: ignore[arg-type]
            values += [_cell(message, column) if known else "" for column in fields]
        writer.writerow([*values, " | ".join(exposure.result.warnings)])
    return text.getvalue()


def session_record(snapshot: SessionSnapshot) -> dict[str, Any]:
    """Return what `session.json` holds: parameters, versions, counts, seconds per stage, devices."""
    session = snapshot.session
    return {
        "name": session.name,
        "session_id": session.session_id,
        "state": Session.State.Name(session.state).removeprefix("STATE_").lower(),
        "state_reason": session.state_reason,
        "labels": dict(session.labels),
        "parameters": plain(session.parameters),
        "compute": plain(session.compute),
        "counts": plain(session.counts),
        "versions": {"frazil": __version__, "python": platform.python_version(), "numpy": version("numpy")},
        "devices": list(snapshot.devices),
        "stage_seconds": stage_seconds(snapshot.exposures),
        "failures": {one.file.relative_path: one.failure for one in snapshot.exposures if one.failure},
        "classes": None if snapshot.classes is None else plain(snapshot.classes),
        "refined": None if snapshot.refined is None else plain(snapshot.refined),
        "ab_initio": None if snapshot.ab_initio is None else plain(snapshot.ab_initio),
    }


def stage_seconds(exposures: Sequence[Exposure]) -> dict[str, dict[str, float]]:
    """Return per stage the total and the median seconds over all results."""
    collected: dict[str, list[float]] = {}
    for exposure in exposures:
        for stage, seconds in exposure.result.stage_seconds.items():
            collected.setdefault(stage, []).append(seconds)
    return {
        stage: {"total": round(sum(values), 3), "median": round(median(values), 4)}
        for stage, values in sorted(collected.items())
    }


def _scalar_names(message: type[Message]) -> list[str]:
    """Return the names of a message's fields that fit in one cell."""
    return [one.name for one in message.DESCRIPTOR.fields if one.message_type is None and not one.is_repeated]


def _cell(message: Message, name: str) -> Any:
    """Return a field's value; empty for one that is not set."""
    descriptor: Mapping[str, Any] = message.DESCRIPTOR.fields_by_name
    if descriptor[name].has_presence and not message.HasField(name):
        return ""
    return getattr(message, name)


def plain(message: Message) -> dict[str, Any]:
    """Return a message as plain values under its own field names: states as lower-case words, times as text.

    Fields that may be unset are left out when they are; unlike protobuf's JSON, 64-bit numbers stay numbers.
    """
    record: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            record[field.name] = {key: value[key] for key in sorted(value)}
        elif field.is_repeated:
            record[field.name] = [_plain_value(field, one) for one in value]
        else:
            record[field.name] = _plain_value(field, value)
    return record


def _plain_value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[value].name
        return name.rpartition("STATE_")[2].rpartition("KIND_")[2].lower()
    return value
