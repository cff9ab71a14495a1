"""Everything a refinement knows, in one explicit record that goes to arrays and back without loss."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.state import half_index
from frazil.array import Array, to_device, to_host
from frazil.model.errors import FrazilError
from frazil.primitives.volumes import reach_of

STATE_VERSION = 2
Arrays = dict[str, npt.NDArray[Any]]

HISTORY = ("particles", "kind", "radius", "resolved", "jumped", "probability", "generation", "update")
"""Columns of `Refine3dState.history`: live particles, how the pass searched, coefficients compared and where the FSC fell below
0.143 (Fourier pixels), the share of particles that turned by more than 10 degrees, median probability of the best orientation,
passes over all particles done, and 1 for an update with new particles."""


class Phase(IntEnum):
    """What the driver is in the middle of."""

    WAITING = 0  # for the next unit of particles
    REFINING = 1  # passes over all particles, until they change little
    UNIT = 2  # new particles, against the present maps
    FINISHED = 3


class Kind(IntEnum):
    """How a pass searches."""

    DENSE = 0  # every orientation of a grid is inserted by its weight; the first such pass compares with the start map
    GLOBAL = 1  # every orientation of a grid proposes peaks, which are refined and inserted
    LOCAL = 2  # around the last pose


@dataclass(slots=True)
class PoseTable:
    """One row per particle ever added, in block sequence; host arrays.

    Attributes
    ----------
    uid, sequence: identity and block. half: 0 or 1, fixed by the uid. removed: retracted; never used again.
    scale: the image's noise level relative to the run's; images are divided by it.
    centre, shift: (particle, 2) x, y in Å: where centring found the particle, and where it sits, from the box centre.
    pose: (particle, 3, 3) float32 orientation A.
    probability: of the best orientation among those compared. log_likelihood: relative to no particle.
    jump: degrees from the pose before the last pass, to the nearest symmetry mate; 180 for new particles.
    generation: of the pass that set the row; -1 before.
    """

    uid: npt.NDArray[np.uint64]
    sequence: npt.NDArray[np.int64]
    half: npt.NDArray[np.uint8]
    removed: npt.NDArray[np.bool_]
    scale: npt.NDArray[np.float32]
    centre: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    pose: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    log_likelihood: npt.NDArray[np.float32]
    jump: npt.NDArray[np.float32]
    generation: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return int(self.uid.size)


def fresh_poses(uid: npt.NDArray[Any], sequence: int) -> PoseTable:
    """Return the rows of particles nobody has looked at yet."""
    n = uid.size
    return PoseTable(
        uid=uid.astype(np.uint64),
        sequence=np.full(n, sequence, np.int64),
        half=half_index(uid),
        removed=np.zeros(n, np.bool_),
        scale=np.ones(n, np.float32),
        centre=np.zeros((n, 2), np.float32),
        shift=np.zeros((n, 2), np.float32),
        pose=np.tile(np.eye(3, dtype=np.float32), (n, 1, 1)),
        probability=np.zeros(n, np.float32),
        log_likelihood=np.zeros(n, np.float32),
        jump=np.full(n, 180, np.float32),
        generation=np.full(n, -1, np.int32),
    )


def concatenate(table: PoseTable, more: PoseTable) -> PoseTable:
    """Return the rows of both tables."""
    return PoseTable(**{f.name: np.concatenate([getattr(table, f.name), getattr(more, f.name)]) for f in fields(PoseTable)})


@dataclass(slots=True)
class Sums:
    """What a pass has inserted and measured so far.

    Attributes
    ----------
    numerator, denominator: two half cubes each, one per half set, backend (kernels/slices.py); before symmetry.
    residual: (shell,) float64 sum of |X - C M|^2 at the best poses, in units of the noise assumed.
    radius: coefficients inserted, Fourier pixels.
    images: particles inserted. visited: particles of the pass that are done, in order.
    """

    numerator: list[Array]
    denominator: list[Array]
    residual: npt.NDArray[np.float64]
    radius: float
    images: int = 0
    visited: int = 0


@dataclass(slots=True)
class Counters:
    """Where the run stands. All decisions are functions of these, of the maps and of the block sequence.

    Attributes
    ----------
    cursor: last block or retraction taken in. taken: rows that units have consumed.
    unit_start, unit_end: rows of the unit in hand.
    phase, kind: what the driver does, and how the next pass searches.
    passes: of the refinement in hand that are done. quiet: of these, the last ones that changed little.
    step: passes and units begun; keys the random numbers. generation: passes over all particles done.
    pass_images: live particles at the last pass over all. removed_since_pass: retracted since.
    units_since_pass: updates with new particles since. idle_units: of these, the last ones that gained no resolution.
    supported: 1 once half maps agreed where the start map had no say. finalising: no more particles are expected.
    """

    cursor: int = 0
    taken: int = 0
    unit_start: int = 0
    unit_end: int = 0
    phase: int = Phase.WAITING
    kind: int = Kind.DENSE
    passes: int = 0
    quiet: int = 0
    step: int = 0
    generation: int = 0
    pass_images: int = 0
    removed_since_pass: int = 0
    units_since_pass: int = 0
    idle_units: int = 0
    supported: int = 0
    finalising: int = 0


@dataclass(slots=True)
class Refine3dState:
    """The state of a refinement between two calls of `advance`.

    Attributes
    ----------
    start: (box, box, box) float32 host: the start map, low-passed.
    accumulated: sums over all particles at their present poses, or None before the first pass is done.
    sums: of the pass or unit in hand, or None.
    fsc: (shell,) float64 host; of the half maps under the sphere.
    noise: (shell,) float64 host; noise variance of the real and of the imaginary part. first_noise: when it was first taken.
    reference_power: whitened power of a median image.
    radius: coefficients used in searching, Fourier pixels. resolved: the radius where the FSC last fell below 0.143.
    particles, counters: see there.
    history: (pass or unit, 8) float64: see `HISTORY`.
    retracted_uid, retracted_by, retracted_at: particles still to be removed, the sequence of the retraction, and how many
        rows were known when it came.
    """

    start: npt.NDArray[np.float32]
    particles: PoseTable
    noise: npt.NDArray[np.float64]
    first_noise: npt.NDArray[np.float64]
    fsc: npt.NDArray[np.float64]
    history: npt.NDArray[np.float64]
    radius: float
    resolved: float = 0.0
    reference_power: float = 1.0
    accumulated: Sums | None = None
    sums: Sums | None = None
    counters: Counters = field(default_factory=Counters)
    retracted_uid: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    retracted_by: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    retracted_at: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def live(self) -> npt.NDArray[np.int64]:
        """Return the rows of the particles in use: consumed by a unit and not removed, sorted."""
        return np.flatnonzero(~self.particles.removed[: self.counters.taken])

    def to_arrays(self) -> Arrays:
        """Return the whole state as host arrays by name, for a checkpoint file; `from_arrays` restores it bit for bit."""
        arrays: Arrays = {
            "version": np.array(STATE_VERSION, np.int64),
            "scalars": np.array([getattr(self, name) for name in _SCALARS], np.float64),
            "counters": np.array([getattr(self.counters, f.name) for f in fields(Counters)], np.int64),
        }
        for name in _PLAIN:
            arrays[name] = np.array(getattr(self, name))
        for f in fields(PoseTable):
            arrays[f"particles.{f.name}"] = np.array(getattr(self.particles, f.name))
        for name in ("accumulated", "sums"):
            sums = getattr(self, name)
            if sums is not None:
                arrays |= _sums_to_arrays(name, sums)
        return arrays


_SCALARS = ("radius", "resolved", "reference_power")
_PLAIN = (
    "start",
    "noise",
    "first_noise",
    "fsc",
    "history",
    "retracted_uid",
    "retracted_by",
    "retracted_at",
)


def from_arrays(arrays: Arrays, xp: Any) -> Refine3dState:
    """Restore a state from `to_arrays`, its sums on the backend `xp`.

    Raises FrazilError when the arrays are of another version or incomplete.
    """
    version = int(arrays["version"]) if "version" in arrays else None
    if version != STATE_VERSION:
        raise FrazilError(
            "CHECKPOINT_VERSION",
            f"Start the refinement anew: its checkpoint has version {version}, this program reads {STATE_VERSION}.",
        )
    try:
        return Refine3dState(
            particles=PoseTable(**{f.name: np.array(arrays[f"particles.{f.name}"]) for f in fields(PoseTable)}),
            counters=Counters(*(int(v) for v in arrays["counters"])),
            accumulated=_sums_from_arrays("accumulated", arrays, xp),
            sums=_sums_from_arrays("sums", arrays, xp),
            **_values(arrays),
        )
    except KeyError as missing:
        raise FrazilError("CHECKPOINT_INCOMPLETE", f"Use an older checkpoint: this one lacks the array {missing}.") from missing


def empty_sums(radius: float, shell_count: int, xp: Any) -> Sums:
    """Return sums of nothing over half cubes that hold slices up to a radius."""
    reach = reach_of(radius)
    shape = (2 * reach + 1, 2 * reach + 1, reach + 1)
    numerator = [xp.zeros(shape, dtype=xp.complex64) for _ in range(2)]
    denominator = [xp.zeros(shape, dtype=xp.float32) for _ in range(2)]
    return Sums(numerator, denominator, np.zeros(shell_count), radius)


def _values(arrays: Arrays) -> dict[str, Any]:
    """Return the plain arrays and the scalars by the names of their fields."""
    scalars = {name: float(value) for name, value in zip(_SCALARS, arrays["scalars"], strict=True)}
    return {name: np.array(arrays[name]) for name in _PLAIN} | scalars


def _sums_to_arrays(name: str, sums: Sums) -> Arrays:
    return {
        f"{name}.numerator": np.stack([to_host(a) for a in sums.numerator]),
        f"{name}.denominator": np.stack([to_host(a) for a in sums.denominator]),
        f"{name}.residual": np.array(sums.residual),
        f"{name}.radius": np.array(sums.radius),
        f"{name}.counts": np.array([sums.images, sums.visited], np.int64),
    }


def _sums_from_arrays(name: str, arrays: Arrays, xp: Any) -> Sums | None:
    if f"{name}.counts" not in arrays:
        return None
    numerator, denominator = arrays[f"{name}.numerator"], arrays[f"{name}.denominator"]
    images, visited = (int(v) for v in arrays[f"{name}.counts"])
    return Sums(
        [to_device(np.array(a), xp) for a in numerator],
        [to_device(np.array(a), xp) for a in denominator],
        np.array(arrays[f"{name}.residual"]),
        float(arrays[f"{name}.radius"]),
        images,
        visited,
    )
