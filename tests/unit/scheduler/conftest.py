"""A small facility around the real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.world import World


@pytest.fixture
def world(tmp_path: Path, ledger: str) -> Iterator[World]:
    """An empty facility with a fake clock."""
    world = World(tmp_path, ledger)
    yield world
    world.store.close()
