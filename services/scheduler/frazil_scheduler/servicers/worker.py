"""WorkerService: what a worker asks under its lease."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

import asyncio
from typing import Any

from frazil.api.worker.v1 import worker_pb2, worker_pb2_grpc
from frazil_scheduler.domain import sessions, workers
from frazil_scheduler.hub import LEASES_REMEMBERED, Hub

WAIT_MAX_SECONDS = 20.0
PROGRESS_SECONDS = 10.0


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """See worker.proto."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._progress: dict[str, tuple[str, float]] = {}  # by lease: the sentence kept, and when
        self._sessions: dict[str, str] = {}  # by lease; it is the same for all of a lease's life

    async def Attach(self, request: worker_pb2.AttachRequest, context: Any) -> worker_pb2.AttachResponse:
        """Tell a worker what it is to do."""
        return await self._hub.store.look(lambda tx: workers.attach(tx, request))

    async def Heartbeat(self, request: worker_pb2.HeartbeatRequest, context: Any) -> worker_pb2.HeartbeatResponse:
        """Keep the worker's progress, not too often, and say whether to stop."""
        lease_id, now = request.lease.lease_id, self._hub.clock.monotonic()
        sentence, when = self._progress.get(lease_id, ("", -PROGRESS_SECONDS))
        stop = await self._hub.store.look(lambda tx: workers.should_stop(tx, request.lease))
        if request.progress != sentence and now - when >= PROGRESS_SECONDS:
            self._progress[lease_id] = (request.progress, now)
            await self._hub.store.run(lambda tx: workers.keep_progress(tx, request))
        return worker_pb2.HeartbeatResponse(stop=stop)

    async def ClaimExposures(
        self, request: worker_pb2.ClaimExposuresRequest, context: Any
    ) -> worker_pb2.ClaimExposuresResponse:
        """Take exposures, waiting for the first."""
        loop = asyncio.get_running_loop()
        end = loop.time() + min(request.wait_seconds, WAIT_MAX_SECONDS)
        topic = await self._topic(request.lease)
        await self._check_disk(topic.partition(":")[2])
        while True:
            ticket = self._hub.notifier.ticket(topic)
            reply, retry = await self._hub.store.run(lambda tx: workers.claim(tx, request))
            left = end - loop.time()
            if not reply.claims and request.wait_seconds > 0:
                self._hub.asked_in_vain(request.lease.lease_id)
            if reply.claims or reply.drained or reply.stop or left <= 0 or self._hub.notifier.closed:
                return reply
            wait = left if retry is None or retry <= 0 else min(left, retry + 0.01)
            await self._hub.notifier.wait(topic, ticket, wait)

    async def CommitExposure(
        self, request: worker_pb2.CommitExposureRequest, context: Any
    ) -> worker_pb2.CommitExposureResponse:
        """Make an attempt's result count."""
        return await self._hub.store.run(lambda tx: workers.commit(tx, request))

    async def FailExposure(self, request: worker_pb2.FailExposureRequest, context: Any) -> worker_pb2.FailExposureResponse:
        """End an attempt without a result."""
        return await self._hub.store.run(lambda tx: workers.fail(tx, request))

    async def ReadParticleBlocks(
        self, request: worker_pb2.ReadParticleBlocksRequest, context: Any
    ) -> worker_pb2.ReadParticleBlocksResponse:
        """Read particle blocks after a cursor, waiting for the first."""
        loop = asyncio.get_running_loop()
        end = loop.time() + min(request.wait_seconds, WAIT_MAX_SECONDS)
        topic = await self._topic(request.lease)
        while True:
            ticket = self._hub.notifier.ticket(topic)
            reply = await self._hub.store.look(lambda tx: workers.read_blocks(tx, request))
            left = end - loop.time()
            if not reply.blocks and request.wait_seconds > 0:
                self._hub.asked_in_vain(request.lease.lease_id)
            news = reply.blocks or reply.HasField("class_averages")
            if news or reply.end_of_input or reply.stop or left <= 0 or self._hub.notifier.closed:
                return reply
            await self._hub.notifier.wait(topic, ticket, left)

    async def CommitCheckpoint(
        self, request: worker_pb2.CommitCheckpointRequest, context: Any
    ) -> worker_pb2.CommitCheckpointResponse:
        """Make a checkpoint the one to resume from."""
        return await self._hub.store.run(lambda tx: workers.commit_checkpoint(tx, request))

    async def PublishClassAverages(
        self, request: worker_pb2.PublishClassAveragesRequest, context: Any
    ) -> worker_pb2.PublishClassAveragesResponse:
        """Publish class averages."""
        return await self._hub.store.run(lambda tx: workers.publish(tx, request))

    async def PublishVolume(self, request: worker_pb2.PublishVolumeRequest, context: Any) -> worker_pb2.PublishVolumeResponse:
        """Publish a volume."""
        return await self._hub.store.run(lambda tx: workers.publish_volume(tx, request))

    async def PublishTemplates(
        self, request: worker_pb2.PublishTemplatesRequest, context: Any
    ) -> worker_pb2.PublishTemplatesResponse:
        """Publish templates for the picker."""
        return await self._hub.store.run(lambda tx: workers.publish_templates(tx, request))

    async def Notify(self, request: worker_pb2.NotifyRequest, context: Any) -> worker_pb2.NotifyResponse:
        """Tell people what a worker has to say."""
        return await self._hub.store.run(lambda tx: workers.notify(tx, request))

    async def FinishJob(self, request: worker_pb2.FinishJobRequest, context: Any) -> worker_pb2.FinishJobResponse:
        """End the job."""
        return await self._hub.store.run(lambda tx: workers.finish(tx, request))

    async def _topic(self, token: worker_pb2.LeaseToken) -> str:
        """Return the topic that changes with the session of a lease."""
        session_id = self._sessions.get(token.lease_id)
        if session_id is None:
            session_id = await self._hub.store.look(lambda tx: workers.session_of(tx, token))
            if len(self._sessions) >= LEASES_REMEMBERED:
                self._sessions.clear()
            self._sessions[token.lease_id] = session_id
        return f"session:{session_id}"

    async def _check_disk(self, session_id: str) -> None:
        if not self._hub.disk_check_due(session_id):
            return
        row = await self._hub.store.look(lambda tx: sessions.require(tx, session_id))
        low = row["disk_problem"]
        problem = await self._hub.disk_problem(row["folder"], row["expected_bytes"], was_low=bool(low))
        if bool(problem) != bool(low):
            await self._hub.store.run(lambda tx: sessions.set_disk_problem(tx, session_id, problem))
