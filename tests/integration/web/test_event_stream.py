"""Server-sent events over a real socket: nothing lost, nothing repeated, over cuts, restarts and resumes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from integration.web.conftest import serve
from integration.web.fake_scheduler import FakeScheduler
from integration.web.fake_session import Microscope, add_resources


@dataclass(frozen=True, slots=True)
class Message:
    kind: str
    id: str
    data: dict[str, Any]


async def messages(address: str, query: str, *, last: str = "") -> AsyncIterator[Message]:
    """Read a stream as a browser would."""
    headers = {"Last-Event-ID": last} if last else {}
    async with (
        httpx.AsyncClient(base_url=address, timeout=20) as client,
        client.stream("GET", f"/api/events?{query}", headers=headers) as reply,
    ):
        assert reply.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in reply.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield Message(fields["event"], fields["id"], json.loads(fields["data"]))
                fields = {}


async def sequences(address: str, query: str, *, until: int, last: str = "") -> tuple[list[int], str]:
    """Collect event numbers up to `until`; returns them and the last id."""
    found: list[int] = []
    stream = messages(address, query, last=last)
    try:
        async for message in stream:
            found += [event["sequence"] for event in message.data.get("events", [])]
            if int(message.id) >= until:
                return found, message.id
    finally:
        await stream.aclose()
    raise AssertionError("the stream ended")


async def test_history_then_live_in_order(app: FastAPI, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    for _ in range(20):
        await microscope.find()
    async with serve(app) as address:

        async def later() -> None:
            for _ in range(20):
                await microscope.run(await microscope.find())
                await asyncio.sleep(0.002)

        growing = asyncio.create_task(later())
        found, _ = await sequences(address, f"session={session.session_id}&after=0", until=61)
        await growing
    assert found == list(range(1, 62))


@pytest.mark.parametrize("cut_after", [1, 3, 7])
async def test_a_cut_stream_loses_and_repeats_nothing(app: FastAPI, ledger: FakeScheduler, cut_after: int) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    for _ in range(10):
        await microscope.find()
    ledger.cut_after = cut_after
    async with serve(app) as address:
        found, _ = await sequences(address, "after=0", until=11)
    assert found == list(range(1, 12))


async def test_a_browser_resumes_after_the_last_id(app: FastAPI, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    async with serve(app) as address:
        query = f"session={session.session_id}&after=0"
        for _ in range(5):
            await microscope.find()
        first, last = await sequences(address, query, until=6)
        for _ in range(5):
            await microscope.find()
        second, _ = await sequences(address, query, until=11, last=last)
    assert first + second == list(range(1, 12))


async def test_a_restart_of_the_scheduler_is_told_and_survived(app: FastAPI, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    seen: list[str] = []
    found: list[int] = []
    async with serve(app) as address:
        stream = messages(address, f"session={session.session_id}&after=0")
        async for message in stream:
            found += [event["sequence"] for event in message.data.get("events", [])]
            if message.kind != "heartbeat" and message.kind not in seen[-1:]:
                seen.append(message.kind)
                if message.kind == "batch" and found == [1]:
                    await ledger.stop()
                if message.kind == "outage":
                    await microscope.find()  # while nobody is connected
                    await ledger.start(ledger.address)
            if found == [1, 2]:
                break
        await stream.aclose()
    assert seen == ["batch", "outage", "recovered", "batch"]


async def test_a_quiet_stream_has_heartbeats_with_the_resume_token(app: FastAPI, ledger: FakeScheduler) -> None:
    await ledger.add_session("grid7")
    async with serve(app) as address:
        stream = messages(address, "after=1")
        beats = [await anext(stream) for _ in range(3)]
        await stream.aclose()
    assert [beat.kind for beat in beats] == ["heartbeat"] * 3
    assert {beat.id for beat in beats} == {"1"}
    assert all(beat.data["time"] > 0 for beat in beats)


async def test_a_new_ledger_asks_for_a_new_snapshot(app: FastAPI, ledger: FakeScheduler) -> None:
    await ledger.add_session("grid7")
    async with serve(app) as address:
        stream = messages(address, "after=0", last="500")
        message = await anext(stream)
        await stream.aclose()
    assert message.kind == "reset"


async def test_a_token_older_than_the_log_asks_for_a_new_snapshot(app: FastAPI, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    async with serve(app) as address:
        first = await newest(address)
        for _ in range(9):
            await microscope.find()
        ledger.forgotten = len(ledger.events) - 3
        kinds = [message.kind async for message in messages(address, f"after={first}") if message.kind != "heartbeat"]
        assert kinds == ["reset"]
        assert await newest(address) == len(ledger.events)  # though the newest that was known is forgotten too


async def newest(address: str) -> int:
    """Return the sequence of the page's snapshot."""
    async with httpx.AsyncClient(base_url=address) as client:
        return int((await client.get("/api/snapshot?session=grid7")).json()["sequence"])


async def test_an_unknown_session_ends_the_stream(app: FastAPI, ledger: FakeScheduler) -> None:
    async with serve(app) as address:
        kinds = [message async for message in messages(address, "session=nope&after=0") if message.kind != "heartbeat"]
    assert [(message.kind, message.data["reason"]) for message in kinds] == [("gone", "SESSION_NOT_FOUND")]


async def test_only_the_types_asked_for_travel_but_the_token_moves_on(app: FastAPI, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    for _ in range(5):
        await microscope.find()
    await add_resources(ledger, session.session_id, now=1000.0)
    async with serve(app) as address:
        found, last = await sequences(address, "after=0&types=session,job", until=12)
    assert found == [1, 10, 11, 12]
    assert last == "12"


async def test_exposures_travel_in_short_and_classes_whole(app: FastAPI, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    await microscope.finish(await microscope.find())
    await microscope.publish_classes(class_count=4)
    async with serve(app) as address:
        stream = messages(address, "after=2")
        records = {}
        async for message in stream:
            records |= {event["type"]: event["record"] for event in message.data.get("events", [])}
            if int(message.id) == 4:
                break
        await stream.aclose()
    assert records["exposure"]["state"] == "done"
    assert "result" not in records["exposure"]
    assert len(records["classes"]["classes"]) == 4


async def test_wrong_questions_are_refused(client: httpx.AsyncClient) -> None:
    for query in ("types=nonsense", "after=-1", "after=x"):
        assert (await client.get(f"/api/events?{query}")).status_code == 400
