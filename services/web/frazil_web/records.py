"""Messages as JSON: the proto's own names, enums in lower case, times in epoch seconds, no NaN, and exposures in short."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.rpc import attributes

Json = dict[str, Any]

# What a list, a strip and the plots show of an exposure; everything else is asked for one by one.
EXPOSURE_COLUMNS = (
    "exposure_id",
    "number",
    "relative_path",
    "state",
    "failure",
    "override",
    "rejected",
    "version",
    "register_time",
    "finish_time",
    "width_px",
    "height_px",
    "motion_total_angstrom",
    "motion_converged",
    "defocus_u_angstrom",
    "defocus_v_angstrom",
    "ctf_fit_resolution_angstrom",
    "ctf_score",
    "pick_count",
    "particle_count",
    "warning_count",
    "attributes",
)


def to_json(message: Message) -> Json:
    """Return a message as JSON values under the proto's field names; unset optionals and messages are null."""
    return {
        field.name: _field_json(message, field) for field in message.DESCRIPTOR.fields if not _is_unset_member(message, field)
    }


def _is_unset_member(message: Message, field: FieldDescriptor) -> bool:
    oneof = field.containing_oneof
    return oneof is not None and len(oneof.fields) > 1 and not message.HasField(field.name)


def _field_json(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _value_json(value[key], inner) for key in value}
    if field.is_repeated:
        return [_value_json(element, field) for element in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value_json(value, field)


def _value_json(value: Any, field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return enum_name(field.enum_type, value)
    if isinstance(value, Timestamp):
        return epoch_seconds(value)
    if isinstance(value, Message):
        return to_json(value)
    return finite(value) if isinstance(value, float) else value


def enum_name(enum: EnumDescriptor, number: int) -> str:
    """Return STATE_RUNNING as "running"; a number this build does not know as "unknown"."""
    known = enum.values_by_number.get(number)
    return known.name.removeprefix(enum_prefix(enum)).lower() if known is not None else "unknown"


def enum_prefix(enum: EnumDescriptor) -> str:
    """Return what every value of an enum begins with: AUTO_PAUSE_ for AutoPause."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"


def finite(value: float) -> float | None:
    """Return the number, or None for NaN and infinity, which JSON lacks."""
    return value if math.isfinite(value) else None


def epoch_seconds(time: Timestamp) -> float:
    """Return a timestamp in seconds since 1970, to the millisecond."""
    return round(time.seconds + time.nanos * 1e-9, 3)


def result_version(exposure: Exposure) -> str:
    """Return a short name of the accepted attempt: pictures of one version never change. Empty without a result."""
    folder = exposure.result.folder if exposure.HasField("result") else ""
    return hashlib.sha256(folder.encode()).hexdigest()[:12] if folder else ""


def exposure_row(exposure: Exposure) -> list[Any]:
    """Return an exposure in short, in the order of EXPOSURE_COLUMNS."""
    head = [
        exposure.exposure_id,
        exposure.number,
        exposure.file.relative_path,
        enum_name(Exposure.State.DESCRIPTOR, exposure.state),
        exposure.failure,
        enum_name(exposure.DESCRIPTOR.fields_by_name["override"].enum_type, exposure.override),
        exposure.rejected,
        result_version(exposure),
        epoch_seconds(exposure.register_time) if exposure.HasField("register_time") else None,
        epoch_seconds(exposure.finish_time) if exposure.HasField("finish_time") else None,
    ]
    if not exposure.HasField("result"):
        return head + [None] * (len(EXPOSURE_COLUMNS) - len(head))
    result = exposure.result
    resolution = result.ctf_fit_resolution_angstrom if result.HasField("ctf_fit_resolution_angstrom") else math.nan
    return [
        *head,
        result.width_px,
        result.height_px,
        _short(result.motion_total_angstrom),
        result.motion_converged,
        _short(result.defocus_u_angstrom),
        _short(result.defocus_v_angstrom),
        _short(resolution),
        _short(result.ctf_score),
        result.pick_count,
        result.particle_count,
        len(result.warnings),
        [_digits(value) for value in attributes.values(exposure).values()],
    ]


def _digits(value: float | None) -> float | None:
    """Return what a plot or a threshold needs of a number: seven digits, of times to the second."""
    return None if value is None else float(f"{value:.{10 if abs(value) > 1e8 else 7}g}")


def attribute_table() -> list[Json]:
    """Return the attributes of exposures in the order of the column `attributes`."""
    return [{"name": one.name, "title": one.title, "unit": one.unit} for one in attributes.ATTRIBUTES]


def _short(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def exposure_table(exposures: Iterable[Exposure]) -> Json:
    """Return exposures as columns and rows: a third of the size of one object each."""
    return {"columns": list(EXPOSURE_COLUMNS), "rows": [exposure_row(exposure) for exposure in exposures]}


def exposure_summary(exposure: Exposure) -> Json:
    """Return an exposure in short as an object."""
    return dict(zip(EXPOSURE_COLUMNS, exposure_row(exposure), strict=True))


def exposure_detail(exposure: Exposure) -> Json:
    """Return an exposure whole, with the version its pictures are asked for by."""
    detail = to_json(exposure) | {"version": result_version(exposure)}
    if detail["result"] is not None:
        detail["result"]["stage_seconds"] = {k: v for k, v in detail["result"]["stage_seconds"].items() if v is not None}
    return detail
