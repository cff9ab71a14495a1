"""The slots of a node: GPUs as NVML reports them, processors where there is no GPU, or what the configuration declares."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from frazil.model.errors import FrazilError

_MIB = 2**20
_CPU_SLOT_CORES = 4
_CPU_SLOT_MIB = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU (or a MIG instance of one)."""

    uuid: str
    name: str
    memory_mib: int
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredGpu:
    """A GPU declared in the configuration (`[[agent.gpus]]`), for tests and where NVML cannot be asked."""

    name: str
    memory_mib: int
    uuid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuShares:
    """How the operator divides some GPUs (`[[agent.shares]]`)."""

    gpu: str  # pattern for their uuid, name or index
    memory_mib: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One place for one worker."""

    slot_key: str
    device_name: str
    memory_mib: int
    gpu_uuid: str = ""  # empty: a share of the processors
    gpu_memory_mib: int = 0  # of the whole GPU

    @property
    def is_gpu(self) -> bool:
        """Say whether a GPU stands behind the slot."""
        return bool(self.gpu_uuid)


def visible_gpus(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Leave out the GPUs that CUDA_VISIBLE_DEVICES hides from this process; NVML shows them all."""
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None or wanted == "all":
        return tuple(gpus)
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    return tuple(gpu for gpu in gpus if any(name == str(gpu.index) or gpu.uuid.startswith(name) for name in names))


def shares_of(gpu: Gpu, shares: Sequence[GpuShares]) -> tuple[int, ...]:
    """Return the shares of the first entry that means a GPU, in MiB; nothing when none does."""
    names = (gpu.uuid, gpu.name, str(gpu.index))
    return next((entry.memory_mib for entry in shares if any(fnmatchcase(name, entry.gpu) for name in names)), ())


def gpu_slots(gpu: Gpu, baseline_mib: int, *, count: int = 1, shares_mib: Sequence[int] = ()) -> tuple[Slot, ...]:
    """Divide a GPU into slots: `shares_mib` if given, else `count` equal shares of the memory that is free of strangers.

    Raises FrazilError SHARES_TOO_LARGE when the shares exceed the memory.
    """
    usable = gpu.memory_mib - baseline_mib
    shares = tuple(shares_mib) or (usable // count,) * count
    if sum(shares) > usable:
        raise FrazilError(
            "SHARES_TOO_LARGE",
            f"The slots declared for {gpu.name} need {sum(shares):,} MiB, but only {usable:,} MiB are usable; declare less.",
        )
    return tuple(
        Slot(
            slot_key=f"{gpu.uuid}#{number}",
            device_name=gpu.name,
            memory_mib=share,
            gpu_uuid=gpu.uuid,
            gpu_memory_mib=gpu.memory_mib,
        )
        for number, share in enumerate(shares)
    )


def cpu_slots(node_id: str, *, cores: int, memory_mib: int, count: int = 0) -> tuple[Slot, ...]:
    """Divide the processors into `count` slots of equal memory.

    By default there is one slot for every 4 cores and 4 GiB, and never fewer than two, so that a live session can
    preprocess and classify at once.
    """
    slots = count or max(2, min(cores // _CPU_SLOT_CORES, memory_mib // _CPU_SLOT_MIB))
    return tuple(
        Slot(slot_key=f"cpu:{node_id}#{number}", device_name=f"CPU, {cores} cores", memory_mib=memory_mib // slots)
        for number in range(slots)
    )


def core_count(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the cores this process may use: its affinity, limited by the container's quota."""
    cores = len(os.sched_getaffinity(0))
    quota = _numbers(cgroup / "cpu.max") or _numbers(cgroup / "cpu/cpu.cfs_quota_us", cgroup / "cpu/cpu.cfs_period_us")
    if len(quota) == 2 and quota[0] > 0:
        cores = min(cores, max(1, quota[0] // quota[1]))
    return cores


def host_memory_mib(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory this process may use: the machine's, limited by the container's."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        memory = min([memory, *(limit for limit in _numbers(cgroup / name) if limit > 0)])
    return memory // _MIB


def _numbers(*paths: Path) -> list[int]:
    """Return the whole numbers in files of the cgroup file system; "max" and absent files give none."""
    numbers: list[int] = []
    for path in paths:
        with suppress(OSError):
            numbers += [int(word) for word in path.read_text().split() if word.lstrip("-").isdigit()]
    return numbers
