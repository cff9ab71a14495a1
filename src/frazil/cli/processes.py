"""Who a process is, beyond its number: identity by boot and start time, so that no stranger is ever signalled.

What a supervisor starts is known twice: by notes, one file per service, and by a mark in the environment, which the workers
of an agent inherit.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from frazil.io.atomic import write_text

MARK = "FRAZIL_SUPERVISED_BY"  # environment variable: the data folder of the supervisor
LEFTOVER_SECONDS = 20.0  # for what is left to end, before it is killed
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """A process as it was started: number, boot and start time in clock ticks since the boot."""

    name: str
    pid: int
    boot_id: str
    start_ticks: int

    def is_alive(self) -> bool:
        """Say whether this very process runs (a zombie does not)."""
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks


def boot_id() -> str:
    """Return the kernel's boot id: another one proves that every older process is dead."""
    return _BOOT_ID.read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None when there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def record_of(name: str, pid: int) -> ProcessRecord | None:
    """Return the record of a running process; None when it has ended already."""
    ticks = start_ticks(pid)
    return None if ticks is None else ProcessRecord(name=name, pid=pid, boot_id=boot_id(), start_ticks=ticks)


def write_record(folder: Path, record: ProcessRecord) -> None:
    """Note a process in `folder`, one file per name."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{record.name}.json", json.dumps(asdict(record)))


def read_records(folder: Path) -> list[ProcessRecord]:
    """Return the processes noted in `folder`; what is not such a note is passed over."""
    records = []
    for file in sorted(folder.glob("*.json")):
        with contextlib.suppress(ValueError, TypeError):
            records.append(ProcessRecord(**json.loads(file.read_text())))
    return records


def forget_record(folder: Path, name: str) -> None:
    """Remove the note of a process."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def find_marked(variable: str, value: str) -> list[ProcessRecord]:
    """Return this user's processes that were started with the environment variable `variable` set to `value`."""
    marker = f"{variable}={value}".encode()
    records = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                record = record_of("marked", int(entry.name))
                records += [record] if record is not None else []
    return records


def find_left(notes: Path, data_dir: Path) -> list[ProcessRecord]:
    """Return the processes of a data folder that are alive: those noted, then those marked only."""
    noted = [record for record in read_records(notes) if record.is_alive()]
    known = {record.pid for record in noted}
    return noted + [record for record in find_marked(MARK, str(data_dir)) if record.pid not in known]


def stop_left(left: list[ProcessRecord], *, last: str) -> None:
    """Stop processes, those named `last` once the others have ended: the others report to it."""
    for is_last in (False, True):
        stop_processes([record for record in left if (record.name == last) is is_last], deadline_seconds=LEFTOVER_SECONDS)


def await_end(record: ProcessRecord, *, deadline_seconds: float) -> bool:
    """Wait for a process that is no child of ours; false when it still runs after the deadline."""
    with _handle(record) as fd:
        return fd is None or _ends_within(fd, deadline_seconds)


def stop_processes(records: list[ProcessRecord], *, deadline_seconds: float) -> list[ProcessRecord]:
    """Send SIGTERM to each, SIGKILL to those left after the deadline; returns those that had to be killed."""
    with contextlib.ExitStack() as stack:
        handles = [(record, stack.enter_context(_handle(record))) for record in records]
        alive = [(record, fd) for record, fd in handles if fd is not None and _send(fd, signal.SIGTERM)]
        late = [(record, fd) for record, fd in alive if not _ends_within(fd, deadline_seconds)]
        for _, fd in late:
            _send(fd, signal.SIGKILL)
        for _, fd in late:
            _ends_within(fd, 5.0)
        return [record for record, _ in late]


@contextlib.contextmanager
def _handle(record: ProcessRecord) -> Iterator[int | None]:
    """Hold on to a process so that its number cannot be given to another between the check and the signal."""
    try:
        fd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if record.is_alive() else None
    finally:
        os.close(fd)


def _send(fd: int, number: signal.Signals) -> bool:
    try:
        signal.pidfd_send_signal(fd, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _ends_within(fd: int, seconds: float) -> bool:
    """Wait for a process to end; its pidfd becomes readable then, reaped or not."""
    return bool(select.select([fd], [], [], seconds)[0])
