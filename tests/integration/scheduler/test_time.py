"""What time brings, by a clock that the test turns: silent agents, full disks, quiet streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from frazil.api.event.v1 import event_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil.rpc.errors import from_rpc_error
from frazil_scheduler.clock import Clock
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.domain import limits
from frazil_scheduler.service import Scheduler
from frazil_scheduler.servicers.event import EventServicer
from frazil_scheduler.stall import FLAG_SECONDS
from integration.scheduler.fakes import Agent, Client
from postgresql import Server

GIB = 1024**3


class Turned:
    """A scheduler whose clock and disk are the test's."""

    def __init__(self, settings: Settings) -> None:
        self.now = 1000.0
        self.free = 100 * GIB
        clock = Clock(monotonic=lambda: self.now)
        self.scheduler = Scheduler(settings, [LaneSettings(name="default")], clock=clock, disk_free=lambda _: self.free)

    async def pass_by(self, seconds: float) -> None:
        """Turn the clock and do what is due."""
        self.now += seconds
        await self.scheduler.tick()


@pytest.fixture
async def turned(settings: Settings) -> AsyncIterator[tuple[Turned, Client]]:
    """A scheduler that ticks only when told, and a client."""
    turned = Turned(settings)
    server = await turned.scheduler.serve(settings.address)
    async with Client(f"127.0.0.1:{server.port}") as client:
        yield turned, client
    turned.scheduler.hub.notifier.close()
    await server.stop(0.1)
    await turned.scheduler.close()


async def node_state(client: Client) -> scheduler_pb2.Node.State.ValueType:
    (node,) = (await client.scheduler.ListNodes(scheduler_pb2.ListNodesRequest())).nodes
    return node.state


async def test_while_the_ledger_is_away_no_node_is_lost_and_no_job_restarted(
    tmp_path: Path, movies: Path, postgresql_server: Server
) -> None:
    ledger = postgresql_server.new_ledger()
    turned = Turned(Settings(address="127.0.0.1:0", data_dir=tmp_path / "data", ledger=ledger))
    server = await turned.scheduler.serve("127.0.0.1:0")
    async with Client(f"127.0.0.1:{server.port}") as client:
        await client.create(movies)
        agent = Agent(client)
        await agent.dial()
        await client.start("grid1")
        token = await agent.start()
        await client.until("grid1", "RUNNING")
        postgresql_server.stop()
        for _ in range(2):
            with pytest.raises(FrazilError, match="The ledger"):
                await turned.pass_by(limits.LOST_SECONDS)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await agent._reader
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        postgresql_server.start()
        await turned.pass_by(1.0)
        assert await node_state(client) != scheduler_pb2.Node.STATE_LOST
        assert list((await agent.dial()).adopt) == [token.lease_id]
        (job,) = await client.jobs("grid1")
        assert (job.state, job.lease.epoch) == (scheduler_pb2.Job.STATE_RUNNING, token.epoch)
        await agent.hang_up()
    turned.scheduler.hub.notifier.close()
    await server.stop(0.1)
    await turned.scheduler.close()


async def test_an_agent_that_was_frozen_must_say_hello_before_it_is_believed(
    turned: tuple[Turned, Client], movies: Path
) -> None:
    world, client = turned
    await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    token = await agent.start()
    await client.until("grid1", "RUNNING")
    await world.pass_by(limits.SUSPECT_SECONDS)
    assert await node_state(client) == scheduler_pb2.Node.STATE_SUSPECT
    await world.pass_by(limits.LOST_SECONDS)
    assert await node_state(client) == scheduler_pb2.Node.STATE_LOST
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await agent._reader
    assert from_rpc_error(caught.value).reason == "HELLO_WANTED"
    (job,) = await client.jobs("grid1")
    assert job.state == scheduler_pb2.Job.STATE_WAITING
    welcome = await agent.dial()
    assert list(welcome.adopt) == [token.lease_id]
    assert await node_state(client) == scheduler_pb2.Node.STATE_UP


