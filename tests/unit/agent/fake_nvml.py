"""pynvml over GPUs that are not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

MIB = 2**20


class Library:
    """pynvml's functions over a list of GPUs; what is missing raises, as on an old driver."""

    NVML_ERROR_TIMEOUT = 10
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16
    nvmlEventTypeXidCriticalError = 8

    class NVMLError(Exception):
        def __init__(self, value: int = 999) -> None:
            self.value = value

    class NVMLLibraryMismatchError(Exception):
        pass

    def __init__(self, *gpus: dict[str, Any], driver: bool = True) -> None:
        self.cards = gpus
        self.driver = driver
        self.watched: list[str] = []
        self.pending: list[tuple[str, int] | int] = []  # events (uuid and Xid) and errors of waiting

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        if self.cards[index].get("lost"):
            raise self.NVMLError
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> dict[str, Any]:
        for card in self.cards:
            for device in (card, *card.get("mig", ())):
                if device and device["uuid"] == uuid:
                    return device
        raise self.NVMLError

    def nvmlDeviceGetUUID(self, device: dict[str, Any]) -> bytes:
        return device["uuid"].encode()  # older pynvml gives bytes

    def nvmlDeviceGetName(self, device: dict[str, Any]) -> str:
        if "name" not in device:
            raise self.NVMLError
        return device["name"]

    def nvmlDeviceGetMemoryInfo(self, device: dict[str, Any]) -> SimpleNamespace:
        if "error" in device:
            raise self.NVMLError(device["error"])
        total, used = device["mib"] * MIB, device.get("used", 0) * MIB
        return SimpleNamespace(total=total, used=used, free=total - used)

    def nvmlDeviceGetMigMode(self, device: dict[str, Any]) -> list[int]:
        if "mig" not in device:
            raise self.NVMLError
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: dict[str, Any]) -> int:
        return len(device["mig"])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: dict[str, Any], index: int) -> dict[str, Any]:
        if device["mig"][index] is None:
            raise self.NVMLError
        return device["mig"][index]

    def nvmlDeviceGetUtilizationRates(self, device: dict[str, Any]) -> SimpleNamespace:
        if "percent" not in device:
            raise self.NVMLError
        return SimpleNamespace(gpu=device["percent"])

    def nvmlDeviceGetComputeRunningProcesses(self, device: dict[str, Any]) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else mib * MIB)
            for pid, mib in device.get("programs", {}).items()
        ]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: dict[str, Any]) -> list[SimpleNamespace]:
        raise self.NVMLLibraryMismatchError

    def nvmlEventSetCreate(self) -> str:
        return "events"

    def nvmlDeviceRegisterEvents(self, device: dict[str, Any], kind: int, events: str) -> None:
        if device.get("events") is False:
            raise self.NVMLError
        assert (kind, events) == (self.nvmlEventTypeXidCriticalError, "events")
        self.watched.append(device["uuid"])

    def nvmlEventSetWait_v2(self, events: str, milliseconds: int) -> SimpleNamespace:
        assert milliseconds == 0
        if not self.pending:
            raise self.NVMLError(self.NVML_ERROR_TIMEOUT)
        event = self.pending.pop(0)
        if isinstance(event, int):
            raise self.NVMLError(event)
        return SimpleNamespace(device=self.nvmlDeviceGetHandleByUUID(event[0]), eventData=event[1])


A100 = {"uuid": "GPU-a", "name": "A100", "mib": 40960, "used": 1000}
RTX = {"uuid": "GPU-b", "name": "RTX", "mib": 24576}
