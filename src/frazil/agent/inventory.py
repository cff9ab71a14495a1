"""The slots of a node: GPUs as NVML reports them, processors where there is no GPU, or what the configuration declares."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frazil.model.errors import FrazilError

_MIB = 2**20
_CPU_SLOT_CORES = 4
_CPU_SLOT_MIB = 4096
_MIG_ENABLED = 1


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
class Slot:
    """One place for one worker."""

    slot_key: str
    device_name: str
    memory_mib: int
    gpu_uuid: str = ""  # empty: a share of the processors

    @property
    def is_gpu(self) -> bool:
        """Say whether a GPU stands behind the slot."""
        return bool(self.gpu_uuid)


class Nvml:
    """NVIDIA's management library; on a machine without it there are no GPUs. Functions that a driver lacks are borne."""

    def __init__(self, library: Any = None) -> None:
        self._library: Any = None
        if library is None:
            try:
                library = importlib.import_module("pynvml")
            except ImportError:
                return
        with suppress(library.NVMLError):  # no driver: no GPUs
            library.nvmlInit()
            self._library = library

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the GPUs in NVML's order; a GPU divided by MIG is replaced by its instances."""
        if self._library is None:
            return ()
        found: list[Gpu] = []
        for index in range(self._library.nvmlDeviceGetCount()):
            with suppress(self._library.NVMLError):  # a GPU that has fallen off the bus is no slot; the others are
                handle = self._library.nvmlDeviceGetHandleByIndex(index)
                devices = self._mig_instances(handle) or [handle]
                found += [self._describe(device, index, handle) for device in devices]
        return tuple(found)

    def used_mib(self, uuid: str) -> int | None:
        """Return the memory in use on a GPU, or None where NVML does not know the GPU or the figure."""
        memory = self._memory(uuid)
        return None if memory is None else -(-memory.used // _MIB)

    def free_mib(self, uuid: str) -> int | None:
        """Return the free memory of a GPU, or None as in `used_mib`."""
        memory = self._memory(uuid)
        return None if memory is None else memory.free // _MIB

    def _memory(self, uuid: str) -> Any:
        if self._library is None:
            return None
        try:
            return self._library.nvmlDeviceGetMemoryInfo(self._library.nvmlDeviceGetHandleByUUID(uuid))
        except self._library.NVMLError:
            return None

    def _mig_instances(self, handle: Any) -> list[Any]:
        library, instances = self._library, []
        try:
            if library.nvmlDeviceGetMigMode(handle)[0] != _MIG_ENABLED:
                return []
            for index in range(library.nvmlDeviceGetMaxMigDeviceCount(handle)):
                with suppress(library.NVMLError):  # that place is empty
                    instances.append(library.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except library.NVMLError:
            return []  # a GPU or driver that knows no MIG
        return instances

    def _describe(self, device: Any, index: int, parent: Any) -> Gpu:
        memory = self._library.nvmlDeviceGetMemoryInfo(device)
        name = ""
        for candidate in (device, parent):
            with suppress(self._library.NVMLError):
                name = name or _text(self._library.nvmlDeviceGetName(candidate))
        return Gpu(
            uuid=_text(self._library.nvmlDeviceGetUUID(device)),
            name=name or "NVIDIA GPU",
            memory_mib=memory.total // _MIB,
            index=index,
        )


def visible_gpus(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Leave out the GPUs that CUDA_VISIBLE_DEVICES hides from this process; NVML shows them all."""
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None or wanted == "all":
        return tuple(gpus)
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    return tuple(gpu for gpu in gpus if any(name == str(gpu.index) or gpu.uuid.startswith(name) for name in names))


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
        Slot(slot_key=f"{gpu.uuid}#{number}", device_name=gpu.name, memory_mib=share, gpu_uuid=gpu.uuid)
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


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
