"""`frazil-agent`: dials the scheduler, reports this machine's slots, runs workers on them.

SIGTERM drains the workers and exits; a second one kills them. A killed agent leaves its workers running, and the next agent
of the same name takes them over. With --once it is what a cluster job runs: it offers one slot, serves one lease and exits,
so that the cluster has its GPU back. Exit codes: 0 stopped, 2 bad configuration, 3 another agent of this name runs here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from frazil import jobs
from frazil.agent import inventory
from frazil.agent.children import Children, Launch, find_programs, reap_orphans
from frazil.agent.control import Control, Node
from frazil.agent.gpu_poll import GpuPoll
from frazil.agent.inventory import DeclaredGpu, Gpu, GpuShares, Slot
from frazil.agent.locks import LockFolder
from frazil.agent.nvml import Nvml
from frazil.agent.prove_free import Baselines
from frazil.agent.stream import AgentStream
from frazil.model.errors import FrazilError
from frazil.rpc.config import read_section, read_toml, scheduler_address
from frazil.rpc.logging import configure_logging

EXIT_USAGE = 2
EXIT_FAILED = 3
_SYSTEM_LOCKS = Path("/run/frazil/gpu")
_REAP_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """`[agent]` of frazil.toml, FRAZIL_AGENT_… in the environment, flags on the command line."""

    node_id: str = ""  # empty: the host's name
    programs: tuple[str, ...] = ()  # empty: every program of frazil.jobs that is installed
    cpu_slots: int = 0  # 0: slots on the processors only where there is no GPU
    memory_mib: int = 0  # shared by the slots on the processors; 0: all the machine has
    lock_dir: Path | None = None
    slots_per_gpu: int = 1
    gpu_shares_mib: tuple[int, ...] = ()  # unequal slots on every GPU, instead of slots_per_gpu
    shares: tuple[GpuShares, ...] = ()  # unequal slots on some GPUs, before the others
    gpus: tuple[DeclaredGpu, ...] = ()  # instead of asking NVML
    drain_seconds: float = 30.0
    require_gpu: bool = False  # do not start without one
    once: bool = False  # started by a cluster job: one slot, one lease
    idle_seconds: float = 60.0  # after which such an agent leaves when no lease has come


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the agent until it is told to stop."""
    options = _parser().parse_args(arguments)
    configure_logging("frazil-agent")
    try:
        toml = read_toml(options.config)
        settings = read_section(AgentSettings, "agent", flags=vars(options), toml=toml)
        address = scheduler_address(options.scheduler, toml=toml)
        node_id = settings.node_id or platform.node()
        locks = LockFolder(settings.lock_dir or default_lock_folder())
        with locks.take_agent_lock(node_id):
            asyncio.run(_serve(_build(settings, address, node_id, locks), address, settings.drain_seconds))
    except FrazilError as error:
        structlog.get_logger().error("agent_not_started", reason=error.reason, sentence=error.sentence)
        sys.exit(EXIT_FAILED if error.reason == "AGENT_RUNNING" else EXIT_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "frazil-agent", description="Reports this machine's GPUs and runs Frazil's workers on them."
    )
    parser.add_argument("--scheduler", metavar="HOST:PORT", help="where the scheduler listens (FRAZIL_SCHEDULER_ADDRESS)")
    parser.add_argument("--node-id", metavar="NAME", help="this node's name; stable over restarts (default: the host's name)")
    parser.add_argument(
        "--programs", metavar="LIST", help="programs it may start, separated by commas (default: all installed)"
    )
    parser.add_argument("--cpu-slots", type=int, metavar="N", help="slots on the processors (default: only without GPUs)")
    parser.add_argument("--memory-mib", type=int, metavar="M", help="memory that the slots on the processors share")
    parser.add_argument("--slots-per-gpu", type=int, metavar="N", help="equal slots on every GPU (default: 1)")
    parser.add_argument("--lock-dir", type=Path, metavar="D", help="lock files; one local folder for all agents of a host")
    parser.add_argument("--drain-seconds", type=float, metavar="S", help="time for workers to finish on SIGTERM (default: 30)")
    parser.add_argument("--require-gpu", action="store_true", default=None, help="do not start where no GPU is seen")
    parser.add_argument("--once", action="store_true", default=None, help="offer one slot, serve one lease, exit")
    parser.add_argument("--idle-seconds", type=float, metavar="S", help="with --once: exit when no lease comes (default: 60)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="frazil.toml")
    return parser


def find_slots(
    settings: AgentSettings, node_id: str, nvml: Nvml, baselines: Baselines
) -> tuple[tuple[Slot, ...], dict[str, int]]:
    """Return the node's slots and the baseline of each of its GPUs. Raises FrazilError NO_GPU where one is required."""
    gpus = _declared(settings, node_id) or inventory.visible_gpus(nvml.gpus(), os.environ)
    if settings.require_gpu and not gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
        raise FrazilError("NO_GPU", f"NVIDIA's driver shows no GPU here{hidden}; run nvidia-smi in the same job to see why.")
    baseline = {gpu.uuid: baselines.measure(gpu.uuid) for gpu in gpus}
    slots = tuple(
        slot
        for gpu in gpus
        for slot in inventory.gpu_slots(
            gpu,
            baseline[gpu.uuid],
            count=settings.slots_per_gpu,
            shares_mib=inventory.shares_of(gpu, settings.shares) or settings.gpu_shares_mib,
        )
    )
    if settings.cpu_slots or not slots:
        slots += inventory.cpu_slots(
            node_id,
            cores=inventory.core_count(),
            memory_mib=settings.memory_mib or inventory.host_memory_mib(),
            count=1 if settings.once else settings.cpu_slots,
        )
    return slots, baseline


def least_used(slots: Sequence[Slot], nvml: Nvml, locks: LockFolder) -> Slot:
    """Return the slot for an agent that is here for one lease.

    Where a cluster does not hide other jobs' GPUs, the one that nobody holds and that has the most free memory.
    """
    return max(slots, key=lambda slot: (not locks.held(slot.slot_key), nvml.free_mib(slot.gpu_uuid) or 0))


def _declared(settings: AgentSettings, node_id: str) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(uuid=gpu.uuid or f"GPU-{node_id}-{index}", name=gpu.name, memory_mib=gpu.memory_mib, index=index)
        for index, gpu in enumerate(settings.gpus)
    )


