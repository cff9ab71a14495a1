"""Simulated machines: processes that hold real lock files, GPUs with memory and errors, reboots, power."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frazil.agent.inventory import Slot
from frazil.agent.nvml import Program, Use
from frazil.api.worker.v1 import worker_pb2
from simulation.engine import Engine

BASELINE_MIB = 300
_FIRST_PID = 10_000_000  # beyond any process of the real machine

Body = Generator[Any, Any, int]


@dataclass(slots=True)
class Gpu:
    """A GPU's state."""

    memory_mib: int
    foreign_mib: int = 0
    unreleased_mib: int = 0  # of dead processes
    broken: bool = False  # fails whoever tries it


@dataclass(slots=True, eq=False)
class Process:
    """A worker process, as the kernel knows it."""

    pid: int
    machine: Machine
    slot: Slot
    lease_id: str
    epoch: int
    job_type: str
    descriptor: int  # of its slot's lock
    exit_code: int | None = None  # None while it lives
    frozen: bool = False
    hung: bool = False  # it lives and beats, and does nothing more
    unkillable: bool = False  # in an uninterruptible sleep: a signal waits
    killed: bool = False
    stop_requested: bool = False
    waits: int = 0  # counts what it has waited for: an answer to something older is not taken
    pending: list[Callable[[], None]] = field(default_factory=list)  # what happens when it thaws
    body: Body | None = None
    wake: Callable[[], None] | None = None  # ends what it waits for, when it is asked to stop

    @property
    def alive(self) -> bool:
        return self.exit_code is None

    @property
    def slot_key(self) -> str:
        return self.slot.slot_key

    @property
    def token(self) -> worker_pb2.LeaseToken:
        return worker_pb2.LeaseToken(lease_id=self.lease_id, epoch=self.epoch)

    # What `frazil.agent.children.Worker.process` is asked.
    def terminate(self) -> None:
        self.machine.terminate(self)

    def wait(self) -> int | None:
        return self.exit_code


@dataclass(eq=False)
class Machine:
    """A node: its kernel, its GPUs, its folder of lock files."""

    engine: Engine
    node_id: str
    slots: tuple[Slot, ...]
    folder: Path
    launched: Callable[[Process], None]  # a process begins to run
    ended: Callable[[Process], None]  # a process is dead
    boot: int = 1
    powered: bool = True
    linked: bool = True  # to the scheduler's network
    oom_kills: int = 0
    gpus: dict[str, Gpu] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)  # those that live
    xids: list[tuple[str, int]] = field(default_factory=list)  # that nobody has read yet
    _pids: Any = field(default_factory=lambda: itertools.count(_FIRST_PID))

    def __post_init__(self) -> None:
        self.gpus = {slot.gpu_uuid: Gpu(slot.gpu_memory_mib) for slot in self.slots}

    @property
    def boot_id(self) -> str:
        return f"{self.node_id}-boot-{self.boot}"

    # -------------------------------------------------------------------------------------------------------- processes
    def spawn(self, slot: Slot, lease_id: str, epoch: int, job_type: str, descriptor: int) -> Process:
        """Start a process that inherits a lock."""
        pid = next(self._pids)
        process = Process(pid, self, slot, lease_id, epoch, job_type, os.dup(descriptor))
        self.processes[pid] = process
        self.engine.note(self.node_id, "spawn", job_type, lease_id, epoch, slot.slot_key)
        self.launched(process)
        return process

    def terminate(self, process: Process) -> None:
        """Deliver SIGTERM."""
        process.stop_requested = True
        if process.wake is not None:
            process.wake()

    def kill(self, process: Process) -> None:
        """Deliver SIGKILL."""
        process.killed = True
        if not process.unkillable:
            self.exit(process, -9)

    def exit(self, process: Process, code: int) -> None:
        """End a process: the kernel gives its lock back; the driver its memory, perhaps later."""
        if not process.alive:
            return
        process.exit_code = code
        process.body = None
        process.pending.clear()
        del self.processes[process.pid]
        os.close(process.descriptor)
        self.engine.note(self.node_id, "exit", process.lease_id, code)
        gpu = self.gpus[process.slot.gpu_uuid]
        used = process.slot.memory_mib // 2
        gpu.unreleased_mib += used
        late = self.engine.chance(0.05)
        boot = self.boot
        self.engine.after(
            self.engine.between(30, 200) if late else self.engine.between(0, 2), lambda: self._release(gpu, used, boot)
        )
        self.ended(process)

    def _release(self, gpu: Gpu, mib: int, boot: int) -> None:
        if boot == self.boot:
            gpu.unreleased_mib -= mib

    def freeze(self, process: Process, *, unkillable: bool) -> None:
        """Stop a process without its knowing: SIGSTOP, or a file system that hangs."""
        process.frozen = True
        process.unkillable = unkillable

    def thaw(self, process: Process) -> None:
        """Let a process go on as if nothing had been."""
        process.frozen = process.unkillable = False
        if process.killed and process.alive:
            self.exit(process, -9)
        pending, process.pending = process.pending, []
        for act in pending:
            self.engine.after(0.0, act)

    def power_off(self) -> None:
        """End everything at once."""
        self.powered = False
        for process in list(self.processes.values()):
            self.exit(process, -9)

    def power_on(self) -> None:
        """Boot: lock files and what a driver kept are gone."""
        self.powered = True
        self.boot += 1
        for gpu in self.gpus.values():
            gpu.unreleased_mib = 0
        self.xids.clear()
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def holder(self, path: Path) -> int | None:
        """Return the process that holds a lock file open."""
        for process in self.processes.values():
            if self.folder / f"{process.slot_key}.lock" == path:
                return process.pid
        return None

    # ------------------------------------------------------------------------------- what `frazil.agent` reads of GPUs
    def used_mib(self, uuid: str) -> int | None:
        gpu = self.gpus[uuid]
        live = sum(process.slot.memory_mib // 2 for process in self.processes.values() if process.slot.gpu_uuid == uuid)
        return BASELINE_MIB + gpu.foreign_mib + gpu.unreleased_mib + live

    def free_mib(self, uuid: str) -> int | None:
        return self.gpus[uuid].memory_mib - (self.used_mib(uuid) or 0)

    def programs(self, uuid: str) -> tuple[Program, ...]:
        return ()

    def use(self, uuid: str) -> Use | None:
        return Use(self.used_mib(uuid) or 0, self.gpus[uuid].memory_mib, 50)

    def errors(self) -> list[tuple[str, int]]:
        found, self.xids = self.xids, []
        return found
