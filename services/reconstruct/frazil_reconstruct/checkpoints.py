"""Checkpoints of a job: one file each, the newest whole one is where a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from frazil.io.checkpoint import load_newest, write_checkpoint
from frazil.worker import WorkerContext

CHECKPOINT_SECONDS = 60.0


class Checkpoints:
    """The checkpoints of the job that a worker has attached to."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._number = max((c.number for c in context.checkpoints), default=0)

    def load(self) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays of the newest checkpoint that is whole; people are told of those that are not."""
        paths = [(c.path, c.sha256) for c in self._context.checkpoints]
        checkpoint, corrupt = load_newest(self._context.session_folder, paths)
        for sentence in corrupt:
            self._context.notify(sentence)
        return None if checkpoint is None else checkpoint.arrays

    def save(self, cursor: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write cursor and state in one file, then make it the one to resume from."""
        context = self._context
        self._number += 1
        path = f"checkpoints/{context.job_id}/{context.environment.epoch}.{self._number:05d}.checkpoint"
        header = {"job_id": context.job_id, "number": self._number, "cursor_sequence": cursor}
        sha256 = write_checkpoint(context.session_folder / path, header, arrays)
        context.delete_expired(context.commit_checkpoint(self._number, cursor, path, sha256))
