"""Particle pickers. A picker is a file in this folder; `load(name)` finds it by its file name (docs/how-to/add-a-picker.md)."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Protocol, cast

from frazil.array import Array
from frazil.model.ctf import Ctf
from frazil.model.errors import ErrorKind, FrazilError
from frazil.model.optics import Optics
from frazil.model.particles import Candidates


class Picker(Protocol):
    """What the module of a picker offers.

    `TITLE` is what people read; `Parameters` is a frozen dataclass that can be made from `diameter_min_angstrom` and
    `diameter_max_angstrom` alone (and `templates`, where the picker has this field), and that refuses senseless values with
    InputError. Its other fields are what a session may say as `picker_…`.
    """

    TITLE: str
    Parameters: type[Any]

    def search(self, micrograph: Array, parameters: Any, *, optics: Optics, seed: int, ctf: Ctf | None = None) -> Candidates:
        """Search a dose-weighted micrograph, protein dark, for particles. Score and power thresholds are not applied here.

        Parameters
        ----------
        micrograph: `(y, x)`, real, of any backend.
        parameters: of this picker's `Parameters`.
        optics: with the pixel size of the micrograph.
        seed: equal seeds give equal candidates.
        ctf: of the micrograph, where it could be fitted.

        Returns
        -------
        Candidates with coordinates in px of this image, best first, and the threshold found from the micrograph.
        """
        ...


def names() -> tuple[str, ...]:
    """Return the names of all pickers, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Picker:
    """Return a picker; raises FrazilError PICKER_UNKNOWN naming the known ones."""
    if name not in names():
        raise FrazilError(
            "PICKER_UNKNOWN", f"There is no picker {name!r}; known are {', '.join(names())}.", kind=ErrorKind.NOT_FOUND
        )
    return cast(Picker, importlib.import_module(f"{__name__}.{name}"))
