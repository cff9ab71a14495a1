"""Everything a run knows, in one explicit record that goes to arrays and back without loss."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np

from frazil.array import Array, to_device, to_host
from frazil.model.errors import FrazilError

STATE_VERSION = 2
_SPLITMIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Phase(IntEnum):
    """What the driver is in the middle of."""

    WAITING = 0  # for the next unit of particles
    BOOTSTRAP = 1  # the first classes, and once more when there are enough particles for all of them
    UNIT = 2  # a unit of new particles
    FULL_PASS = 3  # over all particles, because the run grew
    FINAL_PASS = 4  # over all particles, at the end
    FINISHED = 5


@dataclass(slots=True)
class ParticleTable:
    """One row per particle ever added, in block sequence; host arrays.

    Attributes
    ----------
    uid, sequence: identity and block.
    half: 0 or 1: the half set minus one, fixed by the uid.
    removed: retracted; never used again.
    scale: the image's noise level relative to the run's; images are divided by it.
    centre: (particle, 2) x, y in Å: where centring found the particle; the middle of the shift's prior.
    shift: (particle, 2) x, y in Å: the particle sits there relative to the box centre.
    psi: radians. class_index: -1 before the first assignment.
    probability: of the class. effective_classes: exp of the entropy over classes.
    log_likelihood: relative to no particle. generation: of the full pass, or the update after it, that set the row.
    """

    uid: np.ndarray[Any, Any]
    sequence: np.ndarray[Any, Any]
    half: np.ndarray[Any, Any]
    removed: np.ndarray[Any, Any]
    scale: np.ndarray[Any, Any]
    centre: np.ndarray[Any, Any]
    shift: np.ndarray[Any, Any]
    psi: np.ndarray[Any, Any]
    class_index: np.ndarray[Any, Any]
    probability: np.ndarray[Any, Any]
    effective_classes: np.ndarray[Any, Any]
    log_likelihood: np.ndarray[Any, Any]
    generation: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return int(self.uid.size)


def fresh_particles(uid: np.ndarray[Any, Any], sequence: int) -> ParticleTable:
    """Return the rows of particles nobody has looked at yet."""
    n = uid.size
    return ParticleTable(
        uid=uid.astype(np.uint64),
        sequence=np.full(n, sequence, np.int64),
        half=half_index(uid),
        removed=np.zeros(n, np.bool_),
        scale=np.ones(n, np.float32),
        centre=np.zeros((n, 2), np.float32),
        shift=np.zeros((n, 2), np.float32),
        psi=np.zeros(n, np.float32),
        class_index=np.full(n, -1, np.int32),
        probability=np.zeros(n, np.float32),
        effective_classes=np.zeros(n, np.float32),
        log_likelihood=np.zeros(n, np.float32),
        generation=np.full(n, -1, np.int32),
    )


def half_index(uid: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return `frazil.model.particles.half_set(uid) - 1` for many uids (splitmix64)."""
    with np.errstate(over="ignore"):
        z = uid.astype(np.uint64) + _SPLITMIX[0]
        z = (z ^ (z >> np.uint64(30))) * _SPLITMIX[1]
        z = (z ^ (z >> np.uint64(27))) * _SPLITMIX[2]
        return ((z ^ (z >> np.uint64(31))) & np.uint64(1)).astype(np.uint8)


@dataclass(slots=True)
class ClassStatistics:
    """Sufficient statistics of the classes; the class is its index, for the whole run.

    Attributes
    ----------
    numerator, denominator: (half, class, padded, padded) complex64 and float32, backend; noise-weighted sums over images.
    weight: (class,) float64 host; expected number of images.
    """

    numerator: Array
    denominator: Array
    weight: np.ndarray[Any, Any]


@dataclass(slots=True)
class PassSums:
    """What a step has summed so far; a pass over all particles is a step in many pieces.

    residual: (shell,) float64 sum of |X - C M|^2 at the best pose over `images` images. visited: particles done, in order.
    """

    classes: ClassStatistics
    residual: np.ndarray[Any, Any]
    images: int = 0
    visited: int = 0


@dataclass(slots=True)
class Counters:
    """Where the run stands. All decisions are functions of these and of the block sequence.

    Attributes
    ----------
    cursor: last block or retraction taken in.
    taken: rows of the particle table that units have consumed.
    unit_start, unit_end: rows of the unit in hand.
    phase, phase_step: the phase and the index of its next step.
    step: number of steps begun; keys the random numbers.
    generation: number of full passes done.
    pass_images: live particles at the last full pass. removed_since_pass: retracted since.
    finalising: no more particles are expected.
    renewed: all classes have been arranged anew.
    """

    cursor: int = 0
    taken: int = 0
    unit_start: int = 0
    unit_end: int = 0
    phase: int = Phase.WAITING
    phase_step: int = 0
    step: int = 0
    generation: int = 0
    pass_images: int = 0
    removed_since_pass: int = 0
    finalising: int = 0
    renewed: int = 0


