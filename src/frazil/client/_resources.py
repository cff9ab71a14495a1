"""Nodes, GPUs, lanes and jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.scheduler.v1.scheduler_pb2 import ExplainWaitResponse, GpuSlot, Job, Lane, Node
from frazil.client._connection import Connection


class ResourceCalls(Connection):
    """What can be asked of nodes, lanes and jobs."""

    # ------------------------------------------------------------------------------------------------ nodes and lanes
    def nodes(self) -> Sequence[Node]:
        """Return the nodes with their slots and who holds them."""
        return self._call(self._scheduler.ListNodes, scheduler_pb2.ListNodesRequest()).nodes

    def fence_node(self, node_id: str, attested_by: str) -> Node:
        """Attest that every process on a lost node is dead: its leases are freed without proof from the node."""
        request = scheduler_pb2.FenceNodeRequest(node_id=node_id, attested_by=attested_by)
        return self._change(self._scheduler.FenceNode, request)

    def drain_gpu(self, slot_key: str, reason: str) -> GpuSlot:
        """Give a GPU to nobody else once its present jobs have ended."""
        return self._change(self._scheduler.DrainGpu, scheduler_pb2.DrainGpuRequest(slot_key=slot_key, reason=reason))

    def quarantine_gpu(self, slot_key: str, reason: str) -> GpuSlot:
        """Take a GPU out of service; its jobs go on elsewhere."""
        request = scheduler_pb2.QuarantineGpuRequest(slot_key=slot_key, reason=reason)
        return self._change(self._scheduler.QuarantineGpu, request)

    def clear_gpu(self, slot_key: str, reason: str) -> GpuSlot:
        """Put a drained or quarantined GPU back into service."""
        return self._change(self._scheduler.ClearGpu, scheduler_pb2.ClearGpuRequest(slot_key=slot_key, reason=reason))

    def lanes(self) -> Sequence[Lane]:
        """Return the lanes."""
        return self._call(self._scheduler.ListLanes, scheduler_pb2.ListLanesRequest()).lanes

    def create_lane(self, name: str, backend: str, options: Mapping[str, Any]) -> Lane:
        """Add a lane; `options` are those of the backend, as in frazil.toml."""
        lane = Lane(name=name, backend=backend, options_json=json.dumps(options))
        return self._change(self._scheduler.CreateLane, scheduler_pb2.CreateLaneRequest(lane=lane))

    def update_lane(self, name: str, options: Mapping[str, Any]) -> Lane:
        """Change a lane's options, all of them."""
        lane = Lane(name=name, options_json=json.dumps(options))
        return self._change(self._scheduler.UpdateLane, scheduler_pb2.UpdateLaneRequest(lane=lane))

    def delete_lane(self, name: str) -> None:
        """Remove a lane that nobody uses."""
        self._change(self._scheduler.DeleteLane, scheduler_pb2.DeleteLaneRequest(name=name))

    # ------------------------------------------------------------------------------------------------------------- jobs
    def jobs(self, session: str = "", *, active_only: bool = False) -> Sequence[Job]:
        """Return jobs in queue order, of one session or of all."""
        request = scheduler_pb2.ListJobsRequest(session=session, active_only=active_only)
        return self._call(self._scheduler.ListJobs, request).jobs

    def get_job(self, job_id: str) -> Job:
        """Return one job."""
        return self._call(self._scheduler.GetJob, scheduler_pb2.GetJobRequest(job_id=job_id))

    def explain_wait(self, job_id: str) -> ExplainWaitResponse:
        """Say why a job waits, who blocks it and what can be done."""
        return self._call(self._scheduler.ExplainWait, scheduler_pb2.ExplainWaitRequest(job_id=job_id))

    def submit_job(
        self,
        session: str,
        job_type: str,
        *,
        lane: str = "",
        gpus: Sequence[str] = (),
        priority: int | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Job:
        """Queue an auxiliary job of a session."""
        request = scheduler_pb2.SubmitJobRequest(
            session=session, job_type=job_type, lane=lane, gpus=gpus, priority=priority, parameters=parameters
        )
        return self._change(self._scheduler.SubmitJob, request)

    def set_job_priority(self, job_id: str, priority: int) -> Job:
        """Change a job's priority, 0 to 100."""
        request = scheduler_pb2.SetJobPriorityRequest(job_id=job_id, priority=priority)
        return self._change(self._scheduler.SetJobPriority, request)

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; its slot is released once its worker is proven dead."""
        return self._change(self._scheduler.CancelJob, scheduler_pb2.CancelJobRequest(job_id=job_id))

    def kill_job(self, job_id: str) -> Job:
        """End a job's worker at once, without a checkpoint; the job is cancelled."""
        return self._change(self._scheduler.KillJob, scheduler_pb2.KillJobRequest(job_id=job_id))

    def requeue_job(self, job_id: str) -> Job:
        """Put a job back into the queue."""
        return self._change(self._scheduler.RequeueJob, scheduler_pb2.RequeueJobRequest(job_id=job_id))
