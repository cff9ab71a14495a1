"""AgentService: the one stream per agent. What goes down follows from the ledger alone, and is said again until it is done."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import structlog

from frazil.api.agent.v1 import agent_pb2, agent_pb2_grpc
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.failpoints import failpoint, operation
from frazil_scheduler.cluster import pilots
from frazil_scheduler.domain import gpus, nodes
from frazil_scheduler.hub import Connection, Hub

IDLE_SECONDS = 5.0

_REPORTS: Mapping[str, Callable[..., None]] = {
    "started": nodes.started,
    "exited": nodes.exited,
    "proved_free": nodes.proved_free,
    "gpu_fault": gpus.faulty,
    "leaving": nodes.leaving,
}


class AgentServicer(agent_pb2_grpc.AgentServiceServicer):
    """See agent.proto."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._farewells: set[asyncio.Task[None]] = set()

    async def Connect(
        self, request_iterator: AsyncIterator[agent_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[agent_pb2.ConnectResponse]:
        """Reconcile at Hello, then tell what the ledger wants and hear what happened."""
        self._hub.require_open()
        hello = await _first(request_iterator)
        if hello.cluster_job_name:  # before it could take the place of its twin
            await self._hub.store.look(lambda tx: pilots.require_wanted(tx, hello))
        connection = Connection(hello.node_id, hello.incarnation, self._hub.clock.monotonic())
        self._hub.connect(connection)
        topic = f"node:{hello.node_id}"
        reader: asyncio.Task[None] | None = None
        log = structlog.get_logger().bind(node=hello.node_id, incarnation=hello.incarnation)
        try:
            operation.set("Connect.hello")
            welcome = await self._hub.store.run(lambda tx: nodes.hello(tx, hello))
            log.info("agent_connected", adopt=list(welcome.adopt), kill=list(welcome.kill))
            failpoint("scheduler.send.welcome.before")
            yield agent_pb2.ConnectResponse(term=self._hub.store.term, welcome=welcome)
            reader = asyncio.create_task(self._hear(request_iterator, connection))
            reader.add_done_callback(lambda _: self._hub.notifier.notify([topic]))
            while not reader.done() and not connection.closed:
                ticket = self._hub.notifier.ticket(topic)
                due, wait = await self._due(connection)
                for message in due:
                    failpoint(f"scheduler.send.{message.WhichOneof('message')}.before")
                    yield message
                self._hub.require_open()
                await self._hub.notifier.wait(topic, ticket, wait)
            if reader.done():
                reader.result()
            else:
                raise FrazilError("HELLO_WANTED", "This stream is over; dial in again.", kind=ErrorKind.UNAVAILABLE)
        finally:
            if reader is not None:
                reader.cancel()
            self._say_goodbye(connection)
            log.info("agent_disconnected")

    async def _hear(self, source: AsyncIterator[agent_pb2.ConnectRequest], connection: Connection) -> None:
        node_id = connection.node_id
        async for message in source:
            if connection.closed:  # lost meanwhile, or replaced: only a Hello may be believed
                return
            self._hub.beat(node_id)
            if connection.suspect:
                connection.suspect = False
                await self._hub.store.run(lambda tx: nodes.heard(tx, node_id))
            await self._take(connection, message)

    async def _take(self, connection: Connection, message: agent_pb2.ConnectRequest) -> None:
        kind = message.WhichOneof("message") or ""
        if kind == "hello":
            raise FrazilError("HELLO_TWICE", "Hello is the first message of a stream; dial in again to say it anew.")
        if kind == "beat":
            connection.gpus = {use.gpu_uuid: use for use in message.beat.gpus}
        if kind in _REPORTS:
            operation.set(f"Connect.{kind}")
            report = partial(_REPORTS[kind], node_id=connection.node_id, message=getattr(message, kind))
            await self._hub.store.run(report)

    async def _due(self, connection: Connection) -> tuple[list[agent_pb2.ConnectResponse], float]:
        """Return what to say now, and after how long to look again."""
        orders = await self._hub.store.look(lambda tx: nodes.orders(tx, connection.node_id))
        now = self._hub.clock.monotonic()
        told = {order.key: connection.told_mono[order.key] for order in orders if order.key in connection.told_mono}
        due: list[agent_pb2.ConnectResponse] = []
        wait = IDLE_SECONDS
        for order in orders:
            since = now - told.get(order.key, now - order.again_seconds)
            if since >= order.again_seconds:
                due.append(order.message)
                told[order.key] = now
                since = 0.0
            wait = min(wait, order.again_seconds - since)
        connection.told_mono = told
        return due, max(0.05, wait)

    def _say_goodbye(self, connection: Connection) -> None:
        """Grant nothing more on the node until it dials in again; done beside, for the call may already be cancelled."""
        if connection.closed:
            return
        self._hub.disconnect(connection.node_id)
        task = asyncio.create_task(self._bye(connection))
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def _bye(self, connection: Connection) -> None:
        if self._hub.notifier.closed:
            return
        operation.set("Connect.bye")
        try:
            await self._hub.store.run(lambda tx: nodes.bye(tx, connection.node_id, connection.incarnation))
        except FrazilError as error:  # the node's next Hello, or its silence, tells the same
            structlog.get_logger().warning("goodbye_not_noted", node=connection.node_id, reason=error.reason)


async def _first(source: AsyncIterator[agent_pb2.ConnectRequest]) -> agent_pb2.Hello:
    async for message in source:
        if message.WhichOneof("message") == "hello":
            return message.hello
        break
    raise FrazilError("HELLO_MISSING", "The first message of an agent's stream must be Hello.")