async def test_a_late_agent_is_up_again_with_its_next_beat(turned: tuple[Turned, Client]) -> None:
    world, client = turned
    agent = Agent(client)
    await agent.dial()
    await world.pass_by(limits.SUSPECT_SECONDS)
    assert await node_state(client) == scheduler_pb2.Node.STATE_SUSPECT
    watch = client.events.WatchEvents(event_pb2.WatchEventsRequest(after_sequence=2))
    await agent.say(beat={"number": 1})
    (event,) = (await asyncio.wait_for(watch.read(), 10)).events
    assert (event.kind, event.node.state) == ("node_up", scheduler_pb2.Node.STATE_UP)
    watch.cancel()


async def test_a_full_disk_stops_claims_until_there_is_room_again(turned: tuple[Turned, Client], movies: Path) -> None:
    world, client = turned
    session = await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    token = await agent.start()
    await client.register(session.session_id, "a.tiff")
    world.free = GIB
    assert not (await client.claim(token, wait=0)).claims
    assert (await client.get("grid1")).state_reason.startswith("Disk nearly full")
    waiting = asyncio.ensure_future(client.claim(token, wait=20))
    await asyncio.sleep(0.05)
    world.free = 2 * GIB + 1  # above the floor, but not with room to spare
    await world.pass_by(6)
    assert not waiting.done()
    world.free = 10 * GIB
    await world.pass_by(6)
    assert len((await asyncio.wait_for(waiting, 10)).claims) == 1
    assert (await client.get("grid1")).state_reason == ""


async def test_only_a_worker_that_waits_for_work_in_vain_has_an_excuse(turned: tuple[Turned, Client], movies: Path) -> None:
    world, client = turned
    session = await client.create(movies, until="class2d")
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    first, second = await agent.start(), await agent.start()
    await client.register(session.session_id, "a.tiff")
    await client.commit(first, (await client.claim(first)).claims[0])

    async def stalls_after(wait_seconds: float) -> bool:
        read = worker_pb2.ReadParticleBlocksRequest(lease=second, after_sequence=1, wait_seconds=wait_seconds)
        world.now += FLAG_SECONDS - 1
        await client.workers.ReadParticleBlocks(read)
        world.now += 2
        world.scheduler.hub.beat("node")
        await world.scheduler.tick()
        (job,) = [job for job in await client.jobs("grid1") if job.job_type == "class2d_streaming"]
        return job.stalled

    assert not await stalls_after(0.01)
    assert await stalls_after(0.0)


async def test_a_quiet_stream_has_heartbeats(turned: tuple[Turned, Client]) -> None:
    world, _ = turned
    servicer = EventServicer(world.scheduler.hub, heartbeat_seconds=0.01)
    stream = servicer.WatchEvents(event_pb2.WatchEventsRequest(), None)
    replies = [await anext(stream) for _ in range(3)]
    assert all(reply == event_pb2.WatchEventsResponse() for reply in replies)
    await stream.aclose()


async def test_counters_are_told_once_a_second_not_with_every_exposure(turned: tuple[Turned, Client], movies: Path) -> None:
    world, client = turned
    session = await client.create(movies)
    await client.start("grid1")
    await world.pass_by(1)
    before = len(await client.history())
    await client.register(session.session_id, *(f"m{number}.tiff" for number in range(10)))
    await world.pass_by(1)
    await world.pass_by(1)
    fresh = (await client.history())[before:]
    assert [event.kind for event in fresh] == ["exposure_ready"] * 10 + ["session_progress"]
    assert fresh[-1].session.counts.found == 10


async def test_a_stopping_scheduler_ends_every_wait(settings: Settings, movies: Path) -> None:
    turned = Turned(settings)
    server = await turned.scheduler.serve(settings.address)
    async with Client(f"127.0.0.1:{server.port}") as client:
        session = await client.create(movies)
        agent = Agent(client)
        await agent.dial()
        await client.start(session.name)
        token = await agent.start()
        claim = asyncio.ensure_future(client.claim(token, wait=20))
        watch = client.events.WatchEvents(event_pb2.WatchEventsRequest(after_sequence=10**6))
        reading = asyncio.ensure_future(watch.read())
        await asyncio.sleep(0.1)
        turned.scheduler.hub.notifier.close()
        await asyncio.wait_for(server.stop(10), 5)
        assert not (await claim).claims
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reading
        assert from_rpc_error(caught.value).reason == "SCHEDULER_STOPPING"
        await asyncio.gather(agent._reader, return_exceptions=True)
    await turned.scheduler.close()
