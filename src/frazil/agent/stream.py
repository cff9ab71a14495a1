"""The agent's one stream to the scheduler: dialled for ever, with the asyncio loop free of any work but carrying messages."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import structlog

from frazil.agent.control import Control
from frazil.api.agent.v1.agent_pb2 import ConnectRequest
from frazil.api.agent.v1.agent_pb2_grpc import AgentServiceStub
from frazil.rpc.client import open_aio_channel
from frazil.rpc.errors import from_rpc_error
from frazil.rpc.failpoints import failpoint

TICK_SECONDS = 0.25
BEAT_SECONDS = 5.0
_RECONNECT_SECONDS = (0.2, 5.0)
_GRACE_SECONDS = 5.0  # after the drain's deadline, for the last reports
_NOT_WANTED = "AGENT_NOT_WANTED"

Result = TypeVar("Result")


class AgentStream:
    """Carries messages between `Control`, which runs on one thread of its own, and the scheduler."""

    def __init__(self, control: Control, scheduler_address: str, *, beat_seconds: float = BEAT_SECONDS) -> None:
        self._control = control
        self._address = scheduler_address
        self._beat_seconds = beat_seconds
        self._thread = ThreadPoolExecutor(1, "control")
        self._outbox: deque[ConnectRequest] = deque()
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()  # nothing runs, nothing waits to be sent
        self._connected = False
        self._log = structlog.get_logger()

    async def run(self, stop: asyncio.Event, *, drain_seconds: float = 30.0) -> None:
        """Serve until `stop` is set, then drain the workers and report their ends before returning.

        `stop` is set here when the scheduler does not want this agent, and when its one lease is over.
        """
        tasks = [asyncio.create_task(self._tick_for_ever(stop)), asyncio.create_task(self._connect_for_ever(stop))]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # neither ever ends by itself: this raises what ended it
            await _first_ended(self._drain(drain_seconds), tasks[0])
        finally:
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            self._thread.shutdown()

    async def kill_workers(self) -> None:
        """End every worker at once: somebody insists."""
        await self._on_thread(self._control.drain, 0.0)

    async def _on_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _post(self, messages: list[ConnectRequest]) -> None:
        if messages:
            self._outbox.extend(messages)
            self._wake.set()

    async def _tick_for_ever(self, stop: asyncio.Event) -> None:
        await self._on_thread(self._control.adopt)
        while True:
            self._post(await self._on_thread(self._control.tick))
            if self._control.busy or (self._outbox and self._connected):
                self._quiet.clear()
            else:
                self._quiet.set()
                if self._control.over:
                    stop.set()
            await asyncio.sleep(TICK_SECONDS)

    async def _drain(self, seconds: float) -> None:
        """Wait for the workers' ends and for their reports to leave; an absent scheduler is not waited for."""
        self._log.info("agent_draining", workers=len(self._control.workers), seconds=seconds)
        self._post([self._control.leaving(seconds)])
        await self._on_thread(self._control.drain, seconds)
        self._quiet.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), seconds + _GRACE_SECONDS)

    # ---------------------------------------------------------------------------------------------------- connections
    async def _connect_for_ever(self, stop: asyncio.Event) -> None:
        low, high = _RECONNECT_SECONDS
        ceiling = low
        said = ""
        async with open_aio_channel(self._address) as channel:
            while True:
                try:
                    await self._connect(AgentServiceStub(channel))
                    reason = "the scheduler ended the stream"
                except grpc.aio.AioRpcError as error:
                    refusal = from_rpc_error(error)
                    reason = refusal.sentence
                    if refusal.reason == _NOT_WANTED:
                        await self.kill_workers()
                        stop.set()
                except asyncio.InvalidStateError:  # a write met a stream that had just ended
                    reason = "the stream broke"
                if self._connected:
                    ceiling, said = low, ""
                self._connected = False
                if reason != said:
                    said = reason
                    self._log.warning("scheduler_unreachable", address=self._address, sentence=reason)
                await asyncio.sleep(random.uniform(0.1, ceiling))  # noqa: S311 jitter, not a secret
                ceiling = min(high, ceiling * 2)

    async def _connect(self, stub: Any) -> None:
        """Speak on one stream until it breaks."""
        call = stub.Connect()
        try:
            await _write(call, await self._on_thread(self._control.hello))
            await _first_ended(self._receive(call), self._send(call), self._beat(call))
        finally:
            call.cancel()

    async def _receive(self, call: Any) -> None:
        while True:
            response = await call.read()
            if response is grpc.aio.EOF:
                return
            if not self._connected:
                self._connected = True
                self._log.info("scheduler_connected", address=self._address, term=response.term)
                self._wake.set()
            self._post(await self._on_thread(self._control.handle, response))

    async def _send(self, call: Any) -> None:
        """Write what waits, once the scheduler has answered Hello; a message that could not be written waits on."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox and self._connected:
                message = self._outbox[0]
                await _write(call, message)
                self._outbox.popleft()

    async def _beat(self, call: Any) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            await _write(call, await self._on_thread(self._control.beat))


async def _write(call: Any, message: ConnectRequest) -> None:
    name = f"agent.send.{message.WhichOneof('message')}"
    failpoint(f"{name}.before")
    await call.write(message)
    failpoint(f"{name}.after")


async def _first_ended(*coroutines: Awaitable[None]) -> None:
    """Run coroutines together until the first ends; the others are cancelled, and its exception is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
