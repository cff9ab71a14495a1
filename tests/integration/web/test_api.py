"""The JSON API against a scheduler over the wire."""

from __future__ import annotations

import asyncio
import gzip

import httpx
import pytest
from fastapi import FastAPI

from frazil.model.errors import FrazilError
from integration.web.conftest import CHANGE
from integration.web.fake_scheduler import FakeScheduler
from integration.web.fake_session import Microscope, add_resources


def _body(**changes: object) -> dict[str, object]:
    parameters = {"movie_folder": "/movies/grid7", "particle_diameter_angstrom": 140}
    return {"request_id": "request-0001", "name": "grid7", "parameters": parameters, **changes}


async def test_a_session_is_created_once_per_request_id(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    replies = [await client.post("/api/sessions", json=_body(), headers=CHANGE) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [201, 201]
    assert replies[0].json()["session"]["session_id"] == replies[1].json()["session"]["session_id"]
    listed = (await client.get("/api/sessions")).json()["sessions"]
    assert [session["name"] for session in listed] == ["grid7"]
    assert listed[0]["state"] == "paused"
    assert listed[0]["parameters"]["particle_diameter_angstrom"] == 140.0
    assert listed[0]["parameters"]["pixel_size_angstrom"] is None  # unset is not 0


async def test_a_taken_name_is_said_at_its_field(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    await ledger.add_session("grid7")
    reply = await client.post("/api/sessions", json=_body(), headers=CHANGE)
    assert reply.status_code == 409
    assert reply.json()["reason"] == "SESSION_EXISTS"
    assert "another name" in reply.json()["fields"]["name"]


async def test_the_schedulers_own_refusal_reaches_the_page(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    ledger.refuse_create = FrazilError("FOLDER_MISSING", "The folder /movies/grid7 is not there: mount it first.")
    reply = await client.post("/api/sessions", json=_body(), headers=CHANGE)
    assert (reply.status_code, reply.json()["sentence"]) == (400, "The folder /movies/grid7 is not there: mount it first.")


async def test_every_wrong_field_is_named(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    parameters = {"movie_folder": "grid7", "particle_diameter_angstrom": -1, "gain_flip": "z", "class_count": 2.5}
    reply = await client.post("/api/sessions", json=_body(name=" ", parameters=parameters), headers=CHANGE)
    assert reply.status_code == 400
    assert set(reply.json()["fields"]) == {"name", "movie_folder", "particle_diameter_angstrom", "gain_flip", "class_count"}
    assert ledger.calls == []


@pytest.mark.parametrize(("verb", "state"), [("start", "running"), ("pause", "paused"), ("complete", "completing")])
async def test_a_session_is_driven(client: httpx.AsyncClient, ledger: FakeScheduler, verb: str, state: str) -> None:
    session = await ledger.add_session("grid7")
    body = {"request_id": "request-0002"}
    reply = await client.post(f"/api/sessions/{session.session_id}/{verb}", json=body, headers=CHANGE)
    assert (reply.status_code, reply.json()["session"]["state"]) == (200, state)


async def test_a_change_needs_a_request_id(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    reply = await client.post(f"/api/sessions/{session.session_id}/start", json={}, headers=CHANGE)
    assert (reply.status_code, reply.json()["reason"]) == (400, "REQUEST_ID_MISSING")
    assert ledger.calls == []


async def test_failed_exposures_are_put_back(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    await microscope.fail(await microscope.find(), "The movie is truncated.")
    path = f"/api/sessions/{session.session_id}/retry-quarantined"
    reply = await client.post(path, json={"request_id": "request-0003"}, headers=CHANGE)
    assert reply.json() == {"count": 1}


async def test_exposures_come_in_pages_and_whole(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.5)
    exposures = [await microscope.find() for _ in range(5)]
    await microscope.finish(exposures[0])
    await microscope.fail(exposures[1], "Not a movie: <b>x</b>.")
    found, page = [], ""
    while True:
        reply = (await client.get(f"/api/sessions/grid7/exposures?size=2&page={page}")).json()
        found += [dict(zip(reply["columns"], row, strict=True)) for row in reply["rows"]]
        page = reply["next_page"]
        if not page:
            break
    assert [exposure["number"] for exposure in found] == [1, 2, 3, 4, 5]
    assert [exposure["state"] for exposure in found] == ["done", "quarantined", "ready", "ready", "ready"]
    assert found[1]["failure"] == "Not a movie: <b>x</b>."  # JSON carries text; only the page turns it into letters
    assert found[0]["finish_time"] == 1000.5
    whole = (await client.get(f"/api/exposures/{found[0]['exposure_id']}")).json()["exposure"]
    assert whole["result"]["stage_seconds"]["motion"] == 4.1
    assert whole["version"] == found[0]["version"] != ""
    assert whole["file"]["relative_path"] == found[0]["relative_path"]


async def test_an_unknown_exposure_is_not_found(client: httpx.AsyncClient) -> None:
    reply = await client.get("/api/exposures/nope")
    assert (reply.status_code, reply.json()["reason"]) == (404, "EXPOSURE_NOT_FOUND")


async def test_numbers_that_are_none_become_null(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    exposure = await microscope.find()
    await microscope.finish(exposure)
    exposure.result.ClearField("ctf_fit_resolution_angstrom")
    exposure.result.defocus_u_angstrom = float("nan")
    exposure.result.motion_total_angstrom = float("inf")
    row = dict(
        zip(*(lambda t: (t["columns"], t["rows"][0]))((await client.get("/api/sessions/grid7/exposures")).json()), strict=True)
    )
    assert row["ctf_fit_resolution_angstrom"] is None
    assert row["defocus_u_angstrom"] is None
    assert row["motion_total_angstrom"] is None
    whole = (await client.get(f"/api/exposures/{exposure.exposure_id}")).json()["exposure"]["result"]
    assert whole["defocus_u_angstrom"] is None
    assert whole["ctf_fit_resolution_angstrom"] is None


async def test_resources_say_who_holds_and_why_one_waits(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    await add_resources(ledger, session.session_id, now=10_000.0)
    nodes = (await client.get("/api/nodes")).json()["nodes"]
    held = nodes[0]["slots"][0]
    assert (held["kind"], held["lease"]["job_id"], held["lease"]["state"]) == ("gpu", "j1", "held")
    assert held["lease"]["grant_time"] == 10_000.0 - 2700
    assert nodes[2]["state"] == "lost"
    assert nodes[1]["slots"][1]["lease"] is None
    jobs = (await client.get(f"/api/jobs?session={session.session_id}")).json()["jobs"]
    assert [job["state"] for job in jobs] == ["running", "running", "waiting"]
    wait = (await client.get("/api/jobs/j3/wait")).json()["wait"]
    assert wait["remedy"].startswith("Pause session")
    assert [blocker["job_id"] for blocker in wait["blockers"]] == ["j1", "j2"]
    assert [lane["name"] for lane in (await client.get("/api/lanes")).json()["lanes"]] == ["default", "gpu"]


async def test_classes_are_null_before_the_first(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    assert (await client.get("/api/sessions/grid7/classes")).json() == {"classes": None}
    assert (await client.get("/api/sessions/other/classes")).status_code == 404
    await Microscope(ledger, session, clock=lambda: 5.0).publish_classes(class_count=12, particle_count=900)
    classes = (await client.get("/api/sessions/grid7/classes")).json()["classes"]
    assert (classes["revision"], len(classes["classes"]), classes["publish_time"]) == (1, 12, 5.0)


async def test_a_snapshot_has_the_newest_sequence_and_every_record(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    for _ in range(1203):  # three pages of exposures
        await microscope.find()
    await microscope.publish_classes(class_count=10)
    await add_resources(ledger, session.session_id, now=1000.0)
    reply = (await client.get("/api/sessions/grid7/snapshot")).json()
    assert reply["sequence"] == len(ledger.events)
    assert [row[1] for row in reply["exposures"]["rows"]] == list(range(1, 1204))
    assert reply["classes"]["revision"] == 1
    assert (len(reply["nodes"]), len(reply["jobs"]), len(reply["lanes"])) == (3, 3, 2)
    everything = (await client.get("/api/snapshot")).json()
    assert everything["sequence"] == len(ledger.events)
    assert [found["counts"]["found"] for found in everything["sessions"]] == [1203]
    await microscope.find()
    assert (await client.get("/api/snapshot")).json()["sequence"] == len(ledger.events)


async def test_json_travels_compressed(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    for _ in range(200):
        await microscope.find()
    async with client.stream("GET", "/api/sessions/grid7/snapshot", headers={"Accept-Encoding": "gzip"}) as reply:
        raw = b"".join([chunk async for chunk in reply.aiter_raw()])
    assert reply.headers["content-encoding"] == "gzip"
    assert len(raw) * 4 < len(gzip.decompress(raw))


async def test_an_unreachable_scheduler_is_said_and_recovers(
    app: FastAPI, client: httpx.AsyncClient, ledger: FakeScheduler
) -> None:
    await ledger.add_session("grid7")
    assert (await client.get("/api/sessions")).status_code == 200
    await ledger.stop()
    reply = await client.get("/api/sessions")
    assert (reply.status_code, reply.json()["reason"]) == (503, "SCHEDULER_UNREACHABLE")
    assert ledger.address in reply.json()["sentence"]
    assert (await client.get("/healthz")).json() == {"status": "ok", "scheduler": "unreachable"}
    await ledger.start(ledger.address)
    await asyncio.wait_for(app.state.scheduler._channel.channel_ready(), 10)
    assert (await client.get("/api/sessions")).status_code == 200
    assert (await client.get("/healthz")).json()["scheduler"] == "reachable"
