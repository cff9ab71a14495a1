"""The errors of this machine's GPUs: which are grave and remembered, and which came while a worker ran."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from frazil.agent.inventory import Slot
from frazil.agent.nvml import Program, Use
from frazil.agent.prove_free import MemoryReader
from frazil.api.agent.v1.agent_pb2 import GpuFault
from frazil.model.gpu_errors import describe, is_programs_own


class GpuReader(MemoryReader, Protocol):
    """What the agent reads of GPUs."""

    def use(self, uuid: str) -> Use | None:
        """Return how a GPU is used; None where that cannot be read."""
        ...

    def programs(self, uuid: str) -> tuple[Program, ...]:
        """Return the processes that use a GPU; none where that cannot be read."""
        ...

    def errors(self) -> list[tuple[str, int]]:
        """Return the errors (uuid and Xid) since the last call."""
        ...


class GpuWatch:
    """Keeps the errors that `reader` tells of."""

    def __init__(self, reader: GpuReader) -> None:
        self._reader = reader
        self._grave: dict[str, GpuFault] = {}  # the first of each GPU
        self._while_running: dict[str, list[int]] = {}  # by slot

    def look(self, running: Iterable[Slot]) -> list[GpuFault]:
        """Return what is new; `running` are the slots with a worker."""
        slots = tuple(running)
        new: list[GpuFault] = []
        for uuid, xid in self._reader.errors():
            fault = GpuFault(gpu_uuid=uuid, xid=xid, sentence=describe(xid))
            for slot in slots:
                if slot.gpu_uuid == uuid:
                    self._while_running.setdefault(slot.slot_key, []).append(xid)
            if is_programs_own(xid):
                new.append(fault)
            elif uuid not in self._grave:
                self._grave[uuid] = fault
                new.append(fault)
        return new

    def grave(self) -> list[GpuFault]:
        """Return the faults of GPUs that are out of order."""
        return list(self._grave.values())

    def problem(self, gpu_uuid: str) -> str:
        """Return why a GPU is out of order; nothing when it is not."""
        fault = self._grave.get(gpu_uuid)
        return fault.sentence if fault is not None else ""

    def forget(self, gpu_uuid: str) -> None:
        """A person says that a GPU is in order again; what is wrong with it will show."""
        self._grave.pop(gpu_uuid, None)

    def take(self, slot_key: str) -> list[int]:
        """Return, once, the errors that came while a slot's worker ran."""
        return self._while_running.pop(slot_key, [])
