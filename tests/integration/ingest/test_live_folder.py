"""Scheduler, agent, ingest and a toy worker as processes over loopback, on a folder that grows; any of them is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.reconstruction.v1.reconstruction_pb2 import ParticleBlock
from frazil.api.scheduler.v1.scheduler_pb2 import Job, Lease
from frazil.api.session.v1.session_pb2 import Session, SessionParameters
from frazil.client import Client

# A preprocessing worker without the science: it reads the movie under the guard and writes how many bytes there were.
TOY = """\
#!{python}
import sys, time
from pathlib import Path
from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.io.attempt import AttemptFolder
from frazil.io.source import unchanged_source
from frazil.worker import AttemptSuperseded, run_worker

def run(context):
    root = Path(context.session.parameters.movie_folder)
    while not context.stop_requested:
        reply = context.claim(max_count=1, wait_seconds=2.0)
        for claim in reply.claims:
            file = claim.exposure.file
            with unchanged_source(root / file.relative_path, file.size_bytes, file.modified_ns, root=root) as path:
                size = len(path.read_bytes())
            with AttemptFolder(context.session_folder, claim.exposure.exposure_id, claim.attempt_folder) as attempt:
                (attempt.path / "size").write_text(str(size))
            try:
                result = ExposureResult(folder=attempt.relative_path, particle_count=claim.parameters.box_size_px or 3)
                context.commit(claim, result, attempt.manifest_sha256)
            except AttemptSuperseded:
                attempt.discard()
        if reply.drained:
            return

sys.exit(run_worker("frazil-preprocess", {{"preprocess": run}}))
"""


def movie(frames: int = 4, side: int = 32) -> bytes:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, side, side, frames, 0)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    header[208:216] = b"MAP DD\x00\x00"
    return bytes(header) + bytes(range(1, 129)) * (frames * side * side // 128)


class House:
    """The processes of one installation; each can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.movies = folder / "data", folder / "movies"
        self.movies.mkdir()
        self.program = folder / "bin" / "frazil-preprocess"
        self.program.parent.mkdir()
        self.program.write_text(TOY.format(python=sys.executable))
        self.program.chmod(0o755)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.address = "127.0.0.1:0"

    def start(self, name: str) -> None:
        module, arguments = {
            "scheduler": ("frazil_scheduler", ["--data-dir", str(self.data), "--address", self.address]),
            "ingest": ("frazil_ingest", ["--scheduler", self.address, "--defect-after-seconds", "5"]),
            "agent": (
                "frazil.agent",
                [
                    *("--scheduler", self.address, "--node-id", "box", "--cpu-slots", "1", "--memory-mib", "8000"),
                    *("--programs", str(self.program), "--lock-dir", str(self.folder / "locks")),
                ],
            ),
        }[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stderr=log,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "FRAZIL_INGEST_POLL_SECONDS": "0.5"},
            )
        if self.address.endswith(":0"):
            file = self.data / "scheduler.address"
            self.until(file.exists)
            self.until(lambda: bool(file.read_text().strip()))
            self.address = file.read_text().strip()

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def kill_worker(self) -> None:
        for pid in self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def workers(self) -> list[int]:
        mark = os.fsencode(self.program)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if (entry / "cmdline").read_bytes().split(b"\0")[1:2] == [mark]:
                        found.append(int(entry.name))
        return found

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, condition: Callable[[], bool], seconds: float = 40.0) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > give_up:
                codes = {name: process.poll() for name, process in self.processes.items()}
                raise AssertionError("\n".join([str(codes), *(self.log(name)[-3000:] for name in self.processes)]))
            time.sleep(0.05)

    def close(self) -> None:
        for name in ("ingest", "agent", "scheduler"):
            if name in self.processes:
                self.kill(name)
        self.kill_worker()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    try:
        for name in ("scheduler", "agent", "ingest"):
            house.start(name)
        yield house
    finally:
        house.close()


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with Client(house.address) as client:
        yield client


def begin(house: House, client: Client) -> None:
    parameters = SessionParameters(
        movie_folder=str(house.movies), particle_diameter_angstrom=140.0, pixel_size_angstrom=1.0, until="preprocess"
    )
    client.create_session("grid", parameters)
    client.start("grid")


def counts(client: Client) -> tuple[int, int]:
    found = client.get_session("grid").counts
    return found.done, found.quarantined


