"""Reads NVML in a thread of its own: a driver that hangs with its GPU must not silence the agent."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from frazil.agent.nvml import Nvml, Program, Use
from frazil.model.gpu_errors import NO_ANSWER

POLL_SECONDS = 1.0
HANGS_SECONDS = 60.0  # without an end of one reading, no GPU is believed to answer


class GpuPoll:
    """What `nvml` told at the last reading. `clock` gives monotonic seconds."""

    def __init__(self, nvml: Nvml, uuids: Iterable[str], clock: Callable[[], float]) -> None:
        self._nvml = nvml
        self._uuids = tuple(uuids)
        self._clock = clock
        self._read_at = clock()
        self._uses: dict[str, Use] = {}
        self._errors: deque[tuple[str, int]] = deque()
        self._stop = threading.Event()

    def start(self) -> None:
        """Read once a second from now on; a machine without GPUs has nothing to read."""
        if self._uuids:
            threading.Thread(target=self._read_for_ever, name="nvml", daemon=True).start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()

    def read(self) -> None:
        """Read everything once."""
        self._errors.extend(self._nvml.errors())
        self._uses = {uuid: use for uuid in self._uuids if (use := self._nvml.use(uuid)) is not None}
        self._read_at = self._clock()

    def used_mib(self, uuid: str) -> int | None:
        """Return the memory in use on a GPU now, or None where it cannot be read."""
        return self._nvml.used_mib(uuid)

    def free_mib(self, uuid: str) -> int | None:
        """Return the free memory of a GPU now, or None where it cannot be read."""
        return self._nvml.free_mib(uuid)

    def programs(self, uuid: str) -> tuple[Program, ...]:
        """Return the processes that use a GPU now."""
        return self._nvml.programs(uuid)

    def use(self, uuid: str) -> Use | None:
        """Return how a GPU was used at the last reading."""
        return self._uses.get(uuid)

    def errors(self) -> list[tuple[str, int]]:
        """Return the errors (uuid and Xid) since the last call."""
        found = [self._errors.popleft() for _ in range(len(self._errors))]
        if self._uuids and self._clock() - self._read_at >= HANGS_SECONDS:
            found += [(uuid, NO_ANSWER) for uuid in self._uuids]
        return found

    def _read_for_ever(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.read()
