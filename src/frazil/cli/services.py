"""The services of one machine, as the supervisor starts them: scheduler, ingest, agent, web."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from frazil.cli.supervise import Service, Supervisor
from frazil.model.errors import ErrorKind, FrazilError

ADDRESS_FILE = "scheduler.address"
_CORES_PER_WORKER = 8
_SHARED_GPU_MIB = 24 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class UpSettings:
    """`[up]` of frazil.toml, FRAZIL_UP_… in the environment, flags of `frazil up`."""

    data_dir: Path = Path("frazil-data")  # on a local disk
    host: str = "127.0.0.1"
    port: int = 50051
    web_port: int = 8080
    cpu_slots: int = 0  # 0: slots on the processors only where there is no GPU


@dataclass(slots=True, kw_only=True)
class Deployment:
    """What is started, and where it then listens. Port 0 takes a free one."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    web_port: int | None = None  # None: no web service
    cpu_slots: int | None = None  # None: as the agent finds
    slots_per_gpu: int | None = None  # None: one
    node_id: str = ""  # empty: the host's name; two agents on one host need two
    config: Path | None = None
    ledger: Path | None = None  # None: in data_dir

    def supervisor(self, say: Callable[[str], None]) -> Supervisor:
        """Return the supervisor of these services; nothing is started yet."""
        self.data_dir = self.data_dir.resolve()
        return Supervisor(self.services(), self.data_dir, say, prepare=self.prepare)

    def services(self) -> list[Service]:
        """Return the services in the order of their start."""
        found = [
            Service(name="scheduler", command=self._scheduler_command, is_healthy=self._scheduler_serves, start_seconds=60.0),
            Service(name="ingest", command=lambda: self._client_command("frazil-ingest")),
            Service(name="agent", command=self._agent_command, is_healthy=self._agent_dialled_in, stop_seconds=45.0),
        ]
        if self.web_port is not None:
            found.append(Service(name="web", command=self._web_command, is_healthy=self._web_serves))
        return found

    def prepare(self) -> None:
        """Check the ports and forget the address of an earlier run. Raises FrazilError PORT_IN_USE."""
        (self.data_dir / ADDRESS_FILE).unlink(missing_ok=True)
        if self.port:
            require_free_port(self.host, self.port, "--port")
        if self.web_port:
            require_free_port(self.host, self.web_port, "--web-port")
        elif self.web_port == 0:
            self.web_port = free_port(self.host)

    @property
    def scheduler_address(self) -> str:
        """Where clients on this machine reach the scheduler; known once it has started."""
        if not self.port:
            file = self.data_dir / ADDRESS_FILE
            text = file.read_text().strip() if file.exists() else ""
            if text.rpartition(":")[2].isdigit():
                self.port = int(text.rpartition(":")[2])  # kept: after a crash it must listen where its clients look
        return f"{_reachable(self.host)}:{self.port}"

    @property
    def web_address(self) -> str:
        """The page's address for a browser on this machine."""
        return f"http://{_reachable(self.host)}:{self.web_port}"

    def _scheduler_command(self) -> list[str]:
        address = f"{self.host}:{self.port}"
        ledger = [] if self.ledger is None else ["--ledger", str(self.ledger)]
        data = ["--data-dir", str(self.data_dir), *ledger]
        return [find_program("frazil-scheduler"), *data, "--address", address, *self._config()]

    def _client_command(self, program: str) -> list[str]:
        return [find_program(program), "--scheduler", self.scheduler_address, *self._config()]

    def _agent_command(self) -> list[str]:
        slots = [] if self.cpu_slots is None else ["--cpu-slots", str(self.cpu_slots)]
        shares = [] if self.slots_per_gpu is None else ["--slots-per-gpu", str(self.slots_per_gpu)]
        name = ["--node-id", self.node_id] if self.node_id else []
        return [*self._client_command("frazil-agent"), *slots, *shares, *name]

    def _web_command(self) -> list[str]:
        return [
            find_program("frazil-web"),
            *("--scheduler", self.scheduler_address),
            *("--address", f"{self.host}:{self.web_port}"),
        ]

    def _config(self) -> list[str]:
        return [] if self.config is None else ["--config", str(self.config.resolve())]

    def _scheduler_serves(self) -> bool:
        from frazil.rpc.probe import is_serving

        address = self.scheduler_address
        return bool(self.port) and is_serving(address, timeout_seconds=1.0)

    def _agent_dialled_in(self) -> bool:
        from frazil.api.scheduler.v1.scheduler_pb2 import Node
        from frazil.client import Client

        with Client(self.scheduler_address, patience_seconds=1.0) as client:
            return any(node.state == Node.STATE_UP for node in client.nodes())

    def _web_serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.web_address}/healthz", timeout=2.0):  # noqa: S310 our own address
                return True
        except urllib.error.HTTPError:
            return True  # it answers; whether the scheduler does is the scheduler's own health
        except OSError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLayout:
    """How a machine that serves one session alone is divided."""

    workers: int  # for preprocessing; one more place is for 2D classification
    cpu_slots: int | None
    slots_per_gpu: int | None


