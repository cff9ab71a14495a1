"""What is refused, and what every answer carries."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from integration.web.conftest import CHANGE
from integration.web.fake_scheduler import FakeScheduler

BODY = {"request_id": "request-0001"}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "HEADER_MISSING"),
        ({"Origin": "http://localhost:8080"}, "HEADER_MISSING"),
        ({"X-Frazil": "1", "Origin": "http://evil.example"}, "ORIGIN_REFUSED"),
        ({"X-Frazil": "1", "Origin": "http://localhost:9999"}, "ORIGIN_REFUSED"),
        ({"X-Frazil": "1", "Origin": "null"}, "ORIGIN_REFUSED"),
        ({"X-Frazil": "1", "Sec-Fetch-Site": "cross-site"}, "ORIGIN_REFUSED"),
        ({"X-Frazil": "1", "Sec-Fetch-Site": "same-site"}, "ORIGIN_REFUSED"),
    ],
)
async def test_a_foreign_page_changes_nothing(
    client: httpx.AsyncClient, ledger: FakeScheduler, headers: dict[str, str], reason: str
) -> None:
    await ledger.add_session("grid7")
    for path in ("/api/sessions", "/api/sessions/grid7/start", "/api/sessions/grid7/retry-quarantined"):
        reply = await client.post(path, json=BODY, headers=headers)
        assert (reply.status_code, reply.json()["reason"]) == (403, reason)
    assert ledger.calls == []


@pytest.mark.parametrize("headers", [CHANGE, {"X-Frazil": "1"}])
async def test_the_own_page_and_a_script_may_change(
    client: httpx.AsyncClient, ledger: FakeScheduler, headers: dict[str, str]
) -> None:
    await ledger.add_session("grid7")
    reply = await client.post("/api/sessions/grid7/start", json=BODY, headers=headers)
    assert reply.status_code == 200


async def test_large_and_unmeasured_bodies_are_refused(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    async def endless():
        yield b"x"

    large = await client.post("/api/sessions", content=b"x" * 70_000, headers=CHANGE)
    chunked = await client.post("/api/sessions", content=endless(), headers=CHANGE)
    assert (large.status_code, chunked.status_code) == (413, 413)


async def test_a_foreign_host_name_is_refused(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rebound.example") as client:
        reply = await client.get("/api/sessions")
    assert (reply.status_code, reply.json()["reason"]) == (400, "HOST_REFUSED")


@pytest.mark.parametrize("path", ["/", "/api/sessions", "/api/exposures/nope", "/nowhere", "/assets/page-abc.js"])
async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_pages_and_assets_are_cached_as_they_should(client: httpx.AsyncClient) -> None:
    for path in ("/", "/sessions/s1", "/resources"):
        page = await client.get(path)
        assert (page.status_code, page.headers["cache-control"]) == (200, "no-cache")
        assert "text/html" in page.headers["content-type"]
    asset = await client.get("/assets/page-abc.js")
    assert "immutable" in asset.headers["cache-control"]
    assert (await client.get("/assets/../index.html")).status_code == 404
    assert (await client.get("/assets/%2e%2e/index.html")).status_code == 404
    assert (await client.get("/docs")).status_code == 404