def _build(settings: AgentSettings, address: str, node_id: str, locks: LockFolder) -> Control:
    """Look at the machine and make the agent for it."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    nvml = Nvml()
    slots, baselines = find_slots(settings, node_id, nvml, Baselines(locks, nvml, boot_id))
    nvml.watch()
    gpus = GpuPoll(nvml, baselines, time.monotonic)
    gpus.start()
    if settings.once:
        slots = (least_used(slots, nvml, locks),)
    programs = find_programs(settings.programs or sorted({jobs.load(name).program for name in jobs.names()}))
    launch = Launch(
        scheduler_address=address,
        threads=max(1, inventory.core_count() // len(slots)),
        boot_id=boot_id,
        programs=programs,
        log_folder=locks.folder / "logs",
    )
    node = Node(
        node_id=node_id,
        boot_id=boot_id,
        incarnation=secrets.token_hex(8),
        slots=slots,
        programs=tuple(programs),
        baselines_mib=baselines,
        once_idle_seconds=settings.idle_seconds if settings.once else 0.0,
    )
    keys = [slot.slot_key for slot in slots]
    structlog.get_logger().info("agent_started", node=node_id, slots=keys, programs=node.programs, locks=str(locks.folder))
    return Control(node, locks, Children(locks, launch, time.monotonic), gpus, time.monotonic)


async def _serve(control: Control, address: str, drain_seconds: float) -> None:
    stop = asyncio.Event()
    stream = AgentStream(control, address)
    background: set[asyncio.Task[None]] = set()

    def signalled() -> None:
        if stop.is_set():
            background.add(asyncio.create_task(stream.kill_workers()))
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    if os.getpid() == 1:
        background.add(asyncio.create_task(_reap_for_ever(control)))
    await stream.run(stop, drain_seconds=drain_seconds)
    for task in background:
        task.cancel()


async def _reap_for_ever(control: Control) -> None:
    """As a container's first process, collect what dead workers left behind."""
    while True:
        await asyncio.sleep(_REAP_SECONDS)
        reap_orphans(worker.pid for worker in control.workers)


def default_lock_folder() -> Path:
    """Return the host's folder where it may be used, else one of this user's (machines without containers or root)."""
    for folder in (_SYSTEM_LOCKS, Path(tempfile.gettempdir()) / f"frazil-{os.getuid()}" / "slots"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise FrazilError("LOCK_FOLDER_UNUSABLE", "No folder for lock files can be written; give --lock-dir.")


if __name__ == "__main__":
    main()
