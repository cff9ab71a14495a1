"""One lock file per slot: the kernel's lock on it is held exactly as long as the slot's worker lives.

The agent opens the file, takes the lock and hands the open descriptor to the worker, so the kernel gives the lock back when
the last holder is dead, whatever becomes of agent, container engine and scheduler. The folder must be one for all agents of
a host (bind-mounted into containers), on a local file system. The file's text is for people and for an agent that was
restarted; `amax`, the largest epoch ever accepted on the slot, makes it refuse old starts.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from frazil.model.errors import ErrorKind, FrazilError

_RECORD_BYTES = 4096  # one page, written by one call: a killed agent leaves the old text or the new


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRecord:
    """What a lock file says."""

    lease_id: str = ""
    epoch: int = 0
    job_id: str = ""
    pid: int = 0
    boot_id: str = ""
    amax: int = 0  # largest epoch ever accepted


class SlotLock:
    """A slot's lock, held by this process through `descriptor` until the block ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> SlotLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.descriptor)  # a worker that inherited it keeps the lock

    def read(self) -> LockRecord:
        """Return what the file says."""
        return _parse(os.pread(self.descriptor, _RECORD_BYTES, 0))

    def write(self, record: LockRecord) -> None:
        """Replace what the file says, on the disk before this returns."""
        text = json.dumps(dataclasses.asdict(record)).encode()
        os.pwrite(self.descriptor, text.ljust(_RECORD_BYTES - 1) + b"\n", 0)
        os.fsync(self.descriptor)


class LockFolder:
    """The lock files of a host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FrazilError(
                "LOCK_FOLDER_UNUSABLE", f"Cannot use {folder} for lock files ({error.strerror}); give --lock-dir."
            ) from error

    def path(self, slot_key: str) -> Path:
        """Return the lock file of a slot."""
        return self.folder / f"{urllib.parse.quote(slot_key, safe='#:@')}.lock"

    def take(self, slot_key: str) -> SlotLock | None:
        """Take a slot's lock, or return None when somebody holds it."""
        descriptor = os.open(self.path(slot_key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        return SlotLock(descriptor)

    def read(self, slot_key: str) -> LockRecord:
        """Return what a slot's file says, without its lock; an absent file says nothing."""
        try:
            return _parse(self.path(slot_key).read_bytes())
        except FileNotFoundError:
            return LockRecord()

    def held(self, slot_key: str) -> bool:
        """Say whether a slot's lock is held by a worker."""
        try:
            descriptor = os.open(self.path(slot_key), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not disturb each other
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def raise_amax(self, slot_key: str, epoch: int) -> bool:
        """Refuse every start up to `epoch` from now on; False, and nothing done, when the lock is held."""
        lock = self.take(slot_key)
        if lock is None:
            return False
        with lock:
            record = lock.read()
            if epoch > record.amax:
                lock.write(dataclasses.replace(record, amax=epoch))
            return True

    def take_agent_lock(self, node_id: str) -> SlotLock:
        """Take the lock of an agent's name. Raises FrazilError AGENT_RUNNING when another agent of the name runs here."""
        lock = self.take(f"agent@{node_id}")
        if lock is None:
            raise FrazilError(
                "AGENT_RUNNING",
                f"Another agent named {node_id!r} runs on this host; stop it or give this one another --node-id.",
                kind=ErrorKind.CONFLICT,
            )
        lock.write(LockRecord(pid=os.getpid()))
        return lock


def holder_of(path: Path, likely_pid: int = 0) -> int | None:
    """Return the process that holds a lock file open, or None when none is visible (another PID namespace or user).

    A worker leads its own session; its forked helpers may hold the descriptor too and are not meant. What the kernel says,
    not the number in the file, decides: process ids are used again.
    """
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return None
    others = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    for pid in (likely_pid, *others):
        if pid and pid != os.getpid() and _leads_session(pid) and _has_open(pid, wanted):
            return pid
    return None


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except (ProcessLookupError, PermissionError):
        return False


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 names only
    except OSError:
        return False  # it has ended, or belongs to another user
    for descriptor in descriptors:
        with suppress(OSError):  # closed meanwhile
            found = Path(f"/proc/{pid}/fd/{descriptor}").stat()
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False


def _parse(raw: bytes) -> LockRecord:
    """Read the text of a lock file.

    Text that makes no sense can only come from a power failure; the reboot after it ended every old worker and start, so
    nothing needs to be refused.
    """
    try:
        return LockRecord(**json.loads(raw)) if raw.strip() else LockRecord()
    except (ValueError, TypeError):
        return LockRecord()
