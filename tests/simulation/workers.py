"""Workers as generators: they do what `frazil.worker` and the job runners do, and yield what they wait for.

A worker yields `Ask` (a call, repeated with the same request id until it is answered) or `Rest` (work that takes time). It
sees only files, checkpoints and replies: whatever it knows otherwise dies with it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil_scheduler.domain import workers
from frazil_scheduler.ledger.transaction import Transaction
from simulation.disk import Disk
from simulation.engine import Engine
from simulation.machine import Process

EXIT_OK, EXIT_FAILED, EXIT_LEASE_LOST = 0, 3, 4
CLASS = worker_pb2.FailExposureRequest.FailureClass


@dataclass(frozen=True, slots=True)
class Rest:
    """Work that takes so long; a stop does not interrupt it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ask:
    """A call: `body` is what the scheduler does.

    One that waits is held back while it is `empty`: until the session has news, or for the seconds after which `retry` says
    it is worth asking again.
    """

    name: str
    body: Callable[[Transaction], Any]
    reads: bool = False
    empty: Callable[[Any], bool] | None = None
    retry: Callable[[], float | None] = lambda: None


class Superseded(Exception):
    """The attempt does not count any more, the lease does."""


class LeaseLost(Exception):
    """Nothing this worker does can count."""


Steps = Generator[Rest | Ask, Any, int]


