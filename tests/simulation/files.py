"""The ledger's files as a kill or a power failure leaves them."""

from __future__ import annotations

import itertools
import random
import shutil
from pathlib import Path


class LedgerFiles:
    """Each death leaves a copy of the files, which the next scheduler opens; the dead one's own are thrown away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self.path = self._dead = folder / "0" / "ledger.sqlite"

    def leave(self, chance: random.Random, *, torn_after: int = 0) -> None:
        """Copy the files as they are; where the power fails, without a part of the log that came after so many bytes."""
        target = self._folder / str(next(self._numbers)) / self.path.name
        target.parent.mkdir()
        shutil.copy(self.path, target)
        if self._log.exists():
            content = self._log.read_bytes()
            if torn_after:
                content = content[: chance.randrange(torn_after, max(torn_after + 1, len(content)))]
            target.with_name(self._log.name).write_bytes(content)
        self._dead, self.path = self.path, target

    def forget_dead(self) -> None:
        """Throw the files of the dead scheduler away."""
        shutil.rmtree(self._dead.parent)

    def mark(self) -> tuple[int, int]:
        """Return the length of the write-ahead log, and when the database itself was last written."""
        return (self._log.stat().st_size if self._log.exists() else 0), self.path.stat().st_mtime_ns

    def can_tear(self, mark: tuple[int, int]) -> bool:
        """Tell whether since then a transaction went to the end of the log, and nothing into the database itself."""
        log_bytes, written = self.mark()
        return log_bytes > mark[0] > 0 and written == mark[1]

    @property
    def _log(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")
