"""The stream over a real channel, with a control that only notes what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from frazil.agent import stream as module
from frazil.agent.control import Control
from frazil.agent.stream import AgentStream
from frazil.api.agent.v1.agent_pb2 import (
    Beat,
    ConnectRequest,
    ConnectResponse,
    Exited,
    Hello,
    Leaving,
    ProvedFree,
    Started,
    Welcome,
)
from frazil.api.agent.v1.agent_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from frazil.rpc.server import RunningServer, start_server


class NotingControl:
    def __init__(self) -> None:
        self.handled: list[str] = []
        self.to_report: list[ConnectRequest] = []
        self.threads: set[str] = set()
        self.busy = False
        self.over = False
        self.workers = ()
        self.drained: list[float] = []
        self.beats = 0

    def adopt(self) -> None:
        self.threads.add(threading.current_thread().name)

    def hello(self) -> ConnectRequest:
        self.threads.add(threading.current_thread().name)
        return ConnectRequest(hello=Hello(node_id="node"))

    def beat(self) -> ConnectRequest:
        self.beats += 1
        return ConnectRequest(beat=Beat(number=self.beats))

    def handle(self, response: ConnectResponse) -> list[ConnectRequest]:
        self.threads.add(threading.current_thread().name)
        kind = response.WhichOneof("message")
        self.handled.append(str(kind))
        return [ConnectRequest(started=Started(lease_id=response.start.lease_id))] if kind == "start" else []

    def leaving(self, seconds: float) -> ConnectRequest:
        return ConnectRequest(leaving=Leaving(seconds=seconds))

    def tick(self) -> list[ConnectRequest]:
        messages, self.to_report = self.to_report, []
        return messages

    def drain(self, seconds: float) -> None:
        self.drained.append(seconds)
        self.busy = False
        self.to_report.append(ConnectRequest(proved_free=ProvedFree(slot_key="last")))


class Scheduler(AgentServiceServicer):
    def __init__(self) -> None:
        self.got: list[ConnectRequest] = []
        self.streams = 0
        self.changed = asyncio.Event()
        self.replies: asyncio.Queue[ConnectResponse | None] = asyncio.Queue()

    def kinds(self) -> list[str]:
        return [str(message.WhichOneof("message")) for message in self.got]

    async def until(self, kind: str, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.kinds().count(kind) < count:
                self.changed.clear()
                await self.changed.wait()

    async def Connect(self, requests: Any, context: Any) -> AsyncIterator[ConnectResponse]:
        self.streams += 1

        async def read() -> None:
            async for request in requests:
                self.got.append(request)
                self.changed.set()

        reader = asyncio.create_task(read())
        try:
            while self.kinds().count("hello") < self.streams:
                self.changed.clear()
                await self.changed.wait()
            yield ConnectResponse(term=1, welcome=Welcome())
            while (reply := await self.replies.get()) is not None:
                yield reply
        finally:
            reader.cancel()


@contextlib.asynccontextmanager
async def serving(scheduler: Scheduler, port: int = 0) -> AsyncIterator[RunningServer]:
    add = lambda server: add_AgentServiceServicer_to_server(scheduler, server)  # noqa: E731
    server = await start_server([add], [], f"127.0.0.1:{port}")
    try:
        yield server
    finally:
        await server.stop(0.0)


@contextlib.asynccontextmanager
async def running(control: NotingControl, port: int, beat_seconds: float = 60.0) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    stream = AgentStream(cast(Control, control), f"127.0.0.1:{port}", beat_seconds=beat_seconds)
    task = asyncio.create_task(stream.run(stop, drain_seconds=3.0))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(module, "_RECONNECT_SECONDS", (0.2, 0.3))


async def test_hello_comes_first_and_messages_are_answered() -> None:
    scheduler, control = Scheduler(), NotingControl()
    async with serving(scheduler) as server, running(control, server.port, beat_seconds=0.05):
        start = ConnectResponse(term=1)
        start.start.lease_id = "l"
        scheduler.replies.put_nowait(start)
        await scheduler.until("started")
        await scheduler.until("beat", 3)
    assert scheduler.kinds()[0] == "hello"
    assert control.handled == ["welcome", "start"]
    assert {name.split("_")[0] for name in control.threads} == {"control"}


async def test_reports_wait_for_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, control = Scheduler(), NotingControl()
    async with serving(Scheduler()) as placeholder:
        port = placeholder.port
    async with running(control, port):
        control.to_report = [ConnectRequest(exited=Exited(lease_id="l")), ConnectRequest(proved_free=ProvedFree(slot_key="s"))]
        await asyncio.sleep(0.3)
        async with serving(scheduler, port):
            await scheduler.until("proved_free")
    assert scheduler.kinds()[:3] == ["hello", "exited", "proved_free"]


async def test_broken_and_ended_streams_are_dialled_again() -> None:
    scheduler, control = Scheduler(), NotingControl()
    async with serving(scheduler) as server, running(control, server.port):
        await scheduler.until("hello")
        scheduler.replies.put_nowait(None)  # the scheduler ends the stream
        await scheduler.until("hello", 2)
        await server.stop(0.0)  # and then goes away
        successor = Scheduler()
        async with serving(successor, server.port):
            await successor.until("hello")
            control.to_report = [ConnectRequest(exited=Exited(lease_id="l"))]
            await successor.until("exited")


async def test_stop_drains_and_delivers_the_last_reports() -> None:
    scheduler, control = Scheduler(), NotingControl()
    control.busy = True
    async with serving(scheduler) as server, running(control, server.port) as stop:
        await scheduler.until("hello")
        stop.set()
        await scheduler.until("proved_free")
    assert control.drained == [3.0]
    assert scheduler.kinds() == ["hello", "leaving", "proved_free"]  # whoever is told last of a death knows why


async def test_an_agent_whose_one_lease_is_over_leaves_by_itself() -> None:
    scheduler, control = Scheduler(), NotingControl()
    async with serving(scheduler) as server, running(control, server.port) as stop:
        await scheduler.until("hello")
        control.over = True
        await asyncio.wait_for(stop.wait(), 10)


async def test_stop_without_a_scheduler_does_not_wait_for_one() -> None:
    control = NotingControl()
    async with asyncio.timeout(3):
        async with running(control, 1):
            await asyncio.sleep(0.1)
    assert control.drained == [3.0]


async def test_failing_control_ends_the_agent() -> None:
    control = NotingControl()

    def broken() -> list[ConnectRequest]:
        raise OSError("the lock folder is gone")

    control.tick = broken  # type: ignore[method-assign]
    stream = AgentStream(cast(Control, control), "127.0.0.1:1")
    with pytest.raises(OSError, match="lock folder"):
        await asyncio.wait_for(stream.run(asyncio.Event()), 5)
