"""Scheduler, ingest, agent and toy workers as processes that die at every failpoint once, and are started again at once."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor

from frazil.api.agent.v1 import agent_pb2
from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.rpc.failpoints import EXIT_CODE

SETTLED_SECONDS = 5.0
QUIET_SECONDS = 300.0
PLUGINS = Path(__file__).parents[1] / "plugins"

TOY = """\
#!{python}
import hashlib, sys
from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages, Template, Templates, Volume
from frazil.io.attempt import AttemptFolder
from frazil.model.errors import FailureClass
from frazil.worker import AttemptSuperseded, run_worker

def preprocess(context):
    while not context.stop_requested:
        reply = context.claim(max_count=1, wait_seconds=2.0)
        for claim in reply.claims:
            context.report(claim.exposure.file.relative_path)
            if "bad" in claim.exposure.file.relative_path:
                context.fail(claim, FailureClass.INPUT, "It is bad.")
                continue
            with AttemptFolder(context.session_folder, claim.exposure.exposure_id, claim.attempt_folder) as attempt:
                (attempt.path / "particles.mrcs").write_text("x")
            try:
                result = ExposureResult(folder=attempt.relative_path, particle_count=3, particles="particles.mrcs")
                context.commit(claim, result, attempt.manifest_sha256)
            except AttemptSuperseded:
                attempt.discard()
        if reply.drained:
            return

def streaming(context):
    newest = context.checkpoints[0] if context.checkpoints else None
    number, cursor, published = (newest.number, newest.cursor_sequence, 0) if newest else (0, 0, 0)
    while not context.stop_requested:
        reply = context.read_blocks(cursor, wait_seconds=1.0)
        if reply.blocks:
            number, cursor = number + 1, reply.blocks[-1].sequence
            context.report(f"block {{cursor}}")
            context.commit_checkpoint(number, cursor, f"checkpoints/{{number}}", hashlib.sha256(b"").hexdigest())
        if cursor > published:
            averages = ClassAverages(averages="a", particle_count=3 * cursor, particle_block_sequence=cursor)
            context.publish_class_averages(averages)
            context.publish_volume(Volume(kind=Volume.KIND_REFINEMENT, volume="v", particle_count=3 * cursor))
            published = cursor
        if reply.end_of_input:
            return

def count(context):
    context.publish_templates(Templates(images="t.mrcs", templates=[Template(number=1, selected=True)]))
    context.notify("It counts.", "info")
    context.wait_for_stop(2.0)

