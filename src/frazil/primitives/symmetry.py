"""Point groups of particles, in RELION's settings: C, D, T, O and I as lists of rotation matrices.

A map of a group's symmetry has `V(S r) = V(r)` for every operator S: poses A and A S show the same image.
Axes: Cn along z; Dn with twofolds, one along x; T with a threefold along z; O with fourfolds along the axes; I1 to I4 as RELION
and Xmipp name the four usual settings of the icosahedron (I is I2, with twofolds along the axes and a fivefold in xz).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.model.errors import InputError
from frazil.primitives.rotations import from_rotation_vectors, sphere_points

_PHI = (1 + 5**0.5) / 2
_GENERIC = np.array([0.2672612, 0.5345225, 0.8017837])  # a direction on no axis and no mirror plane of any group above
_FULL_TURN = 2 * np.pi
_GENERATORS: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0, 0, 1)), (2, (0, 2**0.5, 1))),
    "O": ((4, (0, 0, 1)), (3, (1, 1, 1))),
    "I1": ((2, (1, 0, 0)), (2, (0, 0, 1)), (5, (_PHI, 0, -1))),
    "I2": ((2, (1, 0, 0)), (2, (0, 0, 1)), (5, (1, 0, _PHI))),
    "I3": ((5, (0, 0, 1)), (2, (-1, 0, _PHI))),
    "I4": ((5, (0, 0, 1)), (2, (1, 0, _PHI))),
}


@dataclass(frozen=True, slots=True)
class Symmetry:
    """A point group: its name in capitals and its operators, (operator, 3, 3) float64, the identity first."""

    name: str
    operators: npt.NDArray[np.float64]

    @property
    def order(self) -> int:
        """Number of operators."""
        return len(self.operators)

    def unique(self, directions: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Say which directions lie in the asymmetric unit: the points closest to a generic one among their mates.

        directions: (view, 3). Returns (view,).
        """
        closeness = np.einsum("vi,gij,j->vg", directions, self.operators, _GENERIC)
        inside: npt.NDArray[np.bool_] = closeness[:, 0] >= closeness.max(axis=1) - 1e-9
        return inside

    def views(self, count: int, turn: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return those of `count` even directions, turned first, that lie in the asymmetric unit, (view, 3)."""
        directions: npt.NDArray[np.float64] = sphere_points(count) @ np.asarray(turn).T
        inside: npt.NDArray[np.float64] = directions[self.unique(directions)]
        return inside


def symmetry(name: str) -> Symmetry:
    """Return a point group by RELION's name: C1, C7, D2, T, O, I, I1, I2, I3 or I4, in any case.

    Raises InputError for another name, groups with mirrors included.
    """
    wanted = name.strip().upper()
    wanted = "I2" if wanted == "I" else wanted
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})", wanted)
    if match:
        generators = [(int(match[2]), (0.0, 0.0, 1.0))] + ([(2, (1.0, 0.0, 0.0))] if match[1] == "D" else [])
    elif wanted in _GENERATORS:
        generators = list(_GENERATORS[wanted])
    else:
        raise InputError(
            "SYMMETRY_UNKNOWN", f"There is no symmetry {name!r}: name one of C1, C2, ..., D2, ..., T, O, I1 to I4."
        )
    return Symmetry(wanted, _closure([_turn(fold, np.array(axis, float)) for fold, axis in generators]))


def _turn(fold: int, axis: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return from_rotation_vectors(axis / np.linalg.norm(axis) * (_FULL_TURN / fold))


def _closure(generators: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return the group that rotations generate, the identity first."""
    found = [np.eye(3)]
    for known in found:  # grows while it is walked
        for generator in generators:
            product = generator @ known
            if min(np.abs(product - other).max() for other in found) > 1e-6:
                found.append(product)
    return np.stack(found)
