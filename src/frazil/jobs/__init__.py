"""Declarations of job types: what a job needs. What it does is the runner of the same name in its service.

A job type is a file in this folder with a constant `JOB`; `load(name)` finds it by file name. Another distribution adds its
own by an entry point of the group "frazil.jobs" that names such a constant.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from frazil.model.camera import Camera
from frazil.model.errors import ErrorKind, FrazilError
from frazil.model.parameter import Parameter, Value, read_parameters


class Hold(Enum):
    """How long a job holds its slot."""

    UNTIL_PAUSED = "until_paused"  # streaming: ends only when it is stopped, dies, or its session completes
    UNTIL_DONE = "until_done"


class LaneRole(Enum):
    """Which of a session's lanes a job runs in."""

    PREPROCESSING = "preprocessing"
    RECONSTRUCTION = "reconstruction"
    AUXILIARY = "auxiliary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a job's memory depends on."""

    camera: Camera = Camera.UNKNOWN
    box_px: int = 0  # after Fourier cropping; 0 means not known yet


def gigabytes(amount: float) -> int:
    """Return decimal gigabytes in MiB: an "11 GB" card must fit, though it has less than 11 GiB to give."""
    return int(amount * 1000**3 / 1024**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """What a job type needs."""

    program: str  # console script that runs it
    lane_role: LaneRole
    hold: Hold
    gpu_memory_min_mib: Callable[[Workload], int]
    cpu_memory_min_mib: int  # on a CPU slot
    title: str
    starts_with_session: bool = False  # of a streaming job: it is queued with its session; else when somebody starts it
    starts_from_volume: bool = False  # of a streaming job: it is queued with a session that names its initial volume
    parameters: tuple[Parameter, ...] = ()  # of an auxiliary job
    time_limit_seconds: float = 7200.0  # from the start of its worker to its end; a job that is held until paused has none
    stall_limit_seconds: float = 1800.0  # without progress though there is something to do, then its worker starts anew

    def read(self, given: Mapping[str, str]) -> dict[str, Value]:
        """Return the value of every parameter. Raises FrazilError PARAMETER_UNKNOWN or PARAMETER_INVALID."""
        return read_parameters(self.parameters, given)


def names() -> tuple[str, ...]:
    """Return the names of all job types, sorted."""
    return tuple(sorted({*_own(), *_added()}))


def load(name: str) -> JobType:
    """Return the declaration of a job type; raises FrazilError JOB_TYPE_UNKNOWN naming the known ones."""
    job: JobType
    if name in _own():
        job = importlib.import_module(f"{__name__}.{name}").JOB
        return job
    entry = _added().get(name)
    if entry is None:
        raise FrazilError(
            "JOB_TYPE_UNKNOWN",
            f"There is no job type {name!r}; known are {', '.join(names())}.",
            kind=ErrorKind.NOT_FOUND,
        )
    job = entry.load()
    return job


@cache
def _own() -> frozenset[str]:
    return frozenset(module.name for module in pkgutil.iter_modules(__path__))


def _added() -> Mapping[str, EntryPoint]:
    return _found_on(tuple(sys.path))


@cache
def _found_on(path: tuple[str, ...]) -> Mapping[str, EntryPoint]:  # noqa: ARG001 the key: reading the metadata is slow
    return {entry.name: entry for entry in entry_points(group="frazil.jobs")}
