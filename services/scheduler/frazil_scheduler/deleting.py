"""Deletion of sessions in the background: begun by a row in state DELETING, resumed after a restart."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import structlog
from sqlalchemy import RowMapping

from frazil.model.errors import FrazilError
from frazil_scheduler.domain import deletion
from frazil_scheduler.hub import Hub


class Deleter:
    """Looks for sessions that are being deleted and brings one after the other to its end, beside everything else."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._task: asyncio.Task[None] | None = None

    async def tick(self) -> None:
        """Begin or go on with what is to be deleted, if anything is and nothing runs."""
        if self._task is None or self._task.done():
            rows = [row for row in await self._hub.store.look(deletion.pending) if self._is_due(row)]
            self._task = asyncio.create_task(self._delete(rows)) if rows else None

    async def close(self) -> None:
        """End at the next folder; what is left goes on after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _is_due(self, row: RowMapping) -> bool:
        """Tell whether to try; after a failure not every second."""
        return not row["deletion_problem"] or self._hub.disk_check_due(row["session_id"])

    async def _delete(self, rows: list[RowMapping]) -> None:
        for row in rows:
            try:
                await self._delete_one(row)
            except FrazilError as error:  # the ledger is away: the next tick tries again
                structlog.get_logger().warning("deletion_interrupted", session=row["name"], sentence=error.sentence)

    async def _delete_one(self, row: RowMapping) -> None:
        store, session_id = self._hub.store, row["session_id"]
        if row["delete_results"]:
            clear = partial(deletion.clear_folder, row, self._hub.data_dir, lambda: self._hub.notifier.closed)
            problem = await asyncio.to_thread(clear)
            if problem or row["deletion_problem"]:
                await store.run(partial(deletion.set_problem, session_id=session_id, problem=problem))
            if problem or self._hub.notifier.closed:
                return
        while not await store.run(partial(deletion.forget_some, session_id=session_id)):
            pass
        structlog.get_logger().info("session_deleted", session=row["name"], results_deleted=row["delete_results"])
