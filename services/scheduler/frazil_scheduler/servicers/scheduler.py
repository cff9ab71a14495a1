"""SchedulerService: lanes, nodes, slots and jobs, and the operator's levers."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, select

from frazil.api.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.config import LaneSettings
from frazil_scheduler.domain import jobs, nodes, queue, sessions
from frazil_scheduler.hub import Hub
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.records import job_record, node_record, slot_record
from frazil_scheduler.ledger.transaction import Transaction


class SchedulerServicer(scheduler_pb2_grpc.SchedulerServiceServicer):
    """See scheduler.proto."""

    def __init__(self, hub: Hub, lanes: tuple[LaneSettings, ...]) -> None:
        self._hub = hub
        self._lanes = lanes

    async def ListNodes(self, request: scheduler_pb2.ListNodesRequest, context: Any) -> scheduler_pb2.ListNodesResponse:
        """List nodes with their GPU slots and who holds them."""

        def body(tx: Transaction) -> scheduler_pb2.ListNodesResponse:
            rows = tx.all(select(tables.node).order_by(tables.node.c.node_id))
            return scheduler_pb2.ListNodesResponse(nodes=[node_record(tx, row) for row in rows])

        return await self._hub.store.look(body)

    async def ListLanes(self, request: scheduler_pb2.ListLanesRequest, context: Any) -> scheduler_pb2.ListLanesResponse:
        """List lanes."""
        return scheduler_pb2.ListLanesResponse(
            lanes=[
                scheduler_pb2.Lane(name=lane.name, backend=lane.backend, node_globs=self._hub.lanes[lane.name].node_globs())
                for lane in self._lanes
            ]
        )

    async def ListJobs(self, request: scheduler_pb2.ListJobsRequest, context: Any) -> scheduler_pb2.ListJobsResponse:
        """List jobs in queue order."""

        def body(tx: Transaction) -> scheduler_pb2.ListJobsResponse:
            statement = select(tables.job).order_by(tables.job.c.sequence)
            if request.session:
                session_id = sessions.require(tx, request.session)["session_id"]
                statement = statement.where(tables.job.c.session_id == session_id)
            if request.active_only:
                statement = statement.where(tables.job.c.state.not_in(jobs.TERMINAL))
            return scheduler_pb2.ListJobsResponse(jobs=[job_record(tx, row) for row in tx.all(statement)])

        return await self._hub.store.look(body)

    async def GetJob(self, request: scheduler_pb2.GetJobRequest, context: Any) -> scheduler_pb2.Job:
        """Return one job."""
        return await self._hub.store.look(lambda tx: job_record(tx, _require_job(tx, request.job_id)))

    async def CancelJob(self, request: scheduler_pb2.CancelJobRequest, context: Any) -> scheduler_pb2.Job:
        """Cancel a job; its slot is released once its worker is proven dead."""

        def cancel(tx: Transaction) -> scheduler_pb2.Job:
            job = _require_job(tx, request.job_id)
            sessions.stop(tx, job, "CANCELLED", reason="Cancelled by a person.")
            return job_record(tx, _require_job(tx, request.job_id))

        return await self._hub.store.run(lambda tx: tx.once(request, scheduler_pb2.Job, lambda: cancel(tx)))

    async def ExplainWait(self, request: scheduler_pb2.ExplainWaitRequest, context: Any) -> scheduler_pb2.ExplainWaitResponse:
        """Say why a job waits and who blocks it."""
        return await self._hub.store.look(lambda tx: queue.explain_wait(tx, self._hub.lanes, _require_job(tx, request.job_id)))

    async def QuarantineGpu(self, request: scheduler_pb2.QuarantineGpuRequest, context: Any) -> scheduler_pb2.GpuSlot:
        """Take a GPU out of service."""
        return await self._hub.store.run(
            lambda tx: tx.once(
                request,
                scheduler_pb2.GpuSlot,
                lambda: slot_record(nodes.quarantine_gpu(tx, request.slot_key, request.reason), None),
            )
        )

    async def ClearGpu(self, request: scheduler_pb2.ClearGpuRequest, context: Any) -> scheduler_pb2.GpuSlot:
        """Put a quarantined GPU back into service after a probe by its agent."""
        return await self._hub.store.run(
            lambda tx: tx.once(request, scheduler_pb2.GpuSlot, lambda: slot_record(nodes.clear_gpu(tx, request.slot_key), None))
        )

    async def FenceNode(self, request: scheduler_pb2.FenceNodeRequest, context: Any) -> scheduler_pb2.Node:
        """Free a lost node's leases on a person's word."""
        return await self._hub.store.run(
            lambda tx: tx.once(
                request,
                scheduler_pb2.Node,
                lambda: node_record(tx, nodes.fence(tx, request.node_id, request.attested_by)),
            )
        )


def _require_job(tx: Transaction, job_id: str) -> RowMapping:
    row = jobs.find(tx, job_id)
    if row is None:
        raise FrazilError("JOB_UNKNOWN", f"There is no job {job_id!r}.", kind=ErrorKind.NOT_FOUND)
    return row
