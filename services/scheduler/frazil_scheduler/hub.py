"""What the servicers share: the store, who waits for what, the newest events, the nodes' signs of life, the disk."""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frazil.api.agent.v1 import agent_pb2
from frazil.api.event.v1 import event_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.clock import Clock
from frazil_scheduler.domain import limits
from frazil_scheduler.domain.lanes import LaneBook
from frazil_scheduler.ledger.store import Store
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.notifier import Notifier, Pacer

TAIL_EVENTS = 4096
WATCHERS_SECONDS = 0.25  # watchers are woken at most so often: all at the same events, which are put together once
DISK_CHECK_SECONDS = 5.0
LEASES_REMEMBERED = 1000


@dataclass(slots=True)
class Connection:
    """One agent's stream."""

    node_id: str
    incarnation: str
    seen_mono: float
    closed: bool = False
    suspect: bool = False
    told_mono: dict[tuple[object, ...], float] = field(default_factory=dict)  # by order
    gpus: dict[str, agent_pb2.GpuUse] = field(default_factory=dict)  # by uuid, as of the newest beat


def free_bytes(folder: Path) -> int:
    """Return the free space at a folder, or at its nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


class Hub:
    """The shared state of one running scheduler; used on its event loop only."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        lanes: LaneBook,
        data_dir: Path,
        *,
        disk_free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.store = store
        self.clock = clock
        self.lanes = lanes
        self.lane_problems: dict[str, str] = {}
        self.address = ""  # that the server is bound to, once it is
        self.data_dir = data_dir
        self.notifier = Notifier()
        self.connections: dict[str, Connection] = {}
        self.tail: deque[event_pb2.Event] = deque(maxlen=TAIL_EVENTS)
        self.asked: dict[str, float] = {}  # by lease: when its worker last asked for work and there was none
        self._seen: dict[str, float] = {}
        self._disk_free = disk_free
        self._disk_checked: dict[str, float] = {}

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear of every commit from now on."""
        watchers = Pacer(loop, WATCHERS_SECONDS, lambda: self.notifier.notify(["watchers"]))

        def hear(done: Sequence[Transaction]) -> None:
            for tx in done:
                self.tail.extend(tx.events)
                self.notifier.notify(tx.topics)
            if any(tx.events for tx in done):
                watchers.ask()

        def committed(done: Sequence[Transaction]) -> None:
            loop.call_soon_threadsafe(hear, done)

        self.store.committed = committed

    def beat(self, node_id: str) -> None:
        """Note a sign of life."""
        self._seen[node_id] = self.clock.monotonic()

    def asked_in_vain(self, lease_id: str) -> None:
        """Note that a worker has waited for work and there was none: it lives, and it is not its fault that nothing comes."""
        if len(self.asked) >= LEASES_REMEMBERED:
            oldest = sorted(self.asked, key=self.asked.__getitem__)[: LEASES_REMEMBERED // 2]
            for lease in oldest:
                del self.asked[lease]
        self.asked[lease_id] = self.clock.monotonic()

    def gpu_use(self, node_id: str, gpu_uuid: str) -> agent_pb2.GpuUse | None:
        """Return how a GPU is used, while its agent is connected."""
        connection = self.connections.get(node_id)
        return connection.gpus.get(gpu_uuid) if connection is not None else None

    def forget(self, node_id: str) -> None:
        """Think no more of a node that is over."""
        self.disconnect(node_id)
        self._seen.pop(node_id, None)

    def silence(self) -> dict[str, float]:
        """Return for every node the seconds since its last sign of life, or since the scheduler's start."""
        now = self.clock.monotonic()
        return {node_id: now - seen for node_id, seen in self._seen.items()}

    def forgive_silence(self) -> None:
        """Count every node's silence from now on."""
        for node_id in self._seen:
            self.beat(node_id)

    def connect(self, connection: Connection) -> None:
        """Let a new stream of a node take the place of an older one."""
        self.disconnect(connection.node_id)
        self.connections[connection.node_id] = connection
        self.beat(connection.node_id)

    def disconnect(self, node_id: str) -> None:
        """End a node's stream: the agent must dial in again."""
        connection = self.connections.pop(node_id, None)
        if connection is not None:
            connection.closed = True
            self.notifier.notify([f"node:{node_id}"])

    async def disk_problem(self, folder: str, expected_bytes: int, *, was_low: bool) -> str:
        """Return one sentence when the disk of a session's folder is nearly full, else nothing."""
        floor = max(limits.DISK_FLOOR_BYTES, limits.DISK_EXPOSURES * expected_bytes)
        floor = floor * 5 // 4 if was_low else floor  # resume only with room to spare
        try:
            free = await asyncio.to_thread(self._disk_free, Path(folder))
        except OSError as error:
            return f"The session's folder {folder} cannot be used: {error.strerror}; nothing is handed out until it can."
        if free >= floor:
            return ""
        room = f"{floor / 1024**3:.1f} GiB"
        return f"Disk nearly full: {folder} has less than {room} free; make room and processing goes on by itself."

    def disk_check_due(self, session_id: str) -> bool:
        """Tell whether a session's disk was not looked at for some seconds; it counts as looked at from now on."""
        now = self.clock.monotonic()
        if now - self._disk_checked.get(session_id, -DISK_CHECK_SECONDS) < DISK_CHECK_SECONDS:
            return False
        self._disk_checked[session_id] = now
        return True

    def require_open(self) -> None:
        """Raise FrazilError SCHEDULER_STOPPING once the scheduler is about to stop."""
        if self.notifier.closed:
            raise FrazilError(
                "SCHEDULER_STOPPING", "The scheduler is stopping; dial in again in a moment.", kind=ErrorKind.UNAVAILABLE
            )
