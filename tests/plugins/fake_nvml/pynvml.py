"""In the place of pynvml, on the path of one process: GPUs as FAKE_GPUS says, errors as they are appended to FAKE_XIDS.

FAKE_GPUS="GPU-a:24000,GPU-b:24000" (uuid and MiB); every line "GPU-a 79" in the file FAKE_XIDS is one error.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

NVML_ERROR_TIMEOUT = 10
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_RESET_REQUIRED = 16
nvmlEventTypeXidCriticalError = 8

_cards = [entry.split(":") for entry in os.environ["FAKE_GPUS"].split(",")]
_xids = Path(os.environ["FAKE_XIDS"])
_read = len(_xids.read_text().splitlines()) if _xids.exists() else 0  # what came before this process is not told


class NVMLError(Exception):
    """As pynvml's."""

    def __init__(self, value: int = 999) -> None:
        self.value = value


def nvmlInit() -> None:
    """Do nothing."""


def nvmlDeviceGetCount() -> int:
    """Return how many GPUs there are."""
    return len(_cards)


def nvmlDeviceGetHandleByIndex(index: int) -> list[str]:
    """Return a GPU."""
    return _cards[index]


def nvmlDeviceGetHandleByUUID(uuid: str) -> list[str]:
    """Return a GPU."""
    for card in _cards:
        if card[0] == uuid:
            return card
    raise NVMLError


def nvmlDeviceGetUUID(card: list[str]) -> str:
    """Return its uuid."""
    return card[0]


def nvmlDeviceGetName(card: list[str]) -> str:
    """Return a name."""
    return f"Toy {card[1]}"


def nvmlDeviceGetMemoryInfo(card: list[str]) -> SimpleNamespace:
    """Return its memory, none of it in use."""
    total = int(card[1]) * 2**20
    return SimpleNamespace(total=total, used=0, free=total)


def nvmlDeviceGetMigMode(card: list[str]) -> list[int]:
    """Say that no GPU is divided."""
    raise NVMLError


def nvmlDeviceGetUtilizationRates(card: list[str]) -> SimpleNamespace:
    """Return a utilisation."""
    return SimpleNamespace(gpu=50)


def nvmlDeviceGetComputeRunningProcesses(card: list[str]) -> list[SimpleNamespace]:
    """Say that nobody uses it."""
    return []


nvmlDeviceGetGraphicsRunningProcesses = nvmlDeviceGetComputeRunningProcesses


def nvmlEventSetCreate() -> str:
    """Return a set of events."""
    return "events"


def nvmlDeviceRegisterEvents(card: list[str], kind: int, events: str) -> None:
    """Listen to all."""


def nvmlEventSetWait_v2(events: str, milliseconds: int) -> SimpleNamespace:
    """Return the next line of the file."""
    global _read
    lines = _xids.read_text().splitlines() if _xids.exists() else []
    if _read >= len(lines):
        raise NVMLError(NVML_ERROR_TIMEOUT)
    uuid, xid = lines[_read].split()
    _read += 1
    return SimpleNamespace(device=nvmlDeviceGetHandleByUUID(uuid), eventData=int(xid))