@dataclass(slots=True)
class Class2dState:
    """The state of streaming 2D classification between two calls of `advance`.

    Attributes
    ----------
    classes: sufficient statistics.
    bias: (class,) float32 host; balancing prior, log. restarts: (class,) how often a starving class began anew.
    noise: (shell,) float64 host; noise variance of the real and of the imaginary part.
    first_noise, reference_power: the spectrum and power against which images are scaled.
    profile: (shell,) float64 host; transform of the circularly symmetric average.
    particles, counters: see there.
    retracted_uid, retracted_by, retracted_at: particles still to be removed, the sequence of the retraction, and how many
        rows were known when it came.
    radius: of the last step, Fourier pixels.
    sums: of the pass in hand, or None between steps.
    """

    classes: ClassStatistics
    bias: np.ndarray[Any, Any]
    restarts: np.ndarray[Any, Any]
    noise: np.ndarray[Any, Any]
    first_noise: np.ndarray[Any, Any]
    profile: np.ndarray[Any, Any]
    particles: ParticleTable
    reference_power: float = 1.0
    radius: float = 1.0
    counters: Counters = field(default_factory=Counters)
    retracted_uid: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, np.uint64))
    retracted_by: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, np.int64))
    retracted_at: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, np.int64))
    sums: PassSums | None = None

    @property
    def class_count(self) -> int:
        """Number of classes there are so far."""
        return int(self.classes.weight.size)

    def live(self) -> np.ndarray[Any, Any]:
        """Return the positions of the particles in use: consumed by a unit and not removed, sorted."""
        taken = self.counters.taken
        return np.flatnonzero(~self.particles.removed[:taken])

    def to_arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the whole state as host arrays by name, for a checkpoint file; `from_arrays` restores it bit for bit."""
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "version": np.array(STATE_VERSION, np.int64),
            "scalars": np.array([self.reference_power, self.radius], np.float64),
            "counters": np.array([getattr(self.counters, f.name) for f in fields(Counters)], np.int64),
        }
        for name in _PLAIN:
            arrays[name] = np.array(getattr(self, name))
        for f in fields(ParticleTable):
            arrays[f"particles.{f.name}"] = np.array(getattr(self.particles, f.name))
        arrays |= _class_arrays("classes", self.classes)
        if self.sums is not None:
            arrays |= _class_arrays("sums", self.sums.classes)
            arrays["sums.residual"] = np.array(self.sums.residual)
            arrays["sums.counts"] = np.array([self.sums.images, self.sums.visited], np.int64)
        return arrays


_PLAIN = (
    "bias",
    "restarts",
    "noise",
    "first_noise",
    "profile",
    "retracted_uid",
    "retracted_by",
    "retracted_at",
)


def from_arrays(arrays: dict[str, np.ndarray[Any, Any]], xp: Any) -> Class2dState:
    """Restore a state from `to_arrays`, its accumulators on the backend `xp`.

    Raises FrazilError when the arrays are of another version or incomplete.
    """
    version = int(arrays["version"]) if "version" in arrays else None
    if version != STATE_VERSION:
        raise FrazilError(
            "CHECKPOINT_VERSION",
            f"Start the classification anew: its checkpoint has version {version}, this program reads {STATE_VERSION}.",
        )
    try:
        sums = None
        if "sums.counts" in arrays:
            images, visited = (int(v) for v in arrays["sums.counts"])
            sums = PassSums(_classes_from("sums", arrays, xp), np.array(arrays["sums.residual"]), images, visited)
        return Class2dState(
            classes=_classes_from("classes", arrays, xp),
            particles=ParticleTable(**{f.name: np.array(arrays[f"particles.{f.name}"]) for f in fields(ParticleTable)}),
            counters=Counters(*(int(v) for v in arrays["counters"])),
            reference_power=float(arrays["scalars"][0]),
            radius=float(arrays["scalars"][1]),
            sums=sums,
            **{name: np.array(arrays[name]) for name in _PLAIN},
        )
    except KeyError as missing:
        raise FrazilError("CHECKPOINT_INCOMPLETE", f"Use an older checkpoint: this one lacks the array {missing}.") from missing


def concatenate(table: ParticleTable, more: ParticleTable) -> ParticleTable:
    """Return the rows of both tables."""
    return ParticleTable(
        **{f.name: np.concatenate([getattr(table, f.name), getattr(more, f.name)]) for f in fields(ParticleTable)}
    )


def empty_state(shell_count: int, padded_size: int, xp: Any) -> Class2dState:
    """Return the state of a run that has seen nothing."""
    return Class2dState(
        classes=empty_classes(0, padded_size, xp),
        bias=np.zeros(0, np.float32),
        restarts=np.zeros(0, np.int32),
        noise=np.ones(shell_count),
        first_noise=np.ones(shell_count),
        profile=np.zeros(shell_count),
        particles=fresh_particles(np.zeros(0, np.uint64), 0),
    )


def empty_classes(class_count: int, padded_size: int, xp: Any) -> ClassStatistics:
    """Return statistics of nothing."""
    shape = (2, class_count, padded_size, padded_size)
    return ClassStatistics(xp.zeros(shape, dtype=xp.complex64), xp.zeros(shape, dtype=xp.float32), np.zeros(class_count))


def _class_arrays(name: str, classes: ClassStatistics) -> dict[str, np.ndarray[Any, Any]]:
    return {
        f"{name}.numerator": np.array(to_host(classes.numerator)),
        f"{name}.denominator": np.array(to_host(classes.denominator)),
        f"{name}.weight": np.array(classes.weight),
    }


def _classes_from(name: str, arrays: dict[str, np.ndarray[Any, Any]], xp: Any) -> ClassStatistics:
    return ClassStatistics(
        to_device(np.array(arrays[f"{name}.numerator"]), xp),
        to_device(np.array(arrays[f"{name}.denominator"]), xp),
        np.array(arrays[f"{name}.weight"]),
    )
