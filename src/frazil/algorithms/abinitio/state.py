"""Everything an ab-initio run knows, in one explicit record that goes to arrays and back without loss."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d.state import PoseTable, fresh_poses
from frazil.array import Array, to_device, to_host
from frazil.model.errors import FrazilError
from frazil.primitives.volumes import reach_of

STATE_VERSION = 2
Arrays = dict[str, npt.NDArray[Any]]


class Phase(IntEnum):
    """What the driver does next."""

    COLLECTING = 0  # particles; nothing has begun
    CONTEST = 1  # the first steps of every start
    ONLINE = 2  # the steps of the start that won
    ASSIGNING = 3  # every particle its volume and pose
    FINISHED = 4


@dataclass(slots=True)
class Volumes:
    """Sums of one start, over as many particles as there are: half cubes by volume, backend; weight (volume,) host."""

    numerator: list[Array]
    denominator: list[Array]
    weight: npt.NDArray[np.float64]


@dataclass(slots=True)
class Counters:
    """Where the run stands; decisions are functions of these.

    start: that is being worked on. iteration: its next step. step: steps begun; keys the random numbers.
    visited: particles assigned. cursor: last block taken in.
    """

    phase: int = Phase.COLLECTING
    start: int = 0
    iteration: int = 0
    step: int = 0
    visited: int = 0
    cursor: int = 0


@dataclass(slots=True)
class AbInitioState:
    """The state of an ab-initio run between two calls of `advance`.

    Attributes
    ----------
    particles: see `PoseTable`. volume_index: (particle,) int32; -1 before assignment.
    noise, first_noise, reference_power: as in `Refine3dState`.
    volumes: of the start in hand, or None. best: of the best start so far, or None.
    likelihoods: (start judged,) mean log likelihood of held-out particles.
    temperature: of the next step; divides log likelihoods.
    history: (step, 5) float64: start, iteration, radius, temperature, effective share of hypotheses.
    """

    particles: PoseTable
    volume_index: npt.NDArray[np.int32]
    noise: npt.NDArray[np.float64]
    first_noise: npt.NDArray[np.float64]
    likelihoods: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    history: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 5)))
    reference_power: float = 0.0
    temperature: float = 1.0
    volumes: Volumes | None = None
    best: Volumes | None = None
    counters: Counters = field(default_factory=Counters)

    def to_arrays(self) -> Arrays:
        """Return the whole state as host arrays by name, for a checkpoint file; `from_arrays` restores it bit for bit."""
        arrays: Arrays = {
            "version": np.array(STATE_VERSION, np.int64),
            "scalars": np.array([self.reference_power, self.temperature], np.float64),
            "counters": np.array([getattr(self.counters, f.name) for f in fields(Counters)], np.int64),
        }
        for name in _PLAIN:
            arrays[name] = np.array(getattr(self, name))
        for f in fields(PoseTable):
            arrays[f"particles.{f.name}"] = np.array(getattr(self.particles, f.name))
        for name in ("volumes", "best"):
            volumes: Volumes | None = getattr(self, name)
            if volumes is not None:
                arrays[f"{name}.numerator"] = np.stack([to_host(a) for a in volumes.numerator])
                arrays[f"{name}.denominator"] = np.stack([to_host(a) for a in volumes.denominator])
                arrays[f"{name}.weight"] = np.array(volumes.weight)
        return arrays


_PLAIN = ("volume_index", "noise", "first_noise", "likelihoods", "history")


def from_arrays(arrays: Arrays, xp: Any) -> AbInitioState:
    """Restore a state from `to_arrays`, its sums on the backend `xp`.

    Raises FrazilError when the arrays are of another version or incomplete.
    """
    version = int(arrays["version"]) if "version" in arrays else None
    if version != STATE_VERSION:
        raise FrazilError(
            "CHECKPOINT_VERSION",
            f"Start the reconstruction anew: its checkpoint has version {version}, this program reads {STATE_VERSION}.",
        )
    try:
        return AbInitioState(
            particles=PoseTable(**{f.name: np.array(arrays[f"particles.{f.name}"]) for f in fields(PoseTable)}),
            reference_power=float(arrays["scalars"][0]),
            temperature=float(arrays["scalars"][1]),
            counters=Counters(*(int(v) for v in arrays["counters"])),
            volumes=_volumes_from("volumes", arrays, xp),
            best=_volumes_from("best", arrays, xp),
            **{name: np.array(arrays[name]) for name in _PLAIN},
        )
    except KeyError as missing:
        raise FrazilError("CHECKPOINT_INCOMPLETE", f"Use an older checkpoint: this one lacks the array {missing}.") from missing


def empty_state(shell_count: int) -> AbInitioState:
    """Return the state of a run that has seen nothing."""
    ones, none = np.ones(shell_count), np.zeros(0, np.uint64)
    return AbInitioState(fresh_poses(none, 0), np.zeros(0, np.int32), ones, ones.copy())


def empty_volumes(count: int, radius: float, xp: Any) -> Volumes:
    """Return sums of nothing over half cubes that hold slices up to a radius."""
    reach = reach_of(radius)
    shape = (2 * reach + 1, 2 * reach + 1, reach + 1)
    numerator = [xp.zeros(shape, dtype=xp.complex64) for _ in range(count)]
    return Volumes(numerator, [xp.zeros(shape, dtype=xp.float32) for _ in range(count)], np.zeros(count))


def _volumes_from(name: str, arrays: Arrays, xp: Any) -> Volumes | None:
    if f"{name}.weight" not in arrays:
        return None
    numerator, denominator = arrays[f"{name}.numerator"], arrays[f"{name}.denominator"]
    return Volumes(
        [to_device(np.array(a), xp) for a in numerator],
        [to_device(np.array(a), xp) for a in denominator],
        np.array(arrays[f"{name}.weight"]),
    )
