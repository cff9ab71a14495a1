"""A Docker engine, the compose plugin and base images, made when they are missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
INFRA = REPOSITORY / "tests/system/infra"
STATE = REPOSITORY / ".system"


@pytest.fixture(scope="session")
def compose() -> list[str]:
    """The command `docker compose`, with the plugin unpacked from Debian into .system/docker."""
    folder = STATE / "docker"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([INFRA / "compose-plugin.sh", folder], check=True, capture_output=True)
    os.environ["DOCKER_CONFIG"] = str(folder)
    return ["docker", "compose"]


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A Docker engine that answers, with the local stand-in for the Python base image."""
    subprocess.run([INFRA / "docker-engine.sh", STATE / "engine"], check=True, capture_output=True)
    subprocess.run([INFRA / "base-image.sh", "--python", "bookworm"], check=True, capture_output=True)
