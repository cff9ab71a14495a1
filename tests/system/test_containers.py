"""The CPU profile of compose.yaml, built and run by a real engine, processes a small simulated session."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from frazil.api.session.v1 import session_pb2
from frazil.client import Client
from frazil.simulator import SimulationParameters, write_session

REPOSITORY = Path(__file__).parents[2]
MOVIES = 4

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def stack(
    docker_engine: None, compose: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, str, Path]]:
    folder = tmp_path_factory.mktemp("stack")
    movies, data = folder / "movies", folder / "data"
    data.mkdir()
    parameters = SimulationParameters(movie_count=MOVIES, width_px=512, height_px=512, frame_count=12, particles_per_movie=20)
    write_session(parameters, movies, folder / "truth")
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    subprocess.run(["chmod", "a+rwx", data], check=True)
    port, web_port = free_port(), free_port()
    environment = {
        **os.environ,
        "FRAZIL_DATA": str(data),
        "FRAZIL_MOVIES": str(movies),
        "FRAZIL_PORT": str(port),
        "FRAZIL_WEB_PORT": str(web_port),
        "COMPOSE_PROJECT_NAME": "frazil-test",
    }
    command = [*compose, "--profile", "cpu"]

    def run(*arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [*command, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    try:
        run("up", "--build", "--detach", "--wait", "--wait-timeout", "120")
        client = Client(f"127.0.0.1:{port}")
        yield client, f"http://127.0.0.1:{web_port}", data
        client.close()
    finally:
        (folder / "compose.log").write_text(run("logs", "--no-color", check=False))
        run("down", "--volumes", "--timeout", "10", check=False)


def test_a_session_runs_through_the_containers(stack: tuple[Client, str, Path]) -> None:
    client, page, data = stack
    parameters = session_pb2.SessionParameters(
        movie_folder="/movies", particle_diameter_angstrom=180, class_count=4, gain_path="/movies/gain.mrc"
    )
    session = client.create_session("containers", parameters)
    client.start(session.session_id)
    deadline = time.monotonic() + 600
    while client.get_session(session.session_id).counts.found < MOVIES:
        assert time.monotonic() < deadline, "ingest did not find the movies"
        time.sleep(1)
    client.complete(session.session_id)
    while (now := client.get_session(session.session_id)).state != session_pb2.Session.STATE_COMPLETED:
        assert time.monotonic() < deadline, f"still {session_pb2.Session.State.Name(now.state)}: {now.counts}"
        time.sleep(1)
    assert (now.counts.done, now.counts.quarantined) == (MOVIES, 0)
    exposures = list(client.exposures(session.session_id))
    assert all((data / "containers" / e.result.folder / e.result.micrograph).stat().st_size > 512 * 512 * 4 for e in exposures)
    classes = client.class_averages(session.session_id)
    assert classes is not None
    assert classes.final
    assert classes.particle_count == now.counts.particles > 0
    assert (data / "containers" / classes.averages).exists()
    with urllib.request.urlopen(f"{page}/api/sessions", timeout=10) as reply:  # noqa: S310 our own loopback address
        assert "containers" in json.dumps(json.load(reply))
