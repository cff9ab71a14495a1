"""`frazil up` with the real services: driven by a LIMS, started twice, its scheduler killed, ended in order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from frazil.cli import processes
from frazil.cli.processes import MARK
from frazil.simulator import SimulationParameters, write_session

FRAZIL = str(Path(sys.executable).parent / "frazil")
EXAMPLE = Path(__file__).parents[3] / "examples" / "lims_session.py"
UP = re.compile(r"page\s+(http://\S+)\n\s+scheduler\s+(\S+)")


class Up:
    """A running `frazil up` on free ports."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.log = folder / f"up-{time.monotonic_ns()}.log"
        environment = {
            **os.environ,
            "FRAZIL_AGENT_LOCK_DIR": str(folder / "locks"),
            "FRAZIL_AGENT_NODE_ID": folder.name,
            "PYTHONUNBUFFERED": "1",
        }
        command = [FRAZIL, "up", "--data-dir", str(self.data_dir), "--port", "0", "--web-port", "0", "--cpu-slots", "2"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        eventually(lambda: self.text.rstrip().endswith("Ctrl-C stops it.") or self.process.poll() is not None)
        found = UP.findall(self.text)
        assert found, self.text
        self.page, self.scheduler = found[-1]

    @property
    def text(self) -> str:
        return self.log.read_text()

    def pid_of(self, service: str) -> int:
        return next(record.pid for record in processes.read_records(self.data_dir / "run") if record.name == service)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(folder: Path) -> Iterator[Up]:
    up = Up(folder)
    try:
        yield up
    finally:
        up.process.kill()
        up.process.wait()
        left = processes.find_marked(MARK, str(up.data_dir))
        processes.stop_processes(left, deadline_seconds=0.0)


def eventually(true: Callable[[], bool], *, seconds: float = 60.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.1)


def frazil(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FRAZIL, *arguments], capture_output=True, text=True, timeout=60)


def lims(folder: Path, scheduler: str) -> subprocess.Popen[str]:
    """Start the example of a LIMS on two movies; started again it goes on at its resume token."""
    command = [sys.executable, str(EXAMPLE), "--scheduler", scheduler, "--name", "grid", "--folder", str(folder / "movies")]
    command += ["--diameter", "180", "--classes", "2", "--complete-after", "2", "--token-file", str(folder / "token")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.timeout(400)
def test_up_serves_a_lims_survives_and_ends(tmp_path: Path) -> None:
    movies = SimulationParameters(seed=5, movie_count=2, width_px=512, height_px=512, frame_count=12, particles_per_movie=12)
    write_session(movies, tmp_path / "movies")
    with running(tmp_path) as up:
        with urllib.request.urlopen(f"{up.page}/healthz", timeout=10) as reply:  # noqa: S310
            assert reply.status == 200
        slots = json.loads(frazil("gpu", "list", "--json", "--scheduler", up.scheduler).stdout)
        assert [slot["kind"] for slot in slots] == ["cpu", "cpu"]
        second = frazil("up", "--data-dir", str(up.data_dir))
        assert second.returncode == 1
        assert "already runs" in second.stderr
        assert len(second.stderr.splitlines()) == 1

        first = lims(tmp_path, up.scheduler)
        eventually(lambda: (tmp_path / "token").exists() and int((tmp_path / "token").read_text()) >= 3)
        first.kill()
        printed = first.communicate()[0]
        os.kill(up.pid_of("scheduler"), signal.SIGKILL)  # comes back on its port; the LIMS waits for it
        again = lims(tmp_path, up.scheduler)
        out, error = again.communicate(timeout=300)
        assert again.returncode == 0, error
        printed += out
        sequences = [int(word) for word in re.findall(r"^ *(\d+)  ", printed, re.MULTILINE)]
        assert sequences == sorted(sequences)
        assert len(sequences) - len(set(sequences)) <= 1  # at most the line printed just before it was killed
        assert printed.count("_fractions.tiff: motion") == 2  # nothing missed
        assert "2 of 2 movies, 0 failed" in out
        assert "scheduler service ended (signal 9)" in up.text

        export = frazil("session", "export", "grid", str(tmp_path / "results"), "--scheduler", up.scheduler)
        assert export.returncode == 0, export.stderr
        assert (tmp_path / "results" / "micrographs.star").is_file()
        assert "completed" in frazil("session", "list", "--scheduler", up.scheduler).stdout
        assert up.end() == 0
        assert up.text.endswith("Stopped.\n")
        assert processes.find_marked(MARK, str(up.data_dir)) == []
