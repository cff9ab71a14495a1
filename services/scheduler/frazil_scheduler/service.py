"""One running scheduler: the ledger, the server, and what is due every second."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy import RowMapping, select

from frazil.api.agent.v1 import agent_pb2, agent_pb2_grpc
from frazil.api.event.v1 import event_pb2, event_pb2_grpc
from frazil.api.exposure.v1 import exposure_pb2, exposure_pb2_grpc
from frazil.api.reconstruction.v1 import reconstruction_pb2, reconstruction_pb2_grpc
from frazil.api.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from frazil.api.session.v1 import session_pb2, session_pb2_grpc
from frazil.api.worker.v1 import worker_pb2, worker_pb2_grpc
from frazil.model.errors import FrazilError
from frazil.rpc.failpoints import operation
from frazil.rpc.server import RunningServer, start_server
from frazil_scheduler.clock import Clock
from frazil_scheduler.cluster.loop import Clusters
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.deleting import Deleter
from frazil_scheduler.domain import lanes, limits, parameters, retention, sessions, upkeep
from frazil_scheduler.domain.lanes import LaneBook
from frazil_scheduler.hub import Hub, free_bytes
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.store import Store
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.servicers.agent import AgentServicer
from frazil_scheduler.servicers.event import EventServicer
from frazil_scheduler.servicers.exposure import ExposureServicer
from frazil_scheduler.servicers.reconstruction import ReconstructionServicer
from frazil_scheduler.servicers.scheduler import SchedulerServicer
from frazil_scheduler.servicers.session import SessionServicer
from frazil_scheduler.servicers.worker import WorkerServicer

TICK_SECONDS = 1.0
SWEEPS_A_TICK = 50
ADDRESS_FILE = "scheduler.address"

SERVICE_NAMES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (session_pb2, "SessionService"),
        (exposure_pb2, "ExposureService"),
        (scheduler_pb2, "SchedulerService"),
        (agent_pb2, "AgentService"),
        (worker_pb2, "WorkerService"),
        (reconstruction_pb2, "ReconstructionService"),
        (event_pb2, "EventService"),
    )
)


class Scheduler:
    """The parts of one scheduler, and its once-a-second work."""

    def __init__(
        self,
        settings: Settings,
        lanes: Sequence[LaneSettings],
        *,
        clock: Clock | None = None,
        disk_free: Callable[[Path], int] = free_bytes,
    ) -> None:
        """Open the ledger and begin a term. Raises FrazilError when that is impossible."""
        clock = clock or Clock()
        data_dir = _make_data_dir(settings.data_dir)
        book = LaneBook(lanes)
        self.store = Store(settings.ledger_place, clock, finish=partial(upkeep.finish, lanes=book))
        self.hub = Hub(self.store, clock, book, data_dir, disk_free=disk_free)
        self.clusters = Clusters(self.hub)
        self._deleter = Deleter(self.hub)
        self._keep_events = retention.Retention(settings.events_kept_days, settings.events_kept_count)
        self.keeper: asyncio.Task[None] | None = None  # ends, with an error, only when another scheduler has taken over
        for node_id in self.store.transact(partial(_begin, book=book)):
            self.hub.beat(node_id)

    async def serve(self, address: str) -> RunningServer:
        """Start answering at `address`."""
        self.hub.listen(asyncio.get_running_loop())
        hub = self.hub
        adders = [
            partial(session_pb2_grpc.add_SessionServiceServicer_to_server, SessionServicer(hub)),
            partial(exposure_pb2_grpc.add_ExposureServiceServicer_to_server, ExposureServicer(hub)),
            partial(scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server, SchedulerServicer(hub)),
            partial(agent_pb2_grpc.add_AgentServiceServicer_to_server, AgentServicer(hub)),
            partial(worker_pb2_grpc.add_WorkerServiceServicer_to_server, WorkerServicer(hub)),
            partial(reconstruction_pb2_grpc.add_ReconstructionServiceServicer_to_server, ReconstructionServicer(hub)),
            partial(event_pb2_grpc.add_EventServiceServicer_to_server, EventServicer(hub)),
        ]
        return await start_server(adders, SERVICE_NAMES, address)

    async def tick(self) -> None:
        """Do what is due: silent nodes, overdue proofs, back-offs that are over, disks, news for the page."""
        silence = self.hub.silence()
        for node_id, connection in self.hub.connections.items():
            connection.suspect = connection.suspect or silence[node_id] >= limits.SUSPECT_SECONDS
        await self._upkeep(silence)
        for node_id, seconds in silence.items():
            if seconds >= limits.LOST_SECONDS:  # a frozen agent that wakes up must say Hello before it is believed
                self.hub.disconnect(node_id)
        await self._sweep()
        await self._look_at_full_disks()
        await self._forget_old_events()
        await self._deleter.tick()

    async def keep_up(self, seconds: float = TICK_SECONDS) -> None:
        """Tick for ever; one that fails is logged and the next one comes. Ends when another scheduler has taken over."""
        while True:
            try:
                await self.tick()
            except FrazilError as error:
                structlog.get_logger().error("tick_failed", reason=error.reason, sentence=error.sentence)
                if error.reason == "TERM_STALE":
                    raise
            except Exception as error:  # noqa: BLE001 whatever it was, the next second must still be looked after
                structlog.get_logger().error("tick_failed", exc_info=error)
            await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close the ledger once what runs has ended."""
        self.hub.notifier.close()
        await self._deleter.close()
        await asyncio.to_thread(self.store.close)

    async def _upkeep(self, silence: Mapping[str, float]) -> None:
        try:
            operation.set("Tick")
            await self.store.run(partial(upkeep.tick, silence=silence, asked=self.hub.asked, lanes=self.hub.lanes))
        except FrazilError as error:
            if error.reason == "LEDGER_UNAVAILABLE":  # nobody can say Hello: silence counts from the ledger's return
                self.hub.forgive_silence()
            raise

    async def _sweep(self) -> None:
        """Let changes reach exposures, in small transactions between which others come through."""
        for session_id in await self.store.look(parameters.unswept):
            for _ in range(SWEEPS_A_TICK):
                if not await self.store.run(partial(parameters.sweep, session_id=session_id)):
                    break

    async def _forget_old_events(self) -> None:
        last = await self.store.look(partial(retention.due, keep=self._keep_events))
        if last:
            await self.store.run(partial(retention.forget, last=last))

    async def _look_at_full_disks(self) -> None:
        """Let sessions go on whose disk has room again."""
        for row in await self.store.look(_low_on_disk):
            if self.hub.disk_check_due(row["session_id"]):
                problem = await self.hub.disk_problem(row["folder"], row["expected_bytes"], was_low=True)
                await self.store.run(partial(sessions.set_disk_problem, session_id=row["session_id"], problem=problem))


