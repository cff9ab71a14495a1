"""SchedulerService: lanes, nodes, slots and jobs, and the operator's levers."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import RowMapping, select

from frazil.api.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from frazil_scheduler.domain import control, gpus, jobs, nodes, queue, sessions
from frazil_scheduler.hub import Hub
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.records import job_record, node_record, slot_record
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.servicers.lanes import LaneServicer

JobRequest = (
    scheduler_pb2.SetJobPriorityRequest
    | scheduler_pb2.CancelJobRequest
    | scheduler_pb2.KillJobRequest
    | scheduler_pb2.RequeueJobRequest
)


class SchedulerServicer(LaneServicer, scheduler_pb2_grpc.SchedulerServiceServicer):
    """See scheduler.proto."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def ListNodes(self, request: scheduler_pb2.ListNodesRequest, context: Any) -> scheduler_pb2.ListNodesResponse:
        """List nodes with their GPU slots and who holds them."""

        def body(tx: Transaction) -> scheduler_pb2.ListNodesResponse:
            rows = tx.all(select(tables.node).where(tables.node.c.state != "ENDED").order_by(tables.node.c.node_id))
            return scheduler_pb2.ListNodesResponse(nodes=[node_record(tx, row) for row in rows])

        reply = await self._hub.store.look(body)
        for node in reply.nodes:
            for slot in node.slots:
                self._say_use(slot)
        return reply

    def _say_use(self, slot: scheduler_pb2.GpuSlot) -> None:
        use = self._hub.gpu_use(slot.node_id, slot.slot_key.partition("#")[0])
        if use is not None:
            slot.gpu_memory_used_mib = use.memory_used_mib
            slot.gpu_memory_total_mib = use.memory_total_mib
            slot.gpu_utilization_percent = use.utilization_percent

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
        return await self._hub.store.look(lambda tx: job_record(tx, control.require(tx, request.job_id)))

    async def SubmitJob(self, request: scheduler_pb2.SubmitJobRequest, context: Any) -> scheduler_pb2.Job:
        """Queue an auxiliary job."""
        return await self._once(request, lambda tx: control.submit(tx, self._hub.lanes, request))

    async def SetJobPriority(self, request: scheduler_pb2.SetJobPriorityRequest, context: Any) -> scheduler_pb2.Job:
        """Change a job's priority in the queue."""
        return await self._change(request, lambda tx, job: control.set_priority(tx, job, request.priority))

    async def CancelJob(self, request: scheduler_pb2.CancelJobRequest, context: Any) -> scheduler_pb2.Job:
        """Cancel a job; its slot is released once its worker is proven dead."""
        return await self._change(request, control.cancel)

    async def KillJob(self, request: scheduler_pb2.KillJobRequest, context: Any) -> scheduler_pb2.Job:
        """End a job's worker at once."""
        return await self._change(request, control.kill)

    async def RequeueJob(self, request: scheduler_pb2.RequeueJobRequest, context: Any) -> scheduler_pb2.Job:
        """Put a job back into the queue."""
        return await self._change(request, control.requeue)

    async def _change(self, request: JobRequest, change: Callable[[Transaction, RowMapping], RowMapping]) -> scheduler_pb2.Job:
        return await self._once(request, lambda tx: change(tx, control.require(tx, request.job_id)))

    async def _once(self, request: Message, body: Callable[[Transaction], RowMapping]) -> scheduler_pb2.Job:
        """Do something to a job, once per request id, and return the job."""
        return await self._hub.store.run(lambda tx: tx.once(request, scheduler_pb2.Job, lambda: job_record(tx, body(tx))))

    async def ExplainWait(self, request: scheduler_pb2.ExplainWaitRequest, context: Any) -> scheduler_pb2.ExplainWaitResponse:
        """Say why a job waits and who blocks it."""
        lanes, job_id = self._hub.lanes, request.job_id
        return await self._hub.store.look(lambda tx: queue.explain_wait(tx, lanes, control.require(tx, job_id)))

    async def DrainGpu(self, request: scheduler_pb2.DrainGpuRequest, context: Any) -> scheduler_pb2.GpuSlot:
        """Give a GPU to nobody else once its present jobs have ended."""
        return await self._gpu(request, lambda tx: gpus.drain(tx, request.slot_key, request.reason))

    async def QuarantineGpu(self, request: scheduler_pb2.QuarantineGpuRequest, context: Any) -> scheduler_pb2.GpuSlot:
        """Take a GPU out of service."""
        return await self._gpu(request, lambda tx: gpus.quarantine(tx, request.slot_key, request.reason))

    async def ClearGpu(self, request: scheduler_pb2.ClearGpuRequest, context: Any) -> scheduler_pb2.GpuSlot:
        """Put a drained or quarantined GPU back into service, a quarantined one after a probe by its agent."""
        return await self._gpu(request, lambda tx: gpus.clear(tx, request.slot_key))

    async def _gpu(self, request: Message, body: Callable[[Transaction], RowMapping]) -> scheduler_pb2.GpuSlot:
        return await self._hub.store.run(
            lambda tx: tx.once(request, scheduler_pb2.GpuSlot, lambda: slot_record(body(tx), None))
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
