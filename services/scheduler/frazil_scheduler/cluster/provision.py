"""What to ask of a cluster: a pure function of the jobs that wait and of the cluster jobs there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """Where a cluster job is in its life, as far as it is of use."""

    SUBMITTING = "SUBMITTING"  # asked for, the cluster's answer is not known
    PENDING = "PENDING"
    STARTING = "STARTING"  # it runs; its agent has not dialled in
    IDLE = "IDLE"  # its agent has dialled in and has had no lease
    SERVING = "SERVING"
    LEAVING = "LEAVING"  # its lease is over or about to be
    STRAY = "STRAY"  # its lease's job has moved on without it
    CANCELLING = "CANCELLING"


FREE = (Phase.SUBMITTING, Phase.PENDING, Phase.STARTING, Phase.IDLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that no slot serves now."""

    job_id: str
    program: str
    memory_min_mib: int
    session_id: str = ""
    follows: str = ""  # in a hand-over inside its session: the cluster job whose lease it takes over


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """A cluster job that is not over."""

    name: str
    phase: Phase
    program: str
    memory_mib: int  # what was asked for, or what its slot has once that is known
    follows: str = ""  # the cluster job whose lease it is to take over
    session_id: str = ""  # of that lease: only this session's jobs get it; empty: anybody's
    serves: str = ""  # the job under its lease
    indefinite: bool = False  # that job holds its slot until it is stopped
    memory_min_mib: int = 0  # that job's need
    seconds_left: float | None = None  # until the cluster ends it


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A cluster job to be asked for."""

    job_id: str
    program: str
    memory_min_mib: int
    follows: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now."""

    ask: tuple[Need, ...]
    cancel: tuple[str, ...]  # cluster jobs, by name
    drain: tuple[str, ...]  # cluster jobs whose lease is to end at a checkpoint, because their time is up


def decide(
    waiting: Sequence[Waiting],
    cluster_jobs: Sequence[ClusterJob],
    *,
    max_jobs: int,
    handover_seconds: float,
    drain_seconds: float,
) -> Plan:
    """Return what to do for the waiting jobs, which come in queue order.

    A lease that nears the end of its cluster job's time gets a successor first, for its job is the older one. So does one that
    is handed over inside its session, for the session had it: only a cluster job of its own serves that. Another waiting job is
    served by the smallest cluster job without a lease that is large enough; what serves nobody is cancelled while it is pending
    and leaves by itself once it runs.
    """
    followers = {job.follows: job for job in cluster_jobs if job.follows and job.phase in FREE}
    ending = [job for job in cluster_jobs if _nears_end(job, handover_seconds)]
    drain = [job.name for job in ending if _may_drain(job, followers.get(job.name), drain_seconds)]
    needs = [
        Need(job_id=job.serves, program=job.program, memory_min_mib=job.memory_min_mib, follows=job.name)
        for job in ending
        if job.name not in followers
    ]
    reserved = {job.name for job in ending}
    free = sorted(
        (job for job in cluster_jobs if job.phase in FREE and job.follows not in reserved),
        key=lambda job: (job.memory_mib, FREE.index(job.phase), job.name),
    )
    for job in sorted(waiting, key=lambda job: not job.follows):
        match = next((one for one in free if _serves(one, job)), None)
        if match is not None:
            free.remove(match)
        else:
            need = Need(job_id=job.job_id, program=job.program, memory_min_mib=job.memory_min_mib, follows=job.follows)
            needs.append(need)
    room = max(0, max_jobs - len(cluster_jobs))
    cancel = [job.name for job in free if job.phase is Phase.PENDING]
    cancel += [job.name for job in cluster_jobs if job.phase is Phase.STRAY]
    return Plan(ask=tuple(needs[:room]), cancel=tuple(cancel), drain=tuple(drain))


def _serves(one: ClusterJob, job: Waiting) -> bool:
    suits = one.program == job.program and one.memory_mib >= job.memory_min_mib
    return suits and (one.session_id == job.session_id or not (one.session_id or job.follows))


def _nears_end(job: ClusterJob, handover_seconds: float) -> bool:
    """Tell whether a job that would go on for ever will be cut off soon. One that ends by itself may still do so."""
    left = job.seconds_left
    return job.phase is Phase.SERVING and job.indefinite and left is not None and left <= handover_seconds


def _may_drain(job: ClusterJob, follower: ClusterJob | None, drain_seconds: float) -> bool:
    ready = follower is not None and follower.phase is Phase.IDLE
    return ready or (job.seconds_left or 0.0) <= drain_seconds
