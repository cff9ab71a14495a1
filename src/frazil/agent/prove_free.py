"""Proof that a slot is free: its lock can be had, its GPU's memory is released, and the GPU works.

Time alone never proves anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from frazil.agent.inventory import Slot
from frazil.agent.locks import LockFolder, holder_of

TOLERANCE_MIB = 256  # what the driver may keep beyond the baseline
PATIENCE_SECONDS = 60.0
_STEP_SECONDS = 1.0


class MemoryReader(Protocol):
    """Reads a GPU's memory; None where it cannot be read."""

    def used_mib(self, uuid: str) -> int | None:
        """Return the memory in use, MiB."""
        ...

    def free_mib(self, uuid: str) -> int | None:
        """Return the free memory, MiB."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is to be proven: that nothing of this lease lives on the slot."""

    slot: Slot
    lease_id: str
    epoch: int


class Trial(Protocol):
    """A first use of a GPU that is under way."""

    def poll(self) -> str | None:
        """Return None while undecided, "" when the GPU works or cannot be tried, else why not."""
        ...

    def stop(self) -> None:
        """Give it up."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuChecks:
    """What a GPU's slot must pass besides its lock."""

    allowed_mib: Callable[[], int]  # how much of its memory may be in use
    problem: Callable[[], str] = lambda: ""  # why it is out of order; nothing when it is not
    programs: Callable[[], str] = lambda: ""  # who else uses it, as the end of a sentence
    trial: Callable[[], Trial] | None = None  # uses it once


class Proof:
    """One attempt to prove a slot free, advanced by `step`."""

    def __init__(self, claim: Claim, locks: LockFolder, memory: MemoryReader, checks: GpuChecks, now: float) -> None:
        self.claim = claim
        self._locks = locks
        self._memory = memory
        self._checks = checks
        self._trial: Trial | None = None
        self._give_up_at = now + PATIENCE_SECONDS
        self._next_at = now
        self._good = 0

    def step(self, now: float) -> str | None:
        """Look once if it is time to. Returns None while undecided, "" once free, else why it cannot be proven.

        The largest accepted epoch is raised before the answer, so that a start that is still under way is refused.
        """
        if now < self._next_at:
            return None
        self._next_at = now + _STEP_SECONDS
        if self._trial is not None:  # the memory it takes itself is no problem
            return self._trial.poll()
        problem = self._look()
        self._good = 0 if problem else self._good + 1
        if self._good >= (2 if self.claim.slot.is_gpu else 1):
            return self._try()
        return problem if problem and now >= self._give_up_at else None

    def stop(self) -> None:
        """Give the attempt up."""
        if self._trial is not None:
            self._trial.stop()

    def _try(self) -> str | None:
        """Let the GPU be used once; one that does not report its memory cannot be asked."""
        slot = self.claim.slot
        if self._checks.trial is None or not slot.is_gpu or self._memory.used_mib(slot.gpu_uuid) is None:
            return ""
        self._trial = self._checks.trial()
        return None

    def _look(self) -> str:
        slot = self.claim.slot
        if not self._locks.raise_amax(slot.slot_key, self.claim.epoch):
            path = self._locks.path(slot.slot_key)
            pid = holder_of(path, self._locks.read(slot.slot_key).pid)
            return (
                f"its lock is still held {f'by process {pid} ({_state(pid)})' if pid else 'by a process that is not visible'}"
            )
        if self._checks.problem():
            return self._checks.problem()
        used = self._memory.used_mib(slot.gpu_uuid) if slot.is_gpu else None
        allowed = self._checks.allowed_mib()
        if used is not None and used > allowed:
            more = f"{used - allowed + TOLERANCE_MIB:,} MiB more in use than before"
            return f"memory not released: {more}{self._checks.programs()}"
        return ""


class Baselines:
    """How much memory of each GPU is in use while none of our workers runs there, remembered over restarts of the agent."""

    def __init__(self, locks: LockFolder, memory: MemoryReader, boot_id: str) -> None:
        self._locks = locks
        self._memory = memory
        self._boot_id = boot_id

    def measure(self, uuid: str) -> int:
        """Return a GPU's baseline in MiB: measured now if none of its slots is held, else as it was last measured.

        With a slot held and nothing remembered it is 0, which can only make a proof harder.
        """
        path = self._locks.folder / f"{uuid}.baseline"
        remembered = self._remembered(path)
        slots = [lock.name.removesuffix(".lock") for lock in self._locks.folder.glob(f"{uuid}#*.lock")]
        if any(self._locks.held(slot_key) for slot_key in slots):
            return remembered or 0
        used = self._memory.used_mib(uuid) or 0
        path.write_text(json.dumps({"boot_id": self._boot_id, "used_mib": used}))
        return used

    def _remembered(self, path: Path) -> int | None:
        try:
            content = json.loads(path.read_text())
            return int(content["used_mib"]) if content["boot_id"] == self._boot_id else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def allowed_mib(slot: Slot, baseline_mib: int, held_slots: Sequence[Slot]) -> int:
    """Return how much memory of a slot's GPU may be in use for the slot to count as free.

    The shares of the GPU's other slots that are held come on top of the baseline.
    """
    others = sum(s.memory_mib for s in held_slots if s.gpu_uuid == slot.gpu_uuid and s.slot_key != slot.slot_key)
    return baseline_mib + TOLERANCE_MIB + others


def _state(pid: int) -> str:
    """Return what the kernel says a process is doing, e.g. "T (stopped)" or "D (disk sleep)"."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "ended just now"
    return next((line.split(maxsplit=1)[1] for line in status.splitlines() if line.startswith("State:")), "unknown")
