"""Parameters of a job type: declared with default and bounds, given as text, read into values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from frazil.model.errors import FrazilError

Value: TypeAlias = bool | int | float | str
_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter; its type is that of its default."""

    name: str
    default: Value
    description: str
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Value:
        """Return the value that a text means. Raises FrazilError PARAMETER_INVALID."""
        if isinstance(self.default, bool):
            if text.lower() not in _SWITCH:
                raise self._invalid(text, "must be true or false")
            return _SWITCH[text.lower()]
        if isinstance(self.default, str):
            if self.choices and text not in self.choices:
                raise self._invalid(text, f"must be one of {', '.join(self.choices)}")
            return text
        return self._number(text, type(self.default))

    def _number(self, text: str, kind: type[int] | type[float]) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            raise self._invalid(text, "must be a whole number" if kind is int else "must be a number") from None
        if not self.minimum <= value <= self.maximum:
            raise self._invalid(text, f"must be between {self.minimum:g} and {self.maximum:g}")
        return value

    def _invalid(self, text: str, rule: str) -> FrazilError:
        return FrazilError("PARAMETER_INVALID", f"{self.name} is {text!r}; it {rule}.")


def read_parameters(declared: Sequence[Parameter], given: Mapping[str, str]) -> dict[str, Value]:
    """Return the value of every declared parameter. Raises FrazilError PARAMETER_UNKNOWN or PARAMETER_INVALID."""
    known = {parameter.name for parameter in declared}
    unknown = sorted(set(given) - known)
    if unknown:
        words = f"it knows {', '.join(sorted(known))}" if known else "it has none"
        raise FrazilError("PARAMETER_UNKNOWN", f"This job type does not know {', '.join(unknown)}; {words}.")
    return {
        parameter.name: parameter.read(given[parameter.name]) if parameter.name in given else parameter.default
        for parameter in declared
    }