def source(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_growing_folder_is_worked_off_and_everything_let_go(house: House, client: Client) -> None:
    begin(house, client)
    (house.movies / "deep" / "er").mkdir(parents=True)
    (house.movies / "deep" / "er" / "ü 1.mrc").write_bytes(movie())
    (house.movies / "bad.mrc").write_bytes(movie()[:-7])
    house.until(lambda: counts(client) == (1, 1))
    (house.movies / "late.mrc").write_bytes(movie(frames=6))
    before = source(house.movies)
    house.until(lambda: counts(client) == (2, 1))
    by_path = {exposure.file.relative_path: exposure for exposure in client.exposures("grid")}
    assert by_path["late.mrc"].file.frame_count == 6
    assert "truncated" in by_path["bad.mrc"].failure
    for path in ("late.mrc", "deep/er/ü 1.mrc"):
        result = house.data / "grid" / by_path[path].result.folder / "size"
        assert int(result.read_text()) == (house.movies / path).stat().st_size
    scan = client.get_session("grid").scan
    assert (scan.files_seen, scan.files_settling, scan.problem) == (3, 0, "")
    assert source(house.movies) == before
    client.complete("grid")
    house.until(lambda: client.get_session("grid").state == Session.STATE_COMPLETED)
    (job,) = client.jobs("grid")
    assert job.state == Job.STATE_DONE
    house.until(lambda: job.lease.lease_id != "" and client.jobs("grid")[0].lease.state == Lease.STATE_CLOSED)
    house.until(lambda: house.workers() == [])


def test_killed_processes_lose_and_double_nothing(house: House, client: Client) -> None:
    begin(house, client)
    expected = 0
    for victim in ("agent", "ingest", "scheduler", "worker"):
        for _ in range(6):
            (house.movies / f"{expected}.mrc").write_bytes(movie())
            expected += 1
        house.until(lambda: len(house.workers()) == 1)
        house.until(lambda: counts(client)[0] > 0)  # under way
        workers, epoch = house.workers(), client.jobs("grid")[0].lease.epoch
        if victim == "worker":
            house.kill_worker()
        else:
            house.kill(victim)
            (house.movies / f"{expected}.mrc").write_bytes(movie())  # nobody may miss what comes meanwhile
            expected += 1
            house.start(victim)
        house.until(lambda total=expected: counts(client) == (total, 0))  # type: ignore[misc]
        (job,) = client.jobs("grid")
        if victim == "worker":
            assert job.lease.epoch > epoch
        else:  # the streaming lease outlives agent, ingest and scheduler
            assert (house.workers(), job.lease.epoch) == (workers, epoch)
    exposures = list(client.exposures("grid"))
    assert sorted(exposure.file.relative_path for exposure in exposures) == sorted(f"{n}.mrc" for n in range(expected))
    assert {exposure.state for exposure in exposures} == {Exposure.STATE_DONE}
    assert {exposure.generation for exposure in exposures} == {1}
    client.pause("grid")
    house.until(lambda: client.get_session("grid").state == Session.STATE_PAUSED)
    house.until(lambda: house.workers() == [])


def test_parameters_change_while_processes_are_killed_and_every_particle_counts_once(house: House, client: Client) -> None:
    """The toy extracts as many particles as the box has pixels: what counts tells what each exposure was made with."""
    begin(house, client)
    for number in range(8):
        (house.movies / f"{number}.mrc").write_bytes(movie())
    house.until(lambda: counts(client)[0] > 2)  # the others are on their way
    for box, victim in ((16, "worker"), (18, "scheduler"), (20, "agent")):
        parameters = client.get_session("grid").parameters
        parameters.box_size_px = box
        redone = client.update_parameters("grid", parameters).redone
        assert set(redone) <= {"extract"}  # what waits to be redone is not redone twice
        house.kill_worker() if victim == "worker" else house.kill(victim)
        (house.movies / f"late{box}.mrc").write_bytes(movie())
        if victim != "worker":
            house.start(victim)
    house.until(lambda: counts(client) == (11, 0))
    found = client.get_session("grid")
    assert found.counts.particles == 11 * 20
    digests = {tuple(sorted(exposure.result.stage_digests.items())) for exposure in client.exposures("grid")}
    assert len(digests) == 1
    live: dict[str, int] = {}
    for block in client.particle_blocks("grid"):
        if block.kind == ParticleBlock.KIND_ADD:
            assert block.exposure_id not in live
            live[block.exposure_id] = block.particle_count
        else:
            assert live.pop(block.exposure_id) == block.particle_count
    assert live == {exposure.exposure_id: 20 for exposure in client.exposures("grid")}
