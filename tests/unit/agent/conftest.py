"""A hand-turned clock, toy workers, and an agent's parts put together in a temporary folder."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frazil.agent.children import Children, Ended, Launch
from frazil.agent.inventory import Slot
from frazil.agent.locks import LockFolder
from frazil.api.agent.v1.agent_pb2 import Start

TOY = """\
#!{python} -IS
import os, signal, subprocess, sys, time
print("toy", os.environ["FRAZIL_LEASE_ID"], "begins", file=sys.stderr, flush=True)
manner = os.environ.get("TOY", "drains")
if manner.startswith("exits"):
    sys.exit(int(manner[5:]))
if manner == "reports":
    names = sorted(n for n in os.environ if n.startswith(("FRAZIL_", "CUDA", "OPENBLAS", "OMP")))
    print("\\n".join(n + "=" + os.environ[n] for n in names), flush=True)
    sys.exit(0)
if manner == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if manner == "helped":
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
print("toy ready", file=sys.stderr, flush=True)
time.sleep(60)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """The lock folder, a toy program, and Children over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.locks = LockFolder(folder / "locks")
        toy = folder / "frazil-toy"
        toy.write_text(textwrap.dedent(TOY).format(python=sys.executable))
        toy.chmod(0o755)
        self.launch = Launch(
            scheduler_address="127.0.0.1:9",
            threads=2,
            boot_id="boot",
            programs={"frazil-toy": toy},
            log_folder=folder / "logs",
        )
        self.children = Children(self.locks, self.launch, self.clock)
        self.slot = Slot(slot_key="cpu:node#0", device_name="CPU", memory_mib=1000)
        self._made = [self.children]

    def another(self) -> Children:
        """An agent after (or beside) the first."""
        self._made.append(Children(self.locks, self.launch, self.clock))
        return self._made[-1]

    def order(self, epoch: int = 7, lease: str = "lease", program: str = "frazil-toy") -> Start:
        return Start(
            lease_id=lease,
            epoch=epoch,
            slot_key=self.slot.slot_key,
            job_id="job",
            job_type="toy",
            program=program,
            memory_mib=900,
        )

    def until_ended(self, children: Children | None = None) -> Ended:
        found: list[Ended] = []
        self.until(lambda: bool(found.extend((children or self.children).poll()) or found))
        return found[0]

    def until_ready(self, lease: str = "lease", epoch: int = 7) -> None:
        self.until(lambda: "toy ready" in (self.folder / "logs" / f"{lease}.{epoch}.log").read_text())

    @staticmethod
    def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up, "waited too long"
            time.sleep(0.01)

    def clean(self) -> None:
        for children in self._made:
            for worker in children.workers:
                if worker.process is not None:
                    os.killpg(worker.pid, signal.SIGKILL)
                    worker.process.wait()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.clean()
