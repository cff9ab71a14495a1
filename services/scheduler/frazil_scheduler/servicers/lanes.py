"""The part of SchedulerService that administers lanes."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, select

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil_scheduler.cluster import pilots
from frazil_scheduler.config import LaneSettings
from frazil_scheduler.domain import lanes
from frazil_scheduler.hub import Hub
from frazil_scheduler.lanes import LaneBackend
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.records import timestamp
from frazil_scheduler.ledger.transaction import Transaction


class LaneServicer:
    """Lanes: see scheduler.proto. Mixed into SchedulerServicer."""

    _hub: Hub

    async def ListLanes(self, request: scheduler_pb2.ListLanesRequest, context: Any) -> scheduler_pb2.ListLanesResponse:
        """List lanes, with what their clusters have of ours."""
        rows = await self._hub.store.look(_open_cluster_jobs)
        settings = self._hub.lanes.settings()
        return scheduler_pb2.ListLanesResponse(lanes=[self._record(one, rows) for one in settings])

    async def CreateLane(self, request: scheduler_pb2.CreateLaneRequest, context: Any) -> scheduler_pb2.Lane:
        """Add a lane; it stays over restarts."""
        settings, backend = lanes.read_request(request.lane.name, request.lane.backend, request.lane.options_json)

        def create(tx: Transaction) -> scheduler_pb2.Lane:
            lanes.create(tx, self._hub.lanes, settings)
            return self._record(settings, (), backend)

        reply = await self._hub.store.run(lambda tx: tx.once(request, scheduler_pb2.Lane, lambda: create(tx)))
        await self._hub.store.look(lambda tx: self._take_up(tx, settings, backend))
        return reply

    async def UpdateLane(self, request: scheduler_pb2.UpdateLaneRequest, context: Any) -> scheduler_pb2.Lane:
        """Change a lane's options; running jobs go on."""
        known = lanes.require_changeable(self._hub.lanes, request.lane.name)
        settings, backend = lanes.read_request(known.name, known.backend, request.lane.options_json)

        def change(tx: Transaction) -> scheduler_pb2.Lane:
            lanes.change(tx, settings)
            return self._record(settings, (), backend)

        reply = await self._hub.store.run(lambda tx: tx.once(request, scheduler_pb2.Lane, lambda: change(tx)))
        await self._hub.store.look(lambda tx: self._take_up(tx, settings, backend))
        return reply

    async def DeleteLane(self, request: scheduler_pb2.DeleteLaneRequest, context: Any) -> scheduler_pb2.DeleteLaneResponse:
        """Remove a lane that nobody uses."""

        def delete(tx: Transaction) -> scheduler_pb2.DeleteLaneResponse:
            if request.name in self._hub.lanes or not lanes.is_stored(tx, request.name):  # else it cannot be used, and may go
                lanes.require_changeable(self._hub.lanes, request.name)
            lanes.delete(tx, request.name)
            return scheduler_pb2.DeleteLaneResponse()

        reply = await self._hub.store.run(lambda tx: tx.once(request, scheduler_pb2.DeleteLaneResponse, lambda: delete(tx)))
        await self._hub.store.look(lambda tx: self._let_go(tx, request.name))
        return reply

    def _take_up(self, tx: Transaction, settings: LaneSettings, backend: LaneBackend) -> None:
        """Let a lane be used if it is as the ledger has it: a repeated request brings nothing back."""
        if settings in lanes.stored(tx):
            self._hub.lanes.put(settings, backend)

    def _let_go(self, tx: Transaction, name: str) -> None:
        if not lanes.is_stored(tx, name):
            self._hub.lanes.remove(name)

    def _record(
        self, settings: LaneSettings, rows: Sequence[RowMapping], backend: LaneBackend | None = None
    ) -> scheduler_pb2.Lane:
        backend = backend or self._hub.lanes[settings.name]
        return scheduler_pb2.Lane(
            name=settings.name,
            backend=settings.backend,
            node_globs=backend.node_globs(),
            options_json=json.dumps(dict(settings.options), sort_keys=True),
            from_file=settings.from_file,
            problem=self._hub.lane_problems.get(settings.name, ""),
            cluster_jobs=[_cluster_job(row) for row in rows if row["lane"] == settings.name],
        )


def _open_cluster_jobs(tx: Transaction) -> Sequence[RowMapping]:
    return tx.all(select(tables.cluster_job).where(pilots.OPEN).order_by(tables.cluster_job.c.number))


def _cluster_job(row: RowMapping) -> scheduler_pb2.ClusterJob:
    return scheduler_pb2.ClusterJob(
        name=row["name"],
        cluster_job_id=row["cluster_job_id"],
        state=row["state"],
        cluster_reason=row["cluster_reason"],
        submit_time=timestamp(row["submitted_ns"]),
        end_time=timestamp(row["end_ns"]),
    )
