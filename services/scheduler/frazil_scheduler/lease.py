"""One lease's life as a pure function: (lease, event) -> (lease, effects). No clock and no I/O: time arrives as an event.

A lease is the hold of one job on one slot. It never ends by time: only a proof from the node, a reboot of the node, or a
person's word (`Fenced`) closes it. What the agent should be told is not an effect but a property of the state
(`wanted`), so that it can be said again after any crash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from frazil.model.gpu_errors import describe


class State(Enum):
    """The states of a lease; every state but CLOSED keeps the slot from being granted."""

    RESERVED = "RESERVED"  # in the ledger, its worker is not known to run
    HELD = "HELD"  # its worker runs
    RELEASING = "RELEASING"  # its worker was told to stop or is dead; proof that the slot is free is awaited
    LOST = "LOST"  # its node is silent
    QUARANTINED = "QUARANTINED"  # its slot could not be proven free
    CLOSED = "CLOSED"


class Stop(Enum):
    """How a worker is to stop."""

    DRAIN = "DRAIN"  # finish the current exposure or write a checkpoint
    KILL = "KILL"


class Message(Enum):
    """What the agent is to be told again and again while a lease is in its state."""

    START = "START"
    STOP = "STOP"
    PROBE = "PROBE"


class Cause(Enum):
    """Why a lease let go of its job."""

    ASKED = "ASKED"  # the stop was asked for
    DIED = "DIED"  # the worker exited by itself
    OUT_OF_MEMORY = "OUT_OF_MEMORY"  # the worker asked for more memory than its slot or machine has
    GPU_FAILED = "GPU_FAILED"  # the worker died of its GPU
    UNSEEN = "UNSEEN"  # the worker is dead, nobody saw how
    REFUSED = "REFUSED"  # the agent did not start it
    NODE_LOST = "NODE_LOST"  # the node is silent, has rebooted, or was fenced


class QuarantineKind(Enum):
    """Who put a slot out of service; it decides what puts it back."""

    PROOF = "PROOF"  # the agent said why it is not free: a person clears it
    OVERDUE = "OVERDUE"  # no proof in time: a late proof clears it
    EXTERNAL = "EXTERNAL"  # another program uses it: a later probe clears it
    OPERATOR = "OPERATOR"  # a person: a person clears it


BUSY_EXTERNAL = "GPU_BUSY_EXTERNAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What the machine needs to know of a lease."""

    lease_id: str
    epoch: int
    boot_id: str  # of the node, when the lease was granted
    state: State = State.RESERVED
    stop: Stop | None = None
    dead: bool = False  # its worker is known to be dead
    released: bool = False  # its job and exposures are no longer on it


@dataclass(frozen=True, slots=True)
class Started:
    """The worker runs."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The agent did not start the worker."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Pause, cancel, quarantine: the worker is to stop."""

    stop: Stop


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The worker's process ended; `exit_code` is None when nobody saw it."""

    exit_code: int | None
    log_tail: str = ""
    xids: tuple[int, ...] = ()  # errors of its GPU while it ran
    gpu_failed: bool = False  # one of them was the GPU's fault
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class NodeSilent:
    """The node has said nothing for so long that its jobs may go on elsewhere."""


@dataclass(frozen=True, slots=True)
class HelloSeen:
    """The node's agent has dialled in and said what its kernel says is held."""

    boot_id: str
    held: bool  # the slot's lock is held by this lease and epoch
    job_epoch: int  # the newest epoch of the lease's job


@dataclass(frozen=True, slots=True)
class ProvedFree:
    """The agent took the slot's lock and found its memory released; or says in `problem` why the slot is not free."""

    problem: str = ""


@dataclass(frozen=True, slots=True)
class ProofOverdue:
    """No proof has come although the worker should be dead for long."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A person attests that every process on the node is dead."""


Event = Started | Refused | StopAsked | WorkerExited | NodeSilent | HelloSeen | ProvedFree | ProofOverdue | Fenced


