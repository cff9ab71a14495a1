"""A real scheduler on a free port, and a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.service import Scheduler, running
from integration.scheduler.fakes import Client


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    """A folder with movies, or rather without."""
    folder = tmp_path / "movies"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(tmp_path: Path, ledger: str) -> Settings:
    """Settings for a free port."""
    return Settings(address="127.0.0.1:0", data_dir=tmp_path / "data", ledger=ledger)


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[tuple[Scheduler, str]]:
    """A running scheduler and its address."""
    async with running(settings, [LaneSettings(name="default")], grace_seconds=0.2) as (scheduler, address):
        yield scheduler, address


@pytest.fixture
async def client(served: tuple[Scheduler, str]) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(served[1]) as client:
        yield client
