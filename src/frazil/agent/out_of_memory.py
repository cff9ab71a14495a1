"""Whether the kernel has killed a process for want of memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"), Path("/proc/vmstat"))


def oom_kills() -> int:
    """Return how many processes the kernel has killed, by the counters of the container and of the machine together."""
    total = 0
    for path in _COUNTERS:
        with suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
            total += int(found.group(1)) if found else 0
    return total


class OomWatch:
    """Tells whether `count` has grown since it was last asked."""

    def __init__(self, count: Callable[[], int] = oom_kills) -> None:
        self._count = count
        self._known = count()

    def has_killed(self) -> bool:
        """Tell whether a process was killed since the last call."""
        before, self._known = self._known, self._count()
        return self._known > before
