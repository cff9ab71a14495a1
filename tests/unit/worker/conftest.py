"""A scheduler's worker service in memory, served over a real port, with faults to order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from frazil.api.session.v1.session_pb2 import Session
from frazil.api.worker.v1 import worker_pb2 as wire
from frazil.api.worker.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.errors import to_status

UNAVAILABLE = FrazilError("AWAY", "The scheduler is away.", kind=ErrorKind.UNAVAILABLE)
STALE = FrazilError("STALE_EPOCH", "Another worker has the job.", kind=ErrorKind.CONFLICT)
SUPERSEDED = FrazilError("ATTEMPT_SUPERSEDED", "The movie has changed.", kind=ErrorKind.CONFLICT)


class Ledger(WorkerServiceServicer):
    """Applies a mutation once per request id; `faults` by method are raised in turn before (or after) the effect."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.job_type = "toy"
        self.epoch = 7
        self.faults: dict[str, deque[FrazilError | Callable[[], None]]] = {}
        self.lose_reply = False  # the effect happens, the reply does not arrive
        self.calls: list[tuple[str, Any]] = []
        self.replies: dict[str, Any] = {}
        self.effects: list[tuple[str, Any]] = []
        self.progress: list[str] = []
        self.stop_on_heartbeat = False
        self.claims: deque[wire.Claim] = deque()
        self.checkpoints: list[wire.Checkpoint] = []

    def fault(self, method: str, *faults: FrazilError) -> None:
        self.faults.setdefault(method, deque()).extend(faults)

    def of(self, method: str) -> list[Any]:
        return [request for name, request in self.effects if name == method]

    def _serve(self, method: str, request: Any, context: Any, reply: Callable[[], Any]) -> Any:
        self.calls.append((method, request))
        if request.lease != wire.LeaseToken(lease_id="lease", epoch=self.epoch):
            self._abort(context, STALE)
        if not self.lose_reply:
            self._fault(method, context)
        request_id = getattr(request, "request_id", "")
        if not request_id or request_id not in self.replies:
            self.replies[request_id] = reply()
            self.effects.append((method, request))
        if self.lose_reply:
            self._fault(method, context)
        return self.replies[request_id]

    def _fault(self, method: str, context: Any) -> None:
        if self.faults.get(method):
            self._abort(context, self.faults[method].popleft())

    @staticmethod
    def _abort(context: Any, error: FrazilError) -> None:
        context.abort_with_status(rpc_status.to_status(to_status(error)))

    def Attach(self, request: Any, context: Any) -> Any:
        session = Session(session_id="s1", name="grid 7", folder=self.folder)
        reply = wire.AttachResponse(job_id="job", job_type=self.job_type, session=session, checkpoints=self.checkpoints)
        return self._serve("Attach", request, context, lambda: reply)

    def Heartbeat(self, request: Any, context: Any) -> Any:
        self.progress.append(request.progress)
        reply = wire.HeartbeatResponse(stop=self.stop_on_heartbeat)
        return self._serve("Heartbeat", request, context, lambda: reply)

    def ClaimExposures(self, request: Any, context: Any) -> Any:
        def take() -> Any:
            count = min(request.max_count, len(self.claims))
            return wire.ClaimExposuresResponse(claims=[self.claims.popleft() for _ in range(count)], drained=count == 0)

        return self._serve("ClaimExposures", request, context, take)

    def CommitExposure(self, request: Any, context: Any) -> Any:
        reply = wire.CommitExposureResponse(particle_block_sequence=41)
        return self._serve("CommitExposure", request, context, lambda: reply)

    def FailExposure(self, request: Any, context: Any) -> Any:
        return self._serve("FailExposure", request, context, wire.FailExposureResponse)

    def ReadParticleBlocks(self, request: Any, context: Any) -> Any:
        reply = wire.ReadParticleBlocksResponse(end_of_input=True)
        return self._serve("ReadParticleBlocks", request, context, lambda: reply)

    def CommitCheckpoint(self, request: Any, context: Any) -> Any:
        reply = wire.CommitCheckpointResponse(expired_paths=["checkpoints/1.ck", "../outside"])
        return self._serve("CommitCheckpoint", request, context, lambda: reply)

    def PublishClassAverages(self, request: Any, context: Any) -> Any:
        reply = wire.PublishClassAveragesResponse(revision=3)
        return self._serve("PublishClassAverages", request, context, lambda: reply)

    def FinishJob(self, request: Any, context: Any) -> Any:
        return self._serve("FinishJob", request, context, wire.FinishJobResponse)


class Stage:
    """The ledger and the port where it is served."""

    def __init__(self, ledger: Ledger, port: int) -> None:
        self.ledger = ledger
        self.environ = {"FRAZIL_SCHEDULER_ADDRESS": f"127.0.0.1:{port}", "FRAZIL_LEASE_ID": "lease", "FRAZIL_EPOCH": "7"}


@pytest.fixture
def stage(tmp_path: Any) -> Iterator[Stage]:
    ledger = Ledger(str(tmp_path / "session"))
    (tmp_path / "session").mkdir()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        add_WorkerServiceServicer_to_server(ledger, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Stage(ledger, port)
        server.stop(0).wait()
