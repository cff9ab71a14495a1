"""Lane backends: each file in this folder decides where a lane's jobs may run. `load(name)` finds one by file name.

There are two sorts. A lane of nodes only says which dialled-in nodes belong to it. A lane of a cluster asks a batch system for
GPU slots: each of its cluster jobs carries one agent that dials in, serves one lease and leaves (docs/decisions/0006).
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, cast

from frazil.model.errors import ErrorKind, FrazilError

NAME = re.compile(r"frazil-[0-9a-f]{8}")
"""Of a cluster job: 15 characters, since PBS allows no more."""


class ClusterState(Enum):
    """What a cluster says of one of its jobs. All but PENDING and RUNNING are terminal: every process of the job is dead."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"  # starting and ending included: something of it may live
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"  # by its own fault: exit code, out of memory
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    LOST = "LOST"  # by the cluster's fault: node failure, preemption

    @property
    def terminal(self) -> bool:
        """Tell whether the job is over."""
        return self not in (ClusterState.PENDING, ClusterState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEntry:
    """One line of a cluster's list."""

    cluster_job_id: str
    name: str = ""  # ours; empty where the list does not show it
    state: ClusterState
    reason: str = ""  # the cluster's own words, e.g. "QOSMaxGRESPerUser"
    seconds_left: float | None = None  # until the cluster ends it


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRequest:
    """What a cluster is asked for: one GPU slot with an agent on it."""

    name: str  # unique, of the form NAME
    program: str  # that the agent must be able to start
    scheduler_address: str  # as the cluster's machines see it
    folder: Path  # for the script and its output, on a shared file system
    gpu_memory_min_mib: int = 0  # 0 in a lane of processors
    session_id: str = ""
    job_id: str = ""  # whose need it is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPolicy:
    """How a lane uses its cluster; the options of every cluster backend."""

    title: str  # of the cluster in sentences, e.g. "Slurm"
    gpus: bool  # its slots are GPUs
    max_jobs: int  # cluster jobs at once, pending ones included
    list_seconds: float  # between two lists
    idle_seconds: float  # after which an agent that no job wants leaves
    walltime_seconds: float  # asked for; 0: the cluster's own limit, which its list may tell
    handover_seconds: float  # before the end of its time a successor is asked for
    drain_seconds: float  # before the end of its time a job is stopped at its checkpoint, with or without a successor
    scheduler_address: str  # as the cluster's machines see it; empty: the address the scheduler is bound to


class LaneBackend(Protocol):
    """What the scheduler asks of a lane. A file in this folder has a class `Backend` that satisfies it."""

    operator_options: frozenset[str]  # that only frazil.toml may set, because they decide what a machine executes

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        """Take the lane's name and its options from frazil.toml; raise FrazilError CONFIG_INVALID for what it does not know."""

    @property
    def policy(self) -> ClusterPolicy | None:
        """How the lane uses its cluster; None for a lane of nodes."""

    def accepts(self, node_id: str) -> bool:
        """Tell whether the slots of a node belong to the lane; a cluster lane has only the nodes that it has asked for."""

    def node_globs(self) -> Sequence[str]:
        """Return the patterns of node names to show to people; empty means every node."""


class ClusterBackend(LaneBackend, Protocol):
    """What the scheduler asks of a cluster's lane.

    Every method raises FrazilError CLUSTER_UNAVAILABLE when the cluster does not answer; nothing follows from that.
    """

    @property
    def policy(self) -> ClusterPolicy:
        """How the lane uses its cluster."""

    async def submit(self, request: ClusterRequest) -> str:
        """Ask for a cluster job and return the cluster's identity of it.

        Raises FrazilError CLUSTER_REFUSED when there is no such job now. After CLUSTER_UNAVAILABLE there may be one.
        """

    async def list(self, names: Sequence[str]) -> Sequence[ClusterEntry]:
        """Return what the cluster has of ours, in one call; a name may have several entries. Others may be among them.

        Of `names` also those that ended some time ago are told, as far as the cluster remembers.
        """

    async def cancel(self, cluster_job_ids: Sequence[str]) -> None:
        """End cluster jobs; one that is over or not known is none's concern."""


def cluster_of(lane: LaneBackend) -> ClusterBackend | None:
    """Return the lane as one of a cluster, or None."""
    return cast("ClusterBackend", lane) if lane.policy is not None else None


def names() -> tuple[str, ...]:
    """Return the names of all backends, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> type[LaneBackend]:
    """Return the class of a backend; raises FrazilError LANE_BACKEND_UNKNOWN naming the known ones."""
    if name not in names():
        raise FrazilError(
            "LANE_BACKEND_UNKNOWN",
            f"There is no lane backend {name!r}; known are {', '.join(names())}.",
            kind=ErrorKind.NOT_FOUND,
        )
    backend: type[LaneBackend] = importlib.import_module(f"{__name__}.{name}").Backend
    return backend
