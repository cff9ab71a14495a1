"""KEY=VALUE on the command line: parameters of a session by their names in `session.proto`, or the beginning of one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from frazil.model.errors import FrazilError

if TYPE_CHECKING:
    from frazil.api.session.v1.session_pb2 import SessionParameters

_FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


def assigned(parameters: SessionParameters, assignments: Sequence[str]) -> SessionParameters:
    """Return parameters with what `KEY=VALUE`s say; nothing after = unsets one.

    Raises FrazilError ASSIGNMENT_INVALID, PARAMETER_UNKNOWN or PARAMETER_INVALID.
    """
    changed = type(parameters)()
    changed.CopyFrom(parameters)
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise FrazilError("ASSIGNMENT_INVALID", f"{text!r} says no value: write KEY=VALUE.")
        field = _field(parameters, key.strip().removeprefix("--").replace("-", "_"))
        _assign(changed, field, value.strip())
    return changed


def parameter_lines(parameters: SessionParameters) -> Iterator[str]:
    """Yield every parameter that is set, as KEY=VALUE."""
    for field, value in parameters.ListFields():
        yield f"{field.name}={','.join(map(str, value)) if field.is_repeated else _plain(value)}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _field(parameters: SessionParameters, key: str) -> FieldDescriptor:
    """Return the field of a name, or the only one that begins with it."""
    fields: Mapping[str, FieldDescriptor] = parameters.DESCRIPTOR.fields_by_name
    if key in fields:
        return fields[key]
    found = [name for name in fields if key and name.startswith(key)]
    if len(found) == 1:
        return fields[found[0]]
    known = f"it may be {', '.join(found)}" if found else f"known are {', '.join(fields)}"
    raise FrazilError("PARAMETER_UNKNOWN", f"There is no one parameter {key!r}; {known}.")


def _assign(parameters: SessionParameters, field: FieldDescriptor, text: str) -> None:
    parameters.ClearField(field.name)
    if not text:
        return
    if field.is_repeated:
        values = [_value(field, part.strip()) for part in text.split(",") if part.strip()]
        getattr(parameters, field.name).extend(values)
    else:
        setattr(parameters, field.name, _value(field, text))


def _value(field: FieldDescriptor, text: str) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text.lower() in (*_YES, *_NO):
            return text.lower() in _YES
        raise FrazilError("PARAMETER_INVALID", f"{field.name} is {text!r}: it must be yes or no.")
    try:
        value = float(text) if field.type in _FLOATS else int(text)
    except ValueError as error:
        kind = "a number" if field.type in _FLOATS else "a whole number"
        raise FrazilError("PARAMETER_INVALID", f"{field.name} is {text!r}: it must be {kind}.") from error
    if not math.isfinite(value) or abs(value) >= 2**31:
        raise FrazilError("PARAMETER_INVALID", f"{field.name} is {text}, which is too large.")
    return value
