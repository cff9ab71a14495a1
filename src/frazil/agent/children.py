"""Workers as child processes: started under their slot's lock, stopped, reaped, and found again after the agent's own death.

No worker is tied to its agent's life: it has its own session, writes its log to a file and keeps its lock, so that an agent
that was killed finds it again by the lock.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from frazil.agent.inventory import Slot
from frazil.agent.locks import LockFolder, LockRecord, SlotLock, holder_of
from frazil.agent.worker_log import WorkerLog
from frazil.api.agent.v1.agent_pb2 import Start
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.config import WorkerEnvironment
from frazil.rpc.failpoints import failpoint


@dataclass(slots=True, kw_only=True)
class Worker:
    """A running worker; without `process` it was adopted and is no child of ours."""

    lease_id: str
    epoch: int
    slot_key: str
    pid: int
    log: WorkerLog
    process: subprocess.Popen[bytes] | None = None
    kill_at: float | None = None  # on the agent's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A worker that is dead; the code of an adopted one is not known."""

    worker: Worker
    exit_code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What every worker of this agent is started with."""

    scheduler_address: str
    threads: int
    boot_id: str
    programs: Mapping[str, Path]
    log_folder: Path


class Children:
    """The workers of this agent's slots. `clock` gives monotonic seconds."""

    def __init__(self, locks: LockFolder, launch: Launch, clock: Callable[[], float]) -> None:
        self._locks = locks
        self._launch = launch
        self._clock = clock
        self._workers: dict[str, Worker] = {}  # by slot

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers that are not known to be dead."""
        return tuple(self._workers.values())

    def start(self, order: Start, slot: Slot) -> Worker:
        """Start a worker under its slot's lock; the epoch is on the disk before the program runs.

        A repeated order for a worker that runs returns that worker. Raises FrazilError with reason SLOT_HELD, STALE_EPOCH
        or NO_PROGRAM when the order is refused.
        """
        running = self._workers.get(slot.slot_key)
        if running and (running.lease_id, running.epoch) == (order.lease_id, order.epoch):
            return running
        program = self._launch.programs.get(order.program)
        if program is None:
            raise _refusal("NO_PROGRAM", f"This agent has no program {order.program!r}.")
        lock = self._locks.take(slot.slot_key)
        if lock is None:
            raise _refusal("SLOT_HELD", f"The lock of {slot.slot_key} is held by another process.")
        with lock:
            record = lock.read()
            if order.epoch <= record.amax:
                raise _refusal("STALE_EPOCH", f"Epoch {order.epoch} is not newer than {record.amax}, which was here already.")
            record = LockRecord(
                lease_id=order.lease_id,
                epoch=order.epoch,
                job_id=order.job_id,
                boot_id=self._launch.boot_id,
                amax=order.epoch,
            )
            lock.write(record)
            failpoint("agent.start.recorded")
            worker = self._spawn(order, slot, program, lock)
            failpoint("agent.start.spawned")
            lock.write(dataclasses.replace(record, pid=worker.pid))
        self._workers[slot.slot_key] = worker
        return worker

    def adopt(self, slot_keys: Iterable[str]) -> tuple[Worker, ...]:
        """Take over the workers that hold the locks of our slots: the agent before us started them."""
        adopted = []
        for slot_key in slot_keys:
            if slot_key in self._workers or not self._locks.held(slot_key):
                continue
            record = self._locks.read(slot_key)
            pid = holder_of(self._locks.path(slot_key), record.pid) or record.pid
            log = WorkerLog(self._log_path(record.lease_id, record.epoch))
            worker = Worker(lease_id=record.lease_id, epoch=record.epoch, slot_key=slot_key, pid=pid, log=log)
            self._workers[slot_key] = worker
            adopted.append(worker)
        return tuple(adopted)

    def stop(self, worker: Worker, *, kill: bool, deadline_seconds: float = 0.0) -> None:
        """Tell a worker to drain, and kill it at the deadline; or kill it at once. A repeat never moves the deadline back."""
        if kill:
            worker.kill_at = self._clock()
            self._kill(worker)
            return
        deadline = self._clock() + deadline_seconds
        worker.kill_at = deadline if worker.kill_at is None else min(worker.kill_at, deadline)
        self._terminate(worker)

    def poll(self) -> tuple[Ended, ...]:
        """Reap the dead, kill the overdue, copy the logs. Call it a few times per second."""
        ended = []
        for worker in self.workers:
            worker.log.forward()
            if worker.kill_at is not None and self._clock() >= worker.kill_at:
                self._kill(worker)
            dead, exit_code = self._reap(worker) if worker.process is not None else self._is_gone(worker)
            if dead:
                worker.log.forward()
                del self._workers[worker.slot_key]
                ended.append(Ended(worker=worker, exit_code=exit_code))
        return tuple(ended)

    def _spawn(self, order: Start, slot: Slot, program: Path, lock: SlotLock) -> Worker:
        environment = WorkerEnvironment(
            scheduler_address=self._launch.scheduler_address,
            lease_id=order.lease_id,
            epoch=order.epoch,
            slot_key=slot.slot_key,
            device="gpu" if slot.is_gpu else "cpu",
            memory_mib=order.memory_mib or slot.memory_mib,
            threads=self._launch.threads,
            lock_fd=lock.descriptor,
            gpu_uuid=slot.gpu_uuid,
        )
        try:
            log = WorkerLog(self._log_path(order.lease_id, order.epoch))
            output = log.open()
            try:
                process = subprocess.Popen(
                    [str(program)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=os.environ | environment.to_environ(),
                    pass_fds=(lock.descriptor,),
                    start_new_session=True,
                )
            finally:
                os.close(output)
        except OSError as error:
            raise _refusal("NO_PROGRAM", f"{program} cannot be started: {error.strerror}.") from error
        structlog.get_logger().info("worker_started", lease_id=order.lease_id, epoch=order.epoch, pid=process.pid)
        return Worker(
            lease_id=order.lease_id,
            epoch=order.epoch,
            slot_key=slot.slot_key,
            pid=process.pid,
            log=log,
            process=process,
        )

    def _log_path(self, lease_id: str, epoch: int) -> Path:
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in lease_id)
        return self._launch.log_folder / f"{name}.{epoch}.log"

    def _reap(self, worker: Worker) -> tuple[bool, int | None]:
        """Collect a dead child. Its helpers die with it: its group is killed before its number can be used again."""
        if worker.process is None or os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False, None
        _kill_group(worker.pid)
        return True, worker.process.wait()

    def _is_gone(self, worker: Worker) -> tuple[bool, int | None]:
        """Say whether an adopted worker is dead: the lock is free, or has passed to another lease."""
        if not self._locks.held(worker.slot_key):
            return True, None
        if self._locks.read(worker.slot_key).epoch != worker.epoch:
            return True, None
        if worker.pid and not Path(f"/proc/{worker.pid}").exists() and self._adopted_pid(worker) is None:
            _kill_group(worker.pid)  # only helpers that it had forked still hold the lock
        return False, None

    def _terminate(self, worker: Worker) -> None:
        if worker.process is not None:  # not Popen.terminate: that reaps the dead, which only `_reap` may do
            os.kill(worker.pid, signal.SIGTERM)
        elif pid := self._adopted_pid(worker):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _adopted_pid(self, worker: Worker) -> int | None:
        return holder_of(self._locks.path(worker.slot_key), worker.pid)

    def _kill(self, worker: Worker) -> None:
        if worker.process is not None or self._adopted_pid(worker) == worker.pid:
            _kill_group(worker.pid)


def find_programs(names: Sequence[str]) -> dict[str, Path]:
    """Return those console scripts that lie beside our interpreter or on the PATH; a name may also be a path of its own."""
    found = {}
    for name in names:
        path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
        if path:
            found[Path(name).name] = Path(path).absolute()
    return found


def reap_orphans(known: Iterable[int]) -> None:
    """Collect dead processes that were left to us as the container's first process, but none of our own workers."""
    ours = set(known)
    while True:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if dead is None or dead.si_pid in ours:
            return
        with suppress(ChildProcessError):
            os.waitpid(dead.si_pid, os.WNOHANG)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _refusal(reason: str, sentence: str) -> FrazilError:
    return FrazilError(reason, sentence, kind=ErrorKind.CONFLICT)
