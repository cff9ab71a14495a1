"""Lanes by file and by RPC, over the wire and over restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from frazil.api.agent.v1 import agent_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.rpc.client import new_request_id
from frazil.rpc.errors import from_rpc_error
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.service import running
from integration.scheduler.fakes import Agent, Client

FILE = [LaneSettings(name="default"), LaneSettings(name="big", options={"nodes": ["h200-*"]})]


def lane(name: str, backend: str = "node", **options: Any) -> scheduler_pb2.Lane:
    return scheduler_pb2.Lane(name=name, backend=backend, options_json=json.dumps(options))


async def create(client: Client, wanted: scheduler_pb2.Lane, request_id: str = "") -> scheduler_pb2.Lane:
    request = scheduler_pb2.CreateLaneRequest(request_id=request_id or new_request_id(), lane=wanted)
    made: scheduler_pb2.Lane = await client.scheduler.CreateLane(request)
    return made


async def update(client: Client, wanted: scheduler_pb2.Lane) -> scheduler_pb2.Lane:
    request = scheduler_pb2.UpdateLaneRequest(request_id=new_request_id(), lane=wanted)
    made: scheduler_pb2.Lane = await client.scheduler.UpdateLane(request)
    return made


async def delete(client: Client, name: str) -> None:
    await client.scheduler.DeleteLane(scheduler_pb2.DeleteLaneRequest(request_id=new_request_id(), name=name))


async def lanes(client: Client) -> dict[str, scheduler_pb2.Lane]:
    reply = await client.scheduler.ListLanes(scheduler_pb2.ListLanesRequest())
    return {lane.name: lane for lane in reply.lanes}


async def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc_error(caught.value)
    return error.reason, error.sentence


async def test_a_lane_added_by_rpc_is_used_at_once_and_over_restarts(settings: Settings, movies: Path) -> None:
    async with running(settings, FILE, grace_seconds=0.2) as (_, address), Client(address) as client:
        made = await create(client, lane("live", nodes=["live-*"]))
        assert (made.from_file, list(made.node_globs)) == (False, ["live-*"])
        wanted = session_pb2.Session(name="grid1")
        wanted.parameters.movie_folder = str(movies)
        wanted.parameters.particle_diameter_angstrom = 140
        wanted.parameters.until = "preprocess"
        wanted.compute.preprocessing_lane = "live"
        session = await client.sessions.CreateSession(
            session_pb2.CreateSessionRequest(request_id=new_request_id(), session=wanted)
        )
        await client.start("grid1")
        await client.register(session.session_id, "movie")
        stranger, member = Agent(client, "other-1", 1), Agent(client, "live-1", 1)
        await stranger.dial()
        await member.dial()
        await member.start()
        (job,) = await client.jobs("grid1")
        assert job.lease.slot_key == "GPU-live-1-0#0"
        await stranger.hang_up()
        await member.hang_up()
    async with running(settings, FILE, grace_seconds=0.2) as (_, address), Client(address) as client:
        assert {name: entry.from_file for name, entry in (await lanes(client)).items()} == {
            "big": True,
            "default": True,
            "live": False,
        }
        reason, sentence = await refusal(delete(client, "live"))
        assert reason == "LANE_IN_USE"
        assert "grid1" in sentence


async def test_options_are_changed_and_an_unused_lane_is_removed(client: Client) -> None:
    await create(client, lane("live", nodes=["a"]))
    assert list((await update(client, lane("live", nodes=["b"]))).node_globs) == ["b"]
    assert list((await lanes(client))["live"].node_globs) == ["b"]
    await delete(client, "live")
    assert "live" not in await lanes(client)
    assert (await refusal(delete(client, "live")))[0] == "LANE_UNKNOWN"


async def test_a_repeated_request_does_nothing_twice_and_brings_nothing_back(client: Client) -> None:
    for _ in range(2):
        await create(client, lane("live", nodes=["a"]), "once")
    await delete(client, "live")
    await create(client, lane("live", nodes=["a"]), "once")
    assert "live" not in await lanes(client)


async def test_lanes_of_the_file_are_changed_there(settings: Settings) -> None:
    async with running(settings, FILE, grace_seconds=0.2) as (_, address), Client(address) as client:
        for call in (update(client, lane("big", nodes=["x"])), delete(client, "big")):
            reason, sentence = await refusal(call)
            assert reason == "LANE_FROM_FILE"
            assert "frazil.toml" in sentence
        assert (await refusal(create(client, lane("big"))))[0] == "LANE_EXISTS"


@pytest.mark.parametrize(
    ("wanted", "reason", "words"),
    [
        (lane("a b"), "CONFIG_INVALID", "no name for a lane"),
        (lane("../x"), "CONFIG_INVALID", "no name for a lane"),
        (lane("x", "nodes"), "LANE_BACKEND_UNKNOWN", "known are kubernetes, node, slurm"),
        (lane("x", node="a"), "CONFIG_INVALID", "does not know node"),
        (lane("x", "slurm", max_jobs=0), "CONFIG_INVALID", "the least is 1"),
        (lane("x", "slurm", vars=3), "CONFIG_INVALID", "must be a table"),
        (lane("x", "slurm", vars={"partition": "gpu; id"}), "CONFIG_INVALID", "may hold letters"),
        (lane("x", "slurm", agent="/bin/anything"), "LANE_OPTION_RESERVED", "can only be set under [lanes.x] in frazil.toml"),
        (lane("x", "kubernetes", image="any/thing"), "LANE_OPTION_RESERVED", "can only be set under [lanes.x]"),
        (scheduler_pb2.Lane(name="x", options_json="{"), "LANE_OPTIONS_INVALID", "is no JSON"),
    ],
)
async def test_what_cannot_be_used_is_refused_in_one_sentence(
    client: Client, wanted: scheduler_pb2.Lane, reason: str, words: str
) -> None:
    refused = await refusal(create(client, wanted))
    assert refused[0] == reason
    assert words in refused[1]
    assert wanted.name not in await lanes(client)


async def test_a_lane_that_became_unusable_does_not_keep_the_scheduler_from_starting(settings: Settings) -> None:
    async with running(settings, FILE, grace_seconds=0.2) as (scheduler, address), Client(address) as client:
        await create(client, lane("live", nodes=["a"]))
        await scheduler.store.run(
            lambda tx: tx.connection.exec_driver_sql("UPDATE lane SET options = '{\"gone\": 1}' WHERE name = 'live'")
        )
    async with running(settings, FILE, grace_seconds=0.2) as (_, address), Client(address) as client:
        assert "live" not in await lanes(client)
        notices = [event.notice.sentence for event in await client.history() if event.kind == "notice"]
        assert any("Lane live cannot be used" in sentence for sentence in notices)
        await delete(client, "live")
        await create(client, lane("live", nodes=["b"]))


async def test_the_agent_of_a_cluster_job_that_nobody_knows_is_sent_away(client: Client) -> None:
    call = client.agents.Connect()
    hello = agent_pb2.Hello(node_id="frazil-00000000", boot_id="b", incarnation="i", cluster_job_name="frazil-00000000")
    await call.write(agent_pb2.ConnectRequest(hello=hello))
    reason, sentence = await refusal(call.read())
    assert reason == "AGENT_NOT_WANTED"
    assert "must leave" in sentence
    assert (await client.scheduler.ListNodes(scheduler_pb2.ListNodesRequest())).nodes == []
