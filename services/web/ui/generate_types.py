"""Writes src/records.ts: the API's records as TypeScript. Run it with Frazil's Python when the protos change."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from frazil.api.event.v1.event_pb2 import Notice
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages, Volume
from frazil.api.scheduler.v1.scheduler_pb2 import ExplainWaitResponse, Job, Lane, Node
from frazil.api.session.v1.session_pb2 import ComputeAdvice, Profile, Session
from frazil_web.records import EXPOSURE_COLUMNS, enum_name

ROOTS = (Session, ComputeAdvice, Profile, Exposure, ClassAverages, Volume, Node, Lane, Job, ExplainWaitResponse, Notice)
TARGET = Path(__file__).parent / "src" / "records.ts"
_TIMESTAMP = "google.protobuf.Timestamp"
_TEXTS = {FieldDescriptor.TYPE_STRING}
_FLOATS = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
_SUMMARY_OF_ITS_OWN = {
    "relative_path": "string",
    "version": "string",
    "warning_count": "number | null",
    "attributes": "readonly (number | null)[] | null",
}


def typescript() -> str:
    """Return the whole file."""
    found: dict[str, Descriptor] = {}
    for root in ROOTS:
        _collect(root.DESCRIPTOR, found)
    parts = [
        "// Made by generate_types.py from protos/; never edited. Times are seconds since 1970; null: not set, or no number."
    ]
    parts += [_interface(name, found[name]) for name in sorted(found)]
    parts.append(_summary())
    return "\n\n".join(parts) + "\n"


def _collect(message: Descriptor, found: dict[str, Descriptor]) -> None:
    if message.name in found or message.full_name == _TIMESTAMP:
        return
    if not message.GetOptions().map_entry:
        found[message.name] = message
    for field in message.fields:
        if field.message_type is not None:
            _collect(field.message_type, found)


def _interface(name: str, message: Descriptor) -> str:
    return _braces(name, ((field.name, _type(field)) for field in message.fields))


def _braces(name: str, members: Iterable[tuple[str, str]]) -> str:
    body = "\n".join(f"  readonly {member}: {kind};" for member, kind in members)
    return f"export interface {name} {{\n{body}\n}}"


def _type(field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return f"Readonly<Record<string, {_scalar(field.message_type.fields_by_name['value'])}>>"
    if field.is_repeated:
        kind = _scalar(field)
        return f"readonly ({kind})[]" if "|" in kind else f"readonly {kind}[]"
    kind = _scalar(field)
    nullable = field.has_presence and not kind.endswith("null")
    return f"{kind} | null" if nullable else kind


def _scalar(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return "number | null" if field.message_type.full_name == _TIMESTAMP else field.message_type.name
    if field.enum_type is not None:
        names = [enum_name(field.enum_type, value.number) for value in field.enum_type.values]
        return " | ".join(f'"{name}"' for name in [*names, "unknown"])
    if field.type in _TEXTS:
        return "string"
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "boolean"
    return "number | null" if field.type in _FLOATS else "number"


def _summary() -> str:
    """Return the exposure in short: columns of the exposure itself, of its result, and some of our own."""
    own = Exposure.DESCRIPTOR.fields_by_name
    result = own["result"].message_type.fields_by_name
    members = []
    for column in EXPOSURE_COLUMNS:
        if column in own:
            members.append((column, _type(own[column])))
        elif column in result:
            kind = _type(result[column])
            members.append((column, kind if kind.endswith("null") else f"{kind} | null"))
        else:
            members.append((column, _SUMMARY_OF_ITS_OWN[column]))
    return _braces("ExposureSummary", members)


if __name__ == "__main__":
    TARGET.write_text(typescript(), encoding="utf-8")
