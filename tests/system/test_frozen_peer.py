"""A peer that is frozen (SIGSTOP), while its machine still answers, is noticed within 30 s by gRPC's pings, on either side.

The operating system knows nothing of it, and without `grpc.http2.ping_timeout_ms` it takes 80 seconds.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from frazil.api.agent.v1 import agent_pb2, agent_pb2_grpc
from frazil.rpc.client import open_aio_channel
from frazil.rpc.server import start_server

pytestmark = [pytest.mark.system, pytest.mark.timeout(150)]

NOTICED_SECONDS = 30.0
SLACK_SECONDS = 3.0  # of a busy machine

SERVER = """
import asyncio, sys
from frazil.api.agent.v1 import agent_pb2, agent_pb2_grpc
from frazil.rpc.server import start_server

class Servicer(agent_pb2_grpc.AgentServiceServicer):
    async def Connect(self, requests, context):
        async for _ in requests:
            yield agent_pb2.ConnectResponse(term=1)

async def main():
    add = lambda server: agent_pb2_grpc.add_AgentServiceServicer_to_server(Servicer(), server)
    running = await start_server([add], [], "127.0.0.1:0")
    print(running.port, file=sys.stderr, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

CLIENT = """
import sys, time
from frazil.api.agent.v1 import agent_pb2, agent_pb2_grpc
from frazil.rpc.client import open_channel

def requests():
    yield agent_pb2.ConnectRequest(beat=agent_pb2.Beat(number=1))
    time.sleep(600)

with open_channel(sys.argv[1]) as channel:
    for _ in agent_pb2_grpc.AgentServiceStub(channel).Connect(requests()):
        pass
"""


async def spawn(code: str, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code, *arguments, stderr=PIPE)


async def end(process: Process) -> None:
    process.kill()
    await process.wait()


async def seconds_until_a_client_notices() -> float:
    server = await spawn(SERVER)
    try:
        assert server.stderr is not None
        port = int(await server.stderr.readline())
        async with open_aio_channel(f"127.0.0.1:{port}") as channel:
            call = agent_pb2_grpc.AgentServiceStub(channel).Connect()
            await call.write(agent_pb2.ConnectRequest(beat=agent_pb2.Beat(number=1)))
            await call.read()
            server.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            return time.monotonic() - began
    finally:
        await end(server)


async def seconds_until_a_server_notices() -> float:
    connected, gone = asyncio.Event(), asyncio.Event()

    class Servicer(agent_pb2_grpc.AgentServiceServicer):
        async def Connect(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            try:
                async for _ in request_iterator:
                    connected.set()
                yield agent_pb2.ConnectResponse()
            finally:
                gone.set()

    running = await start_server(
        [lambda server: agent_pb2_grpc.add_AgentServiceServicer_to_server(Servicer(), server)], [], "127.0.0.1:0"
    )
    client = await spawn(CLIENT, f"127.0.0.1:{running.port}")
    try:
        await connected.wait()
        client.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        await gone.wait()
        return time.monotonic() - began
    finally:
        await end(client)
        await running.stop(0.0)


async def test_a_frozen_peer_is_noticed_within_thirty_seconds() -> None:
    seconds = await asyncio.gather(seconds_until_a_client_notices(), seconds_until_a_server_notices())
    assert max(seconds) <= NOTICED_SECONDS + SLACK_SECONDS