@dataclass
class Shell:
    """What every runner has: its token and fresh request ids."""

    engine: Engine
    disk: Disk
    process: Process
    accepts: Callable[[Transaction, Process, str, int], None]  # looks at a commit that is about to count
    requests: int = 0
    session_id: str = ""

    @property
    def token(self) -> worker_pb2.LeaseToken:
        return self.process.token

    def request_id(self) -> str:
        self.requests += 1
        return f"{self.process.lease_id}-{self.process.pid}-{self.requests}"

    def run(self) -> Steps:
        """Attach, run the job, and return the exit code."""
        try:
            request = worker_pb2.AttachRequest(lease=self.token)
            attached = yield Ask("attach", lambda tx: workers.attach(tx, request), reads=True)
            self.session_id = attached.session.session_id
            if attached.job_type == "preprocess":
                yield from self._preprocess(attached)
            else:
                yield from self._stream(attached)
        except LeaseLost:
            return EXIT_LEASE_LOST
        return EXIT_OK

    # -------------------------------------------------------------------------------------------------- preprocessing
    def _preprocess(self, attached: worker_pb2.AttachResponse) -> Generator[Rest | Ask, Any, None]:
        queue: list[worker_pb2.Claim] = []
        while not self.process.stop_requested:
            reply = yield self._claim(2 - len(queue), wait=not queue)
            queue.extend(reply.claims)
            if queue:
                yield from self._expose(attached, queue.pop(0))
            elif reply.drained:
                yield from self._finish()
                return
            elif reply.stop:
                return
        for claim in queue:
            yield from self._fail(claim, CLASS.FAILURE_CLASS_RETURNED)

    def _claim(self, count: int, *, wait: bool) -> Ask:
        request = worker_pb2.ClaimExposuresRequest(request_id=self.request_id(), lease=self.token, max_count=count)

        later: list[float | None] = [None]

        def body(tx: Transaction) -> worker_pb2.ClaimExposuresResponse:
            reply, later[0] = workers.claim(tx, request)
            return reply

        def empty(reply: worker_pb2.ClaimExposuresResponse) -> bool:
            return not (reply.claims or reply.drained or reply.stop)

        return Ask("claim", body, empty=empty if wait else None, retry=lambda: later[0])

    def _expose(self, attached: worker_pb2.AttachResponse, claim: worker_pb2.Claim) -> Generator[Rest | Ask, Any, None]:
        """Read a movie that must be the registered one before and after, work, and commit."""
        file = claim.exposure.file
        session = attached.session
        yield Rest(self.engine.between(1, 5))
        before = self.disk.look(session.name, file.relative_path)
        yield Rest(self.engine.between(5, 40))
        movie = self.disk.look(session.name, file.relative_path)
        registered = (file.size_bytes, file.modified_ns)
        if movie is None or before != movie or (movie.size_bytes, movie.modified_ns) != registered:
            yield from self._fail(claim, CLASS.FAILURE_CLASS_INFRA)
        elif movie.nature == "segfault":
            self.process.machine.exit(self.process, -11)
            yield Rest(0.0)
        elif movie.nature == "large":
            yield from self._fail(claim, CLASS.FAILURE_CLASS_RESOURCE)
        elif movie.nature == "unreadable":
            yield from self._fail(claim, CLASS.FAILURE_CLASS_INPUT)
        elif self.disk.is_full(session.name):
            yield from self._fail(claim, CLASS.FAILURE_CLASS_INFRA)
        else:
            yield from self._commit(claim, movie.particles)

    def _commit(self, claim: worker_pb2.Claim, particles: int) -> Generator[Rest | Ask, Any, None]:
        request = worker_pb2.CommitExposureRequest(
            request_id=self.request_id(), lease=self.token, attempt_id=claim.attempt_id, manifest_sha256=claim.attempt_id
        )
        request.result.particle_count = particles
        request.result.particles = "particles.mrcs"
        exposure_id = claim.exposure.exposure_id

        def body(tx: Transaction) -> worker_pb2.CommitExposureResponse:
            new = tx.known_reply(request, worker_pb2.CommitExposureResponse) is None
            reply = workers.commit(tx, request)
            if new:
                self.accepts(tx, self.process, exposure_id, particles)
            return reply

        try:
            yield Ask("commit", body)
        except Superseded:
            return

    def _fail(self, claim: worker_pb2.Claim, failure: Any) -> Generator[Rest | Ask, Any, None]:
        request = worker_pb2.FailExposureRequest(
            request_id=self.request_id(),
            lease=self.token,
            attempt_id=claim.attempt_id,
            failure_class=failure,
            reason="It does not work.",
        )
        try:
            yield Ask("fail", lambda tx: workers.fail(tx, request))
        except Superseded:
            return

    def _finish(self) -> Generator[Rest | Ask, Any, None]:
        request = worker_pb2.FinishJobRequest(request_id=self.request_id(), lease=self.token)
        yield Ask("finish", lambda tx: workers.finish(tx, request))

    # ------------------------------------------------------------------------------------------------------ streaming
    def _stream(self, attached: worker_pb2.AttachResponse) -> Generator[Rest | Ask, Any, None]:
        """Take in blocks from where the newest readable checkpoint is, and leave checkpoints."""
        readable = [saved for saved in attached.checkpoints if saved.path in self.disk.checkpoints]
        cursor = readable[0].cursor_sequence if readable else 0
        number = max((saved.number for saved in attached.checkpoints), default=0)
        particles = dict(self.disk.checkpoints[readable[0].path]) if readable else {}
        while True:
            reply = yield self._read(cursor)
            for block in reply.blocks:
                assert block.sequence == cursor + 1, "particle blocks come in order and without a gap"
                cursor = block.sequence
                _take(particles, block)
            if reply.blocks:
                yield Rest(self.engine.between(5, 60))
                number += 1
                path = f"checkpoints/{attached.job_id}/{self.token.epoch}-{number}"
                self.disk.checkpoints[path] = dict(particles)
                yield from self._save(number, cursor, path)
            elif reply.stop or self.process.stop_requested:
                return
            elif reply.end_of_input:
                self.disk.finished[attached.job_id] = dict(particles)
                yield from self._finish()
                return

    def _read(self, cursor: int) -> Ask:
        request = worker_pb2.ReadParticleBlocksRequest(lease=self.token, after_sequence=cursor, max_count=100)

        def empty(reply: worker_pb2.ReadParticleBlocksResponse) -> bool:
            return not (reply.blocks or reply.end_of_input or reply.stop)

        return Ask("read", lambda tx: workers.read_blocks(tx, request), reads=True, empty=empty)

    def _save(self, number: int, cursor: int, path: str) -> Generator[Rest | Ask, Any, None]:
        request = worker_pb2.CommitCheckpointRequest(request_id=self.request_id(), lease=self.token)
        request.checkpoint.number, request.checkpoint.cursor_sequence, request.checkpoint.path = number, cursor, path
        reply = yield Ask("checkpoint", lambda tx: workers.commit_checkpoint(tx, request))
        for expired in reply.expired_paths:
            self.disk.checkpoints.pop(expired, None)


def _take(particles: dict[str, int], block: Any) -> None:
    """Apply one block, as streaming reconstruction does."""
    if block.kind == reconstruction_pb2.ParticleBlock.KIND_RETRACT:
        assert particles.pop(block.exposure_id) == block.particle_count, "what is retracted had been added"
    else:
        assert block.exposure_id not in particles, "an exposure's particles are added once"
        particles[block.exposure_id] = block.particle_count