@dataclass(frozen=True, slots=True)
class JobRuns:
    """The lease's job is running (again)."""


@dataclass(frozen=True, slots=True)
class JobReleased:
    """The lease lets go of its job and of its exposures."""

    cause: Cause
    detail: str = ""
    exit_code: int | None = None
    xids: tuple[int, ...] = ()

    @property
    def how(self) -> str:
        """How the worker ended, in a few words."""
        if self.cause is Cause.OUT_OF_MEMORY:
            return "out of memory"
        if self.exit_code is None:
            return "unseen"
        words = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return ", ".join([words, *(describe(xid) for xid in self.xids)])


@dataclass(frozen=True, slots=True)
class SlotQuarantined:
    """The slot goes out of service."""

    kind: QuarantineKind
    reason: str


@dataclass(frozen=True, slots=True)
class SlotFreed:
    """The slot is proven free."""


Effect = JobRuns | JobReleased | SlotQuarantined | SlotFreed
Outcome = tuple[Lease, tuple[Effect, ...]]


def step(lease: Lease, event: Event) -> Outcome:  # noqa: C901 one branch per kind of event
    """Return the lease after `event` and what follows from it; an event that comes too late changes nothing."""
    if lease.state is State.CLOSED:
        return lease, ()
    match event:
        case Started():
            return _started(lease)
        case Refused():
            return _refused(lease, event)
        case StopAsked():
            return _stop_asked(lease, event.stop)
        case WorkerExited():
            return _worker_exited(lease, event)
        case NodeSilent():
            return _node_silent(lease)
        case HelloSeen():
            return _hello_seen(lease, event)
        case ProvedFree():
            return _proved_free(lease, event.problem)
        case ProofOverdue():
            return _proof_overdue(lease)
        case Fenced():
            return _close(lease)


def wanted(lease: Lease) -> Message | None:
    """Return what the agent is to be told while the lease is as it is."""
    match lease.state:
        case State.RESERVED:
            return Message.START
        case State.RELEASING | State.QUARANTINED:
            return Message.PROBE if lease.dead else Message.STOP
        case _:
            return None


def adopted(lease: Lease) -> bool:
    """Tell, after a `HelloSeen` that found it held, whether its worker may go on; else it is to be killed."""
    return lease.state is State.HELD or (lease.state is State.RELEASING and lease.stop is Stop.DRAIN)


def _release(lease: Lease, cause: Cause, detail: str = "") -> tuple[Lease, tuple[Effect, ...]]:
    """Let go of the job for a cause that nobody has seen the worker die of."""
    return _let_go(lease, JobReleased(cause, detail))


def _let_go(lease: Lease, effect: JobReleased) -> tuple[Lease, tuple[Effect, ...]]:
    """Let go of the job, once. A stop that was asked for is the cause, whatever ended the worker."""
    if lease.released:
        return lease, ()
    if lease.stop is not None:
        effect = replace(effect, cause=Cause.ASKED)
    return replace(lease, released=True), (effect,)


def _close(lease: Lease) -> Outcome:
    lease, effects = _release(lease, Cause.NODE_LOST)
    return replace(lease, state=State.CLOSED, dead=True), (*effects, SlotFreed())


def _started(lease: Lease) -> Outcome:
    if lease.state is not State.RESERVED:
        return lease, ()
    return replace(lease, state=State.HELD), (JobRuns(),)


def _refused(lease: Lease, event: Refused) -> Outcome:
    if lease.state not in (State.RESERVED, State.RELEASING) or lease.dead:
        return lease, ()
    was_reserved = lease.state is State.RESERVED
    lease, effects = _release(replace(lease, dead=True), Cause.REFUSED, f"{event.reason}: {event.detail}".rstrip(": "))
    if was_reserved and event.reason == BUSY_EXTERNAL:
        reason = event.detail or "another program uses its memory"
        return replace(lease, state=State.QUARANTINED), (*effects, SlotQuarantined(QuarantineKind.EXTERNAL, reason))
    return replace(lease, state=State.RELEASING), effects


