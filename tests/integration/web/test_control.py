"""What an operator changes from the page reaches the scheduler as it was meant."""

from __future__ import annotations

import httpx
import pytest

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from integration.web.conftest import CHANGE
from integration.web.fake_scheduler import FakeScheduler

ID = "request-0001"


async def change(client: httpx.AsyncClient, path: str, **body: object) -> httpx.Response:
    return await client.post(f"/api/{path}", json={"request_id": ID, **body}, headers=CHANGE)


async def test_compute_resources_are_changed_as_they_were_read(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    compute = session_pb2.ComputeResources(
        preprocessing_lane="big",
        preprocessing_workers=3,
        priority=50,
        reconstruction_gpus=["GPU-1", "GPU-2#0"],
        wait_for_exposures=True,
        auto_pause=session_pb2.ComputeResources.AUTO_PAUSE_GRACEFUL,
        streaming_start=session_pb2.ComputeResources.STREAMING_START_ON_REQUEST,
        alternation=session_pb2.Alternation(enabled=True, update_interval_minutes=15),
    )
    session = await ledger.add_session("grid7")
    session.compute.CopyFrom(compute)
    as_shown = (await client.get("/api/sessions/grid7")).json()["session"]["compute"]
    assert as_shown["auto_pause"] == "graceful"
    assert (await change(client, "sessions/grid7/compute", compute=as_shown, now=True)).status_code == 200
    assert ledger.asked == [session_pb2.UpdateComputeRequest(request_id=ID, session="grid7", compute=compute, now=True)]


@pytest.mark.parametrize(
    ("compute", "field"),
    [
        ({"auto_pause": "sometimes"}, "auto_pause"),
        ({"wait_for_exposures": 1}, "wait_for_exposures"),
        ({"priority": -1}, "priority"),
        ({"preprocessing_gpus": "GPU-1"}, "preprocessing_gpus"),
        ({"alternation": {"update_interval_minutes": 1.5}}, "update_interval_minutes"),
        ({"gpus": 4}, "gpus"),
    ],
)
async def test_a_wrong_value_is_named(
    client: httpx.AsyncClient, ledger: FakeScheduler, compute: dict[str, object], field: str
) -> None:
    reply = await change(client, "sessions/grid7/compute", compute=compute)
    assert reply.status_code == 400
    assert set(reply.json()["fields"]) == {field}
    assert ledger.asked == []


async def test_advice_on_what_is_being_typed(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    reply = await client.post("/api/advice", json={"parameters": {"camera": "k3"}, "compute": {}}, headers=CHANGE)
    assert reply.json()["advice"]["sentences"] == ["Everything runs together."]
    (asked,) = ledger.asked
    assert asked.parameters.camera == "k3"
    assert asked.HasField("compute")
    assert asked.session == ""


async def test_every_lever_reaches_the_scheduler(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    wishes = [
        (
            "sessions/grid7/switch",
            {"jobs": {"preprocess": 1}},
            session_pb2.SwitchPlanRequest(session="grid7", jobs={"preprocess": 1}),
        ),
        (
            "sessions/grid7/streaming/stop",
            {"job_type": "class2d_streaming"},
            session_pb2.StopStreamingJobRequest(session="grid7", job_type="class2d_streaming"),
        ),
        ("sessions/grid7/clone", {"name": "grid8"}, session_pb2.CloneSessionRequest(session="grid7", name="grid8")),
        (
            "sessions/grid7/delete",
            {"delete_results": True},
            session_pb2.DeleteSessionRequest(session="grid7", delete_results=True),
        ),
        ("jobs/j1/kill", {}, scheduler_pb2.KillJobRequest(job_id="j1")),
        ("jobs/j1/requeue", {}, scheduler_pb2.RequeueJobRequest(job_id="j1")),
        (
            "slots/drain",
            {"slot_key": "GPU-1#0", "reason": "hot"},
            scheduler_pb2.DrainGpuRequest(slot_key="GPU-1#0", reason="hot"),
        ),
    ]
    for path, body, expected in wishes:
        assert (await change(client, path, **body)).status_code == 200, path
        expected.request_id = ID
        assert ledger.asked[-1] == expected


async def test_unknown_verbs_and_bodies_are_refused(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    assert (await change(client, "jobs/j1/explode")).status_code == 404
    assert (await change(client, "sessions/grid7/switch", jobs={"preprocess": -1})).status_code == 400
    assert (await change(client, "slots/drain", reason="hot")).status_code == 400
    assert (await client.post("/api/jobs/j1/kill", json={"request_id": ID})).status_code == 403  # from another origin
    assert ledger.asked == []


async def test_profiles_are_listed_and_saved(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    assert (await client.get("/api/profiles")).json()["profiles"][0]["name"] == "krios"
    await change(client, "profiles", name="krios", session="grid7")
    assert ledger.asked[-1].profile.name == "krios"
    assert ledger.asked[-1].session == "grid7"
