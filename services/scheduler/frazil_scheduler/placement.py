"""Who gets which slot, and why the others wait: a pure function of the waiting jobs and the slots.

One global order: the highest priority first, then the oldest; each job gets the smallest free slot of its lane that is large
enough. So a job overtakes one before it only on a slot that one could not use. A slot that a session hands over from one of
its jobs to another is for that session alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The kinds of slot."""

    GPU = "GPU"
    CPU = "CPU"


class Reason(Enum):
    """Why a job waits."""

    NO_NODE = "NO_NODE"  # nobody has dialled in who could run it
    LANE_TOO_SMALL = "LANE_TOO_SMALL"  # no slot of the lane is large enough: it waits for ever
    LANE_QUARANTINED = "LANE_QUARANTINED"  # the slots it could use are out of service or drained
    LANE_HELD = "LANE_HELD"  # all are held until somebody pauses a session
    LANE_BUSY = "LANE_BUSY"  # a slot will become free by itself
    GPUS_BUSY = "GPUS_BUSY"  # the GPUs it is bound to are held


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job in the queue."""

    job_id: str
    sequence: int
    lane: str
    program: str
    gpu_memory_min_mib: int
    cpu_memory_min_mib: int
    indefinite: bool  # it will hold its slot until its session is paused
    session_id: str = ""
    priority: int = 0
    gpus: frozenset[str] = frozenset()  # GPU uuids and slot keys it is bound to; empty: its whole lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a slot."""

    job_id: str
    indefinite: bool  # until its session is paused


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot as one node offers it; agents in two containers of one machine may offer the same slot."""

    slot_key: str
    node_id: str
    kind: Kind
    memory_mib: int
    programs: frozenset[str]  # that its node can start
    ready: bool = True  # its node has dialled in and answers
    quarantined: bool = False
    drained: bool = False  # it gets no new job
    handoff_session_id: str = ""  # only this session's jobs get it
    holder: Holder | None = None

    @property
    def gpu(self) -> str:
        """The uuid of its GPU."""
        return self.slot_key.partition("#")[0]


@dataclass(frozen=True, slots=True)
class Grant:
    """A job gets a slot."""

    job: WaitingJob
    slot: Slot


@dataclass(frozen=True, slots=True)
class Placement:
    """What follows: every waiting job is either granted or blocked."""

    grants: tuple[Grant, ...]
    blocked: Mapping[str, Reason]  # by job id


def order(job: WaitingJob) -> tuple[int, int]:
    """Return a job's place in the queue: what is smaller is served before."""
    return (-job.priority, job.sequence)


def fits(job: WaitingJob, slot: Slot) -> bool:
    """Tell whether a slot of the job's lane could ever serve it: large enough, with its program, on a GPU it is bound to."""
    minimum = job.gpu_memory_min_mib if slot.kind is Kind.GPU else job.cpu_memory_min_mib
    return bound(job, slot) and job.program in slot.programs and slot.memory_mib >= minimum


def bound(job: WaitingJob, slot: Slot) -> bool:
    """Tell whether a slot is among those the job is bound to; a job that is bound to none may use any."""
    return not job.gpus or slot.slot_key in job.gpus or slot.gpu in job.gpus


def usable(job: WaitingJob, slot: Slot) -> bool:
    """Tell whether a slot of the job's lane fits and is not being handed over to another session."""
    return fits(job, slot) and slot.handoff_session_id in ("", job.session_id)


def free(slot: Slot) -> bool:
    """Tell whether a slot can be granted now."""
    return slot.ready and not slot.quarantined and not slot.drained and slot.holder is None


def schedule(waiting: Iterable[WaitingJob], lanes: Mapping[str, Sequence[Slot]]) -> Placement:
    """Grant free slots to waiting jobs; `lanes` holds the slots of each lane, and a slot may be in several."""
    available = {name: sorted(filter(free, slots), key=_preference) for name, slots in lanes.items()}
    taken: dict[str, WaitingJob] = {}
    grants: list[Grant] = []
    left: list[WaitingJob] = []
    for job in sorted(waiting, key=order):
        slot = next((slot for slot in available.get(job.lane, ()) if usable(job, slot)), None)
        if slot is None:
            left.append(job)
            continue
        grants.append(Grant(job, slot))
        taken[slot.slot_key] = job
        for name, slots in available.items():
            available[name] = [other for other in slots if other.slot_key != slot.slot_key]
    reasons: dict[tuple[object, ...], Reason] = {}  # the same needs have the same reason
    blocked: dict[str, Reason] = {}
    handing_over = {slot.handoff_session_id for slots in lanes.values() for slot in slots} - {""}
    for job in left:
        session = job.session_id if job.session_id in handing_over else ""
        needs = (job.lane, job.program, job.gpu_memory_min_mib, job.cpu_memory_min_mib, job.gpus, session)
        if needs not in reasons:
            reasons[needs] = explain(job, lanes.get(job.lane, ()), taken)
        blocked[job.job_id] = reasons[needs]
    return Placement(tuple(grants), blocked)


def explain(job: WaitingJob, slots: Sequence[Slot], taken: Mapping[str, WaitingJob] | None = None) -> Reason:
    """Say why a job waits for a slot of its lane; `taken` are slots just granted to others."""
    taken = taken or {}
    offered = [slot for slot in slots if job.program in slot.programs]
    large_enough = [slot for slot in offered if fits(job, slot)]
    if not any(slot.ready for slot in offered):
        return Reason.NO_NODE
    if not large_enough:
        return Reason.LANE_TOO_SMALL
    present = [slot for slot in large_enough if slot.ready]
    if not present:
        return Reason.NO_NODE
    in_service = [slot for slot in present if not slot.quarantined and not slot.drained]
    if not in_service:
        return Reason.LANE_QUARANTINED
    if job.gpus:
        return Reason.GPUS_BUSY
    return Reason.LANE_HELD if all(_held_for_long(job, slot, taken) for slot in in_service) else Reason.LANE_BUSY


def _held_for_long(job: WaitingJob, slot: Slot, taken: Mapping[str, WaitingJob]) -> bool:
    if slot.handoff_session_id not in ("", job.session_id):
        return True
    if slot.slot_key in taken:
        return taken[slot.slot_key].indefinite
    return slot.holder is not None and slot.holder.indefinite


def _preference(slot: Slot) -> tuple[bool, bool, int, str, str]:
    """Order slots: those handed over (only their session's jobs see them), GPUs before processors, small before large."""
    return (not slot.handoff_session_id, slot.kind is not Kind.GPU, slot.memory_mib, slot.slot_key, slot.node_id)
