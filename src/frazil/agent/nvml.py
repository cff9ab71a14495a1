"""NVIDIA's management library: which GPUs there are, their memory and use, and the errors they report."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from frazil.agent.inventory import Gpu
from frazil.model.gpu_errors import NO_ANSWER

_MIB = 2**20
_MIG_ENABLED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How a GPU is used."""

    memory_used_mib: int
    memory_total_mib: int
    utilization_percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A process that uses a GPU, by the driver's word; its number is the machine's, not a container's."""

    pid: int
    memory_mib: int | None  # None where the driver does not say


class Nvml:
    """On a machine without the library or its driver there are no GPUs. Functions that a driver lacks are borne."""

    def __init__(self, library: Any = None) -> None:
        self._library: Any = None
        self._instances: dict[str, list[str]] = {}  # uuids of a GPU's MIG instances, or its own
        self._events: Any = None
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
                mine = [self._describe(device, index, handle) for device in devices]
                self._instances[_text(self._library.nvmlDeviceGetUUID(handle))] = [gpu.uuid for gpu in mine]
                found += mine
        return tuple(found)

    def used_mib(self, uuid: str) -> int | None:
        """Return the memory in use on a GPU, or None where NVML does not know the GPU or the figure."""
        memory = self._memory(uuid)
        return None if memory is None else -(-memory.used // _MIB)

    def free_mib(self, uuid: str) -> int | None:
        """Return the free memory of a GPU, or None as in `used_mib`."""
        memory = self._memory(uuid)
        return None if memory is None else memory.free // _MIB

    def use(self, uuid: str) -> Use | None:
        """Return how a GPU is used, or None as in `used_mib`; a MIG instance has no utilisation of its own."""
        memory = self._memory(uuid)
        if memory is None:
            return None
        percent = 0
        with suppress(self._library.NVMLError):
            percent = self._library.nvmlDeviceGetUtilizationRates(self._library.nvmlDeviceGetHandleByUUID(uuid)).gpu
        used = -(-memory.used // _MIB)
        return Use(memory_used_mib=used, memory_total_mib=memory.total // _MIB, utilization_percent=percent)

    def programs(self, uuid: str) -> tuple[Program, ...]:
        """Return the processes that use a GPU, by number; in a container the driver may name none."""
        if self._library is None:
            return ()
        mismatch = getattr(self._library, "NVMLLibraryMismatchError", self._library.NVMLError)  # a driver without the function
        found: dict[int, Program] = {}
        for listing in ("nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetComputeRunningProcesses"):
            with suppress(self._library.NVMLError, mismatch):
                handle = self._library.nvmlDeviceGetHandleByUUID(uuid)
                for process in getattr(self._library, listing)(handle):
                    used = process.usedGpuMemory
                    memory = None if used is None else -(-used // _MIB)
                    found[process.pid] = Program(pid=process.pid, memory_mib=memory)
        return tuple(found[pid] for pid in sorted(found))

    def watch(self) -> None:
        """Listen for errors of the GPUs that `gpus` has found; some boards and drivers report none."""
        if self._library is None:
            return
        with suppress(self._library.NVMLError):
            self._events = self._library.nvmlEventSetCreate()
        for parent in self._instances if self._events is not None else ():
            with suppress(self._library.NVMLError):
                handle = self._library.nvmlDeviceGetHandleByUUID(parent)
                self._library.nvmlDeviceRegisterEvents(handle, self._library.nvmlEventTypeXidCriticalError, self._events)

    def errors(self) -> list[tuple[str, int]]:
        """Return the errors (uuid and Xid) that have come since the last call, without waiting.

        A GPU that has been lost, and every GPU once NVML itself fails, has the error NO_ANSWER.
        """
        if self._library is None:
            return []
        return [*self._reported(), *((uuid, NO_ANSWER) for uuid in self._all() if self._is_lost(uuid))]

    def _reported(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        while self._events is not None:
            try:
                event = self._library.nvmlEventSetWait_v2(self._events, 0)
                parent = _text(self._library.nvmlDeviceGetUUID(event.device))
            except self._library.NVMLError as error:
                if error.value != self._library.NVML_ERROR_TIMEOUT:
                    self._events = None
                    found += [(uuid, NO_ANSWER) for uuid in self._all()]
                break
            found += [(uuid, int(event.eventData)) for uuid in self._instances.get(parent, [parent])]
        return found

    def _all(self) -> Sequence[str]:
        return [uuid for instances in self._instances.values() for uuid in instances]

    def _is_lost(self, uuid: str) -> bool:
        try:
            self._library.nvmlDeviceGetMemoryInfo(self._library.nvmlDeviceGetHandleByUUID(uuid))
        except self._library.NVMLError as error:
            return error.value in (self._library.NVML_ERROR_GPU_IS_LOST, self._library.NVML_ERROR_RESET_REQUIRED)
        return False

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


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
