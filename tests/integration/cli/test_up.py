"""`frazil up` with the real services: addresses, a second one, kill -9 of a child and of itself, an orderly end."""

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
from frazil.cli.supervise import MARK
from frazil.client import Client

FRAZIL = str(Path(sys.executable).parent / "frazil")
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


@pytest.mark.timeout(240)
def test_up_serves_survives_and_ends(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        with urllib.request.urlopen(f"{up.page}/healthz", timeout=10) as reply:  # noqa: S310
            assert reply.status == 200
        slots = json.loads(frazil("gpu", "list", "--json", "--scheduler", up.scheduler).stdout)
        assert [slot["kind"] for slot in slots] == ["cpu", "cpu"]
        assert frazil("session", "list", "--scheduler", up.scheduler).stdout == "There are no sessions yet.\n"

        second = frazil("up", "--data-dir", str(up.data_dir))
        assert second.returncode == 1
        assert "already runs" in second.stderr
        assert len(second.stderr.splitlines()) == 1

        killed = up.pid_of("scheduler")
        os.kill(killed, signal.SIGKILL)
        with Client(up.scheduler) as client:  # on its old port again
            eventually(lambda: up.pid_of("scheduler") != killed)
            assert [lane.name for lane in client.lanes()] == ["default"]
        assert "scheduler service ended (signal 9)" in up.text

        assert up.end() == 0
        assert up.text.endswith("Stopped.\n")
        assert processes.find_marked(MARK, str(up.data_dir)) == []


@pytest.mark.timeout(240)
def test_up_after_its_own_violent_death(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        first.process.kill()
        first.process.wait()
        assert len(processes.find_marked(MARK, str(first.data_dir))) == 4
        with running(tmp_path) as second:
            assert "Stopping 4 process(es) that an earlier run left behind." in second.text
            with Client(second.scheduler) as client:
                eventually(lambda: len(client.nodes()) == 1)
            assert second.end() == 0