@asynccontextmanager
async def running(
    settings: Settings, lanes: Sequence[LaneSettings], *, clock: Clock | None = None, grace_seconds: float = 5.0
) -> AsyncIterator[tuple[Scheduler, str]]:
    """Run a scheduler and yield it with the address it is bound to; on leaving it drains and closes."""
    scheduler = Scheduler(settings, lanes, clock=clock)
    address_file = scheduler.hub.data_dir / ADDRESS_FILE
    try:
        server = await scheduler.serve(settings.address)
        address = f"{settings.address.rpartition(':')[0]}:{server.port}"
        _write_whole(address_file, address + "\n")
        scheduler.hub.address = _from_outside(address)
        scheduler.keeper = asyncio.create_task(scheduler.keep_up())
        clusters = asyncio.create_task(scheduler.clusters.keep_up())
        try:
            yield scheduler, address
        finally:
            scheduler.keeper.cancel()
            clusters.cancel()
            await asyncio.gather(clusters, return_exceptions=True)
            address_file.unlink(missing_ok=True)
            scheduler.hub.notifier.close()  # long waits end at once
            await server.stop(grace_seconds)
    finally:
        await scheduler.close()


def _begin(tx: Transaction, book: LaneBook) -> list[str]:
    for settings in lanes.stored(tx):
        if settings.name in book:
            continue  # since it was added, frazil.toml has come to name it
        try:
            book.put(settings, lanes.load(settings))
        except FrazilError as error:  # the other lanes' sessions must go on
            tx.notice("error", f"Lane {settings.name} cannot be used: {error.sentence}")
    upkeep.begin(tx)
    return [row["node_id"] for row in tx.all(select(tables.node.c.node_id).where(tables.node.c.state != "ENDED"))]


def _from_outside(address: str) -> str:
    """Return the address by which other machines reach a server that listens on all of this one's."""
    host, _, port = address.rpartition(":")
    return f"{platform.node()}:{port}" if host in ("", "0.0.0.0", "[::]") else address  # noqa: S104 compared only


def _low_on_disk(tx: Transaction) -> Sequence[RowMapping]:
    return tx.all(select(tables.session).where(tables.session.c.disk_problem != ""))


def _make_data_dir(path: Path) -> Path:
    path = path.absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FrazilError("DATA_DIR_UNUSABLE", f"Cannot make the data folder {path}: {error.strerror}.") from error
    return path


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