def slot_layout(workers: int | None) -> SlotLayout:
    """Return how this machine is divided for one session; `workers` None means as many as fit."""
    from frazil.agent.inventory import core_count, visible_gpus
    from frazil.agent.nvml import Nvml

    gpus = visible_gpus(Nvml().gpus(), os.environ)
    if not gpus:
        count = workers or max(1, core_count() // _CORES_PER_WORKER)
        return SlotLayout(workers=count, cpu_slots=count + 1, slots_per_gpu=None)
    large = min(gpu.memory_mib for gpu in gpus) >= _SHARED_GPU_MIB
    shares = 2 if large and len(gpus) == 1 else 1  # a single large GPU preprocesses and classifies at once
    return SlotLayout(workers=workers or max(1, shares * len(gpus) - 1), cpu_slots=None, slots_per_gpu=shares)


def node_id_for(data_dir: Path) -> str:
    """Return a name for the agent of one data folder, so that several may run on a host; the same at every start."""
    digest = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()
    return f"{platform.node()}-{digest[:8]}"


def ledger_for(data_dir: Path, *, home: Path | None = None) -> Path | None:
    """Return where the ledger lies when a data folder is on a network disk, where SQLite loses data; None: in the folder.

    The place is local and belongs to this folder alone, so that a rerun on this machine finds it. Raises FrazilError
    NO_LOCAL_DISK when there is none.
    """
    kind = file_system_of(data_dir)
    if not is_network(kind):
        return None
    digest = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
    for place in ((home or Path.home()) / ".local" / "state" / "frazil", Path(f"/var/tmp/frazil-{os.getuid()}")):  # noqa: S108
        if not is_network(file_system_of(place)):
            folder = place / digest
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return folder / "ledger.sqlite"
    raise FrazilError("NO_LOCAL_DISK", f"{data_dir} is on {kind} and no local disk was found: choose another folder.")


def file_system_of(folder: Path) -> str:
    """Return the type of the file system that holds (or would hold) a folder, as the kernel names it."""
    path = folder.resolve()
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [(fields[1], fields[2]) for fields in mounts if path.is_relative_to(fields[1])]
    return max(holding, key=lambda one: len(one[0]), default=("", "unknown"))[1]


def is_network(kind: str) -> bool:
    """Say whether a type of file system is that of a network disk."""
    return kind.startswith(("nfs", "cifs", "smb", "fuse.sshfs", "lustre", "beegfs", "gpfs", "ceph", "afs", "gfs2"))


def find_program(name: str) -> str:
    """Return the path of a console script: beside this Python, else on the PATH. Raises FrazilError PROGRAM_MISSING."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise FrazilError(
            "PROGRAM_MISSING",
            f"The program {name} is not installed beside {sys.executable}: install it (in a checkout: make setup).",
            kind=ErrorKind.NOT_FOUND,
        )
    return found


def require_free_port(host: str, port: int, flag: str) -> None:
    """Raise FrazilError PORT_IN_USE when another program listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise FrazilError(
                "PORT_IN_USE",
                f"Cannot listen at {host}:{port} ({error.strerror}): choose another port with {flag}.",
                kind=ErrorKind.CONFLICT,
            ) from error


def free_port(host: str) -> int:
    """Return a port that is free now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104


Say = Callable[[str], None]