def _stop_asked(lease: Lease, stop: Stop) -> Outcome:
    match lease.state:
        case State.RESERVED | State.HELD:
            return replace(lease, state=State.RELEASING, stop=stop), ()
        case State.RELEASING if stop is Stop.KILL and not lease.dead:
            return replace(lease, stop=stop), ()
        case State.LOST:  # remembered: it must not heal when its node comes back
            return replace(lease, stop=Stop.KILL), ()
        case _:
            return lease, ()


def _worker_exited(lease: Lease, event: WorkerExited) -> Outcome:
    if lease.dead or lease.state is State.QUARANTINED:
        return replace(lease, dead=True), ()
    lease, effects = _let_go(lease, JobReleased(_cause(event), event.log_tail, event.exit_code, event.xids))
    return replace(lease, state=State.RELEASING, dead=True), effects


def _cause(event: WorkerExited) -> Cause:
    if event.gpu_failed:
        return Cause.GPU_FAILED
    if event.out_of_memory:
        return Cause.OUT_OF_MEMORY
    return Cause.UNSEEN if event.exit_code is None else Cause.DIED


def _node_silent(lease: Lease) -> Outcome:
    if lease.state not in (State.RESERVED, State.HELD, State.RELEASING):
        return lease, ()
    lease, effects = _release(lease, Cause.NODE_LOST)
    return replace(lease, state=State.LOST), effects


def _hello_seen(lease: Lease, event: HelloSeen) -> Outcome:
    if event.boot_id != lease.boot_id:  # the node has rebooted: every older process is dead
        return _close(lease)
    return _found_held(lease, event.job_epoch) if event.held else _found_free(lease)


def _found_held(lease: Lease, job_epoch: int) -> Outcome:
    match lease.state:
        case State.RESERVED:
            return replace(lease, state=State.HELD), (JobRuns(),)
        case State.LOST if lease.stop is None and lease.epoch == job_epoch and not lease.dead:  # the heal guard
            return replace(lease, state=State.HELD, released=False), (JobRuns(),)
        case State.LOST:
            return replace(lease, state=State.RELEASING, stop=Stop.KILL, dead=False), ()
        case State.RELEASING if lease.dead:
            return replace(lease, stop=Stop.KILL, dead=False), ()
        case State.QUARANTINED:
            return replace(lease, stop=Stop.KILL, dead=False), ()
        case _:
            return lease, ()


def _found_free(lease: Lease) -> Outcome:
    match lease.state:
        case State.HELD | State.RELEASING:
            lease, effects = _release(replace(lease, dead=True), Cause.UNSEEN)
            return replace(lease, state=State.RELEASING), effects
        case State.LOST:
            return replace(lease, state=State.RELEASING, dead=True), ()
        case State.QUARANTINED:
            return replace(lease, dead=True), ()
        case _:  # RESERVED: its start is sent again
            return lease, ()


def _proved_free(lease: Lease, problem: str) -> Outcome:
    if lease.state not in (State.RELEASING, State.QUARANTINED):
        return lease, ()
    lease, effects = _release(lease, Cause.UNSEEN)
    if problem:
        return replace(lease, state=State.QUARANTINED), (*effects, SlotQuarantined(QuarantineKind.PROOF, problem))
    return replace(lease, state=State.CLOSED, dead=True), (*effects, SlotFreed())


def _proof_overdue(lease: Lease) -> Outcome:
    if lease.state is not State.RELEASING:
        return lease, ()
    lease, effects = _release(lease, Cause.UNSEEN)
    reason = "not proven free in time; it goes back into service when its agent proves it"
    return replace(lease, state=State.QUARANTINED), (*effects, SlotQuarantined(QuarantineKind.OVERDUE, reason))
