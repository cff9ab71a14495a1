"""Services as child processes: started in order, watched, started again when they crash, stopped in order.

What a supervisor leaves behind when it is killed is stopped by its guardian (`guardian.py`). What is left even so, since both
were killed, is found by the next supervisor from the notes in `<data_dir>/run` and from a mark in the children's environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from frazil.cli import guardian, processes
from frazil.cli.processes import MARK
from frazil.model.errors import ErrorKind, FrazilError

_POLL_SECONDS = 0.2
_LOG_KEPT_BYTES = 16 * 1024 * 1024
_BACKOFF_SECONDS = (1.0, 30.0)
_GUARDIAN_SECONDS = 2.0 * processes.LEFTOVER_SECONDS + 15.0
_STEADY_SECONDS = 60.0  # a child that has run so long is not said to crash in a loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How one child is started and known to be well."""

    name: str
    command: Callable[[], Sequence[str]]  # asked at each start: addresses are known by then
    is_healthy: Callable[[], bool] = lambda: True
    start_seconds: float = 60.0
    stop_seconds: float = 20.0


@dataclass(slots=True)
class _Child:
    service: Service
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    crashes: int = 0
    restart_at: float | None = None
    log: Path = field(default_factory=Path)


class Supervisor:
    """Keeps a list of services running for one data folder; a context manager.

    Entering starts them in order, each once the one before is healthy; leaving stops them in reverse order.
    `say` gets one sentence for everything a person should know.
    """

    def __init__(
        self,
        services: Sequence[Service],
        data_dir: Path,
        say: Callable[[str], None],
        *,
        prepare: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`prepare` is called once the data folder is ours and free of leftovers, before anything starts."""
        self.data_dir = data_dir.resolve()
        self._children = [_Child(service) for service in services]
        self._say = say
        self._prepare = prepare
        self._clock = clock
        self._notes = self.data_dir / "run"
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Supervisor:
        """Take the data folder, stop what an earlier run left, start everything; raises FrazilError."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock_data_dir(self.data_dir))
            self._stop_leftovers()
            self._prepare()
            if self._children:
                first = self._children[0].service.name
                stack.enter_context(guardian.guarded(self.data_dir, self._notes, self.log_of(guardian.NAME), last=first))
            stack.callback(self._stop_all)
            for child in self._children:
                self._start(child)
                self._await_health(child)
            self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._watcher.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop everything in reverse order."""
        self._stack.close()

    def log_of(self, name: str) -> Path:
        """Return the log file of a service."""
        return self.data_dir / "logs" / f"{name}.log"

    # -------------------------------------------------------------------------------------------------------- starting
    def _start(self, child: _Child) -> None:
        child.log = self.log_of(child.service.name)
        child.log.parent.mkdir(parents=True, exist_ok=True)
        if child.log.exists() and child.log.stat().st_size > _LOG_KEPT_BYTES:
            child.log.replace(child.log.with_suffix(".log.1"))
        environment = {**os.environ, MARK: str(self.data_dir)}
        with child.log.open("ab") as log:  # a file, not a pipe: it outlives this process
            child.process = subprocess.Popen(
                list(child.service.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only this process, which stops them in order
            )
        child.started_at, child.restart_at = self._clock(), None
        record = processes.record_of(child.service.name, child.process.pid)
        if record is not None:
            processes.write_record(self._notes, record)

    def _await_health(self, child: _Child) -> None:
        give_up_at = self._clock() + child.service.start_seconds
        while not child.service.is_healthy():
            code = child.process.poll() if child.process is not None else None
            if code is not None:
                problem = f"stopped at once ({_end_in_words(code)})"
            elif self._clock() > give_up_at:
                problem = f"did not become ready in {child.service.start_seconds:.0f} s"
            else:
                time.sleep(_POLL_SECONDS / 2)
                continue
            raise FrazilError(
                "SERVICE_NOT_STARTED",
                f"The {child.service.name} service {problem}: {last_line(child.log)} (its log: {child.log})",
                kind=ErrorKind.UNAVAILABLE,
            )

    # -------------------------------------------------------------------------------------------------------- watching
    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            for child in self._children:
                self._look_after(child)

    def _look_after(self, child: _Child) -> None:
        now = self._clock()
        if child.restart_at is not None:
            if now >= child.restart_at:
                self._start_again(child)
            return
        code = child.process.poll() if child.process is not None else None
        if code is None:
            return
        child.crashes = 1 if now - child.started_at > _STEADY_SECONDS else child.crashes + 1
        delay = restart_delay_seconds(child.crashes)
        child.restart_at = now + delay
        self._say(
            f"The {child.service.name} service ended ({_end_in_words(code)}){_last_words(child.log, code)}; "
            f"starting it again in {delay:.0f} s. Its log: {child.log}"
        )

    def _start_again(self, child: _Child) -> None:
        try:
            self._start(child)
        except OSError as error:  # the program is gone or the disk is full: try again, as after a crash
            child.crashes += 1
            child.restart_at = self._clock() + restart_delay_seconds(child.crashes)
            self._say(f"The {child.service.name} service cannot be started ({error}); trying again.")

    # -------------------------------------------------------------------------------------------------------- stopping
    def _stop_all(self) -> None:
        with undisturbed():
            self._stopping.set()
            if self._watcher is not None:
                self._watcher.join()
            for child in reversed(self._children):
                self._stop(child)
            left = processes.find_marked(MARK, str(self.data_dir))  # workers whose agent was killed
            processes.stop_processes(left, deadline_seconds=10.0)

    def _stop(self, child: _Child) -> None:
        if child.process is None:
            return
        child.process.terminate()
        try:
            child.process.wait(child.service.stop_seconds)
        except subprocess.TimeoutExpired:
            self._say(f"The {child.service.name} service did not stop in {child.service.stop_seconds:.0f} s and was killed.")
            child.process.kill()
            child.process.wait()
        processes.forget_record(self._notes, child.service.name)

    def _stop_leftovers(self) -> None:
        left = processes.find_left(self._notes, self.data_dir)
        services = [record for record in left if record.name != guardian.NAME]
        if services:
            self._say(f"Stopping {len(services)} process(es) that an earlier run left behind.")
        for record in left:
            if record.name == guardian.NAME:  # it is at it: an agent that is told twice kills its workers
                processes.await_end(record, deadline_seconds=_GUARDIAN_SECONDS)
        first = next((child.service.name for child in self._children), "")
        processes.stop_left([record for record in left if record.is_alive()], last=first)
        for record in processes.read_records(self._notes):
            processes.forget_record(self._notes, record.name)


@contextlib.contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Hold a data folder for this process; the kernel lets go of it however the process ends.

    Raises FrazilError ALREADY_RUNNING when another holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "supervisor.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise FrazilError(
                "ALREADY_RUNNING",
                f"Frazil already runs on {data_dir} (process {lock.read().strip() or 'unknown'}); "
                "stop that one first or choose another folder.",
                kind=ErrorKind.CONFLICT,
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold off Ctrl-C and SIGTERM while things are stopped in order; they are being stopped already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block as Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def restart_delay_seconds(crashes: int) -> float:
    """Return how long to wait before a child that has crashed so often in a row is started again: 1, 2, 4 … 30 s."""
    first, longest = _BACKOFF_SECONDS
    return min(longest, first * 2.0 ** (min(crashes, 10) - 1))


def last_line(log: Path) -> str:
    """Return the last thing a log says, shortened; of a structured line the sentence or the error."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        lines = []
    return _in_words(lines[-1])[-300:] if lines else "it said nothing"


def _in_words(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict):
        return line
    exception = str(record.get("exception", "")).strip()
    return str(record.get("sentence") or exception.rpartition("\n")[2] or record.get("event") or line)


def _last_words(log: Path, code: int) -> str:
    return f": {last_line(log)}" if code > 0 else ""  # a killed process's last line is not about its end


def _end_in_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
