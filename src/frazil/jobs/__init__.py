"""Declarations of job types: what a job needs. What it does is the runner of the same name in its service.

A job type is a file in this folder with a constant `JOB`; `load(name)` finds it by file name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from frazil.model.camera import Camera
from frazil.model.errors import ErrorKind, FrazilError


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


def names() -> tuple[str, ...]:
    """Return the names of all job types, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> JobType:
    """Return the declaration of a job type; raises FrazilError JOB_TYPE_UNKNOWN naming the known ones."""
    if name not in names():
        raise FrazilError(
            "JOB_TYPE_UNKNOWN",
            f"There is no job type {name!r}; known are {', '.join(names())}.",
            kind=ErrorKind.NOT_FOUND,
        )
    job: JobType = importlib.import_module(f"{__name__}.{name}").JOB
    return job
