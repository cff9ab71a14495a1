"""The page's service before a fake scheduler: called directly, or over a socket where answers stream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from frazil_web.app import create_app
from frazil_web.events import Pace
from frazil_web.scheduler import Scheduler
from integration.web.fake_scheduler import FakeScheduler

QUICK = Pace(gather=0.02, heartbeat=0.1, silence=5.0, retry=0.02, retry_most=0.1)
CHANGE = {"X-Frazil": "1", "Origin": "http://localhost:8080"}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[FakeScheduler]:
    fake = FakeScheduler(tmp_path / "data")
    fake.address = await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def app(ledger: FakeScheduler, tmp_path: Path) -> AsyncIterator[FastAPI]:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text("<!doctype html><title>Frazil</title>")
    (dist / "assets" / "page-abc.js").write_text("void 0")
    scheduler = Scheduler(ledger.address)
    yield create_app(scheduler, pace=QUICK, dist=dist)
    await scheduler.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as found:
        yield found


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncIterator[str]:
    """Serve the application on a free port of loopback; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:  # clients may connect before the server accepts
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, lifespan="off")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
