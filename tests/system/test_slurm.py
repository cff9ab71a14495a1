"""A lane on a real Slurm in a container: a one-minute walltime and ten random kills; every particle is counted once."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.counting import create, feed, finish, until, write_programs
from frazil.api.scheduler.v1 import scheduler_pb2
from integration.scheduler.fakes import Client
from integration.scheduler.test_process import free_port

REPOSITORY = Path(__file__).parents[2]
MOVIES = 240
SECONDS = 240.0
LANE = {
    "backend": "slurm",
    "scheduler_address": "127.0.0.1:50051",
    "walltime_seconds": 60.0,
    "handover_seconds": 30.0,
    "drain_seconds": 15.0,  # Slurm looks at its clocks every 15 s or so
    "list_seconds": 2.0,
    "idle_seconds": 20.0,
    "num_cpu": 1,
    "ram_gb": 1,
}

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]


class Site:
    """A container with Slurm and the scheduler; the test's folder is at the same place in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        agent = write_programs(folder / "programs", "/opt/venv/bin/python3")
        lines = [f"{name} = {json.dumps(value)}" for name, value in {**LANE, "agent": agent}.items()]
        (folder / "frazil.toml").write_text("[lanes.cluster]\n" + "\n".join(lines) + '\nvars = {partition = "short"}\n')
        volume = f"{folder}:{folder}"
        arguments = ["run", "-d", "--hostname", "localhost", "-p", f"127.0.0.1:{self.port}:50051", "-v", volume, "frazil-slurm"]
        self.container = docker(*arguments).strip()

    def run(self, *command: str) -> str:
        """Run a command in the container."""
        return docker("exec", self.container, *command)

    def start(self) -> None:
        """Start the scheduler."""
        flags = f"--data-dir {self.folder}/data --address 0.0.0.0:50051 --config {self.folder}/frazil.toml"
        docker("exec", "-d", self.container, "sh", "-c", f"exec frazil-scheduler {flags} 2>> {self.folder}/scheduler.log")

    def kill_scheduler(self) -> None:
        self.run("pkill", "-9", "-f", "bin/frazil-scheduler")

    def running(self) -> list[str]:
        return self.run("squeue", "-h", "-t", "RUNNING", "-o", "%i").split()

    def log(self) -> str:
        return (self.folder / "scheduler.log").read_text()[-6000:] + self.run("squeue")


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def site(docker_engine: None, tmp_path: Path) -> Iterator[Site]:
    """A Slurm cluster whose nodes are idle, and a scheduler."""
    docker("build", "-q", "--target", "scheduler", "-t", "frazil/scheduler:local", str(REPOSITORY))
    docker("build", "-q", "-t", "frazil-slurm", str(REPOSITORY / "tests/system/infra/slurm"))
    site = Site(tmp_path)
    try:
        deadline = time.monotonic() + 60
        while "idle" not in docker("exec", site.container, "sh", "-c", "sinfo -h -p short -o %T 2>&1 || true"):
            assert time.monotonic() < deadline, docker("logs", site.container)
            time.sleep(0.5)
        site.start()
        yield site
    finally:
        docker("rm", "-f", site.container)


async def test_ten_kills_and_one_minute_walltimes_leave_every_particle_counted_once(site: Site, tmp_path: Path) -> None:
    chance = random.Random(20261125)
    movies = tmp_path / "movies"
    movies.mkdir()
    async with Client(f"127.0.0.1:{site.port}") as client:
        session = await create(client, movies)
        feeding = asyncio.create_task(feed(client, session.session_id, MOVIES, 0.8))

        async def some_running() -> list[str]:
            return site.running()

        for kill in chance.sample(["scheduler"] * 4 + ["cancel"] * 4 + ["kill"] * 2, 10):
            await asyncio.sleep(chance.uniform(5.0, 20.0))
            if kill == "scheduler":
                site.kill_scheduler()
                site.start()
                continue
            number = chance.choice(await until(some_running, site.log, SECONDS))
            site.run("scancel", *(["--signal=KILL", "--full"] if kill == "kill" else []), number)
        await feeding
        await finish(client, session.session_id, MOVIES, site.log)


async def test_a_job_that_waits_is_told_slurms_own_words(site: Site, tmp_path: Path) -> None:
    for _ in range(8):
        site.run("sbatch", "--gres=gpu:1", "--mem=100", "-p", "live", "-o", "/dev/null", "--wrap", "sleep 300")
    async with Client(f"127.0.0.1:{site.port}") as client:
        (tmp_path / "movies").mkdir()
        session = await create(client, tmp_path / "movies", until="preprocess")
        await client.register(session.session_id, "movie")

        async def told() -> bool:
            (job,) = await client.jobs("grid1")
            reply = await client.scheduler.ExplainWait(scheduler_pb2.ExplainWaitRequest(job_id=job.job_id))
            return reply.reason == "CLUSTER_PENDING" and "Slurm: pending, " in reply.sentence

        await until(told, site.log, SECONDS)
        (job,) = await client.jobs("grid1")
        assert "Resources" in job.reason or "Priority" in job.reason
        site.run("scancel", "--user=root", "--state=RUNNING")

        async def done() -> bool:
            return (await client.get("grid1")).counts.done == 1

        await until(done, site.log, SECONDS)