runners = {{"preprocess": preprocess, "class2d_streaming": streaming, "refine3d_streaming": streaming, "count": count}}
runners["exposure_test"] = lambda context: None
sys.exit(run_worker("toy", runners))
"""


def failpoints() -> set[str]:
    """Return the names of all failpoints, from the contract: what commits, and what is sent."""
    modules = (exposure_pb2, reconstruction_pb2, scheduler_pb2, session_pb2, worker_pb2, agent_pb2)
    services = {service.name: service for module in modules for service in module.DESCRIPTOR.services_by_name.values()}
    commits = {name for service in services.values() for name in _methods(service, "request_id")}
    commits |= {"RegisterExposures", "ReportScan", "Heartbeat", "Start", "Tick", "Connect.bye"}
    up = {field.name for field in agent_pb2.ConnectRequest.DESCRIPTOR.fields}
    down = {field.name for field in agent_pb2.ConnectResponse.DESCRIPTOR.oneofs_by_name["message"].fields}
    steps = {f"scheduler.{name}" for name in commits | {f"Connect.{kind}" for kind in up - {"beat"}}}
    steps |= {f"agent.send.{kind}" for kind in up}
    steps |= {f"worker.{name}" for name in _methods(services["WorkerService"])}
    steps |= {"ingest.RegisterExposures", "ingest.ReportScan"}
    points = {f"{step}.{when}" for step in steps for when in ("before", "after")}
    return points | {f"scheduler.send.{kind}.before" for kind in down} | {"agent.start.recorded", "agent.start.spawned"}


def _methods(service: ServiceDescriptor, field: str = "") -> set[str]:
    return {method.name for method in service.methods if not field or field in method.input_type.fields_by_name}


class CrashHouse:
    """The processes of one installation. `armed` says at which failpoints they die."""

    def __init__(self, folder: Path, armed: str = "*") -> None:
        self.folder = folder
        self.data, self.movies, self.crashes, self.xids = (folder / n for n in ("data", "movies", "crashes", "xids"))
        self.movies.mkdir()
        self.crashes.mkdir()
        programs = []
        for name in ("frazil-preprocess", "frazil-reconstruct"):
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(TOY.format(python=sys.executable))
            program.chmod(0o755)
            programs.append(str(program))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        agent = ["--node-id", "box", "--programs", ",".join(programs), "--lock-dir", str(folder / "locks")]
        self._commands = {
            "scheduler": ["frazil_scheduler", "--data-dir", str(self.data), "--address", self.address],
            "ingest": ["frazil_ingest", "--scheduler", self.address, "--settle-seconds", "0.3"],
            "agent": ["frazil.agent", "--scheduler", self.address, *agent, "--drain-seconds", "2"],
        }
        path = [str(PLUGINS), str(PLUGINS / "fake_nvml"), os.environ.get("PYTHONPATH", "")]
        self._environ = os.environ | {
            "PYTHONPATH": ":".join(path),
            "FAKE_GPUS": "GPU-a:24000,GPU-b:24000,GPU-c:24000,GPU-d:24000",
            "FAKE_XIDS": str(self.xids),
            "FRAZIL_INGEST_POLL_SECONDS": "0.3",
            "FRAZIL_FAILPOINT": armed,
            "FRAZIL_FAILPOINT_FLAG": str(self.crashes),
        }
        self._environ.pop("CUDA_VISIBLE_DEVICES", None)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, daemon=True)
        self.odd_ends: list[tuple[str, int]] = []

    def open(self) -> None:
        """Start all processes, and again whichever ends."""
        for name in self._commands:
            self._start(name)
        self._keeper.start()

    def close(self) -> None:
        """End all processes, workers included."""
        self._closed.set()
        self._keeper.join()
        for name in ("ingest", "agent", "scheduler"):
            self._processes[name].kill()
            self._processes[name].wait()
        for pid in self.workers():
            os.killpg(pid, signal.SIGKILL)

    def terminate(self, name: str) -> None:
        """Send SIGTERM to a process that has run for a while."""
        with self._lock:
            if time.monotonic() - self._started_at[name] > SETTLED_SECONDS:
                self._processes[name].send_signal(signal.SIGTERM)

    def crashed(self) -> set[str]:
        """Return the failpoints at which a process has died."""
        return {path.name for path in self.crashes.iterdir()}

    def workers(self) -> list[int]:
        """Return the process ids of the toy workers."""
        mark = os.fsencode(self.folder / "bin")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if len(words) > 1 and words[1].startswith(mark):
                    found.append(int(entry.name))
        return found

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition for as long as anything happens: on a busy machine everything takes long."""
        pulse, since = self._pulse(), time.monotonic()
        while not condition():
            if (now := self._pulse()) != pulse:
                pulse, since = now, time.monotonic()
            if time.monotonic() - since > QUIET_SECONDS:
                logs = "\n".join(f"--- {name}\n{self._log(name)}" for name in self._commands)
                raise AssertionError(f"nothing happens any more, waiting for {what}; {self.odd_ends}\n{logs}")
            time.sleep(0.1)

    def _pulse(self) -> tuple[int, int]:
        """Count the deaths and the events so far."""
        with closing(sqlite3.connect(self.data / "ledger.sqlite", timeout=60.0)) as ledger:
            (newest,) = ledger.execute("SELECT max(sequence) FROM event").fetchone()
        return len(self.crashed()), newest or 0

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def _start(self, name: str) -> None:
        module, *arguments = self._commands[name]
        self._started_at[name] = time.monotonic()
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", module, *arguments]
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=self._environ)

    def _keep_up(self) -> None:
        while not self._closed.wait(0.05):
            for name in self._commands:
                code = self._processes[name].poll()
                if code is None:
                    continue
                if code not in (EXIT_CODE, 0, -signal.SIGTERM):
                    self.odd_ends.append((name, code))
                with self._lock:
                    self._start(name)
