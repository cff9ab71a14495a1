"""The worker shell: attaches to a lease, beats, runs the job, reports, stops when told.

A worker program is three lines:

    def main() -> None:
        sys.exit(run_worker("frazil-preprocess", runners_in("frazil_preprocess.jobs")))

Its runner gets a `WorkerContext` and returns when the work is done or `context.stop_requested` is true. Exit codes are the
`EXIT_` constants. A worker holds no truth: whatever is not committed is done again by another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import os
import pkgutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages, Templates, Volume
from frazil.api.worker.v1 import worker_pb2 as wire
from frazil.api.worker.v1.worker_pb2_grpc import WorkerServiceStub
from frazil.model.errors import ErrorKind, FailureClass, FrazilError, InputError
from frazil.rpc.client import call, call_until_answered, new_request_id, open_channel
from frazil.rpc.config import EXIT_OUT_OF_MEMORY, WorkerEnvironment
from frazil.rpc.convert import failure_class_to_message
from frazil.rpc.failpoints import failpoint
from frazil.rpc.logging import configure_logging

EXIT_OK = 0  # finished, or stopped as asked
EXIT_CRASHED = 1  # an unexpected exception; its traceback is in the log, once
EXIT_USAGE = 2  # not started by an agent, or the slot's lock is not ours
EXIT_FAILED = 3  # a foreseen error; one sentence is in the log
EXIT_LEASE_LOST = 4  # the lease is not current: somebody else has the job

HEARTBEAT_SECONDS = 5.0
_READ_REPLY_SECONDS = 10.0  # on top of what a waiting call waits for
_COMMIT_SECONDS = 30.0


class LeaseLost(Exception):
    """The lease is not current any more; nothing this worker does can count."""


class AttemptSuperseded(Exception):
    """The lease is current but this attempt is not: the exposure changed. Discard the attempt's folder and go on."""


class WorkerContext:
    """What a runner knows and can do. All methods may be called from several threads.

    Calls are repeated with the same request id while the scheduler does not answer; they raise LeaseLost when the lease is
    not current, and FrazilError for everything else the scheduler refuses.
    """

    def __init__(
        self,
        stub: Any,
        environment: WorkerEnvironment,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stub = stub
        self._lease = wire.LeaseToken(lease_id=environment.lease_id, epoch=environment.epoch)
        self._sleep = sleep
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._progress = ""
        self._finished = False
        self.environment = environment
        self.log = structlog.get_logger()
        reply: wire.AttachResponse = self._ask(stub.Attach, wire.AttachRequest(lease=self._lease), give_up=self._stop.is_set)
        self.job_id = reply.job_id
        self.job_type = reply.job_type
        self.session = reply.session
        self.session_folder = Path(reply.session.folder)
        self.checkpoints = tuple(reply.checkpoints)
        self.parameters: Mapping[str, str] = dict(reply.parameters)  # of an auxiliary job
        self.exposure = reply.exposure  # that an auxiliary job is about
        self.start_volume = reply.start_volume  # absolute, or relative to the session's folder; empty: there is none
        self.newest_volume = reply.newest_volume  # relative to the session's folder; empty: there is none

    # ------------------------------------------------------------------------------------------------------- stopping
    @property
    def stop_requested(self) -> bool:
        """True once the worker shall finish the current exposure, or write a checkpoint, and return."""
        return self._stop.is_set()

    def request_stop(self) -> None:
        """Ask the runner to stop; what SIGTERM and the scheduler's replies do."""
        self._stop.set()

    def wait_for_stop(self, seconds: float) -> bool:
        """Wait at most so long; return at once, with True, when the worker is to stop."""
        return self._stop.wait(seconds)

    def report(self, sentence: str) -> None:
        """Set the sentence of progress that the next heartbeat carries."""
        self._progress = sentence

    # ------------------------------------------------------------------------------------------------------ exposures
    def claim(self, max_count: int = 1, wait_seconds: float = 10.0) -> wire.ClaimExposuresResponse:
        """Take exposures to process, waiting for the first; the reply also says `drained` and `stop`.

        Once a stop is requested the reply is empty with `stop` set.
        """
        request = wire.ClaimExposuresRequest(
            request_id=new_request_id(), lease=self._lease, max_count=max_count, wait_seconds=wait_seconds
        )
        stopped = wire.ClaimExposuresResponse(stop=True)
        reply: wire.ClaimExposuresResponse = self._read(self._stub.ClaimExposures, request, wait_seconds, stopped)
        return reply

    def commit(self, claim: wire.Claim, result: ExposureResult, manifest_sha256: str) -> int:
        """Make an attempt's result count, exactly once; returns the sequence of its particle block (0: no particles).

        Raises AttemptSuperseded when the exposure has moved on: delete the attempt's folder.
        """
        request = wire.CommitExposureRequest(
            request_id=new_request_id(),
            lease=self._lease,
            attempt_id=claim.attempt_id,
            result=result,
            manifest_sha256=manifest_sha256,
        )
        reply = self._ask(self._stub.CommitExposure, request)
        return int(reply.particle_block_sequence)

    def fail(self, claim: wire.Claim, failure_class: FailureClass, reason: str) -> None:
        """End an attempt without a result; `reason` is one sentence for people."""
        self._end_attempt(claim, failure_class_to_message(failure_class), reason)

    def give_back(self, claim: wire.Claim, reason: str = "") -> None:
        """Give a claimed exposure back untouched; the attempt does not count."""
        self._end_attempt(claim, wire.FailExposureRequest.FAILURE_CLASS_RETURNED, reason)

    def _end_attempt(self, claim: wire.Claim, failure_class: Any, reason: str) -> None:
        request = wire.FailExposureRequest(
            request_id=new_request_id(),
            lease=self._lease,
            attempt_id=claim.attempt_id,
            failure_class=failure_class,
            reason=reason,
        )
        with contextlib.suppress(AttemptSuperseded):  # it has ended already
            self._ask(self._stub.FailExposure, request)

    # ------------------------------------------------------------------------------------------------------ streaming
    def read_blocks(
        self,
        after_sequence: int,
        max_count: int = 100,
        wait_seconds: float = 10.0,
        known_classes: tuple[int, int] | None = None,
    ) -> wire.ReadParticleBlocksResponse:
        """Read particle blocks after a cursor, waiting for the first; the reply also says `end_of_input` and `stop`.

        A worker that takes particles of selected classes gives the revisions of classification and selection that it knows; the
        reply then has `class_averages` when there are others, and the input ends after the last of them.
        """
        request = wire.ReadParticleBlocksRequest(
            lease=self._lease, after_sequence=after_sequence, max_count=max_count, wait_seconds=wait_seconds
        )
        if known_classes is not None:
            request.class_revision, request.selection_revision = known_classes
        stopped = wire.ReadParticleBlocksResponse(stop=True)
        reply: wire.ReadParticleBlocksResponse = self._read(self._stub.ReadParticleBlocks, request, wait_seconds, stopped)
        return reply

    def commit_checkpoint(self, number: int, cursor_sequence: int, path: str, sha256: str) -> tuple[str, ...]:
        """Make a checkpoint the one to resume from; returns the files (relative to the session's folder) to delete."""
        checkpoint = wire.Checkpoint(number=number, cursor_sequence=cursor_sequence, path=path, sha256=sha256)
        request = wire.CommitCheckpointRequest(request_id=new_request_id(), lease=self._lease, checkpoint=checkpoint)
        reply = self._ask(self._stub.CommitCheckpoint, request)
        return tuple(reply.expired_paths)

    def publish_class_averages(self, averages: ClassAverages) -> wire.PublishClassAveragesResponse:
        """Publish a classification; the reply has its revision and the files of older ones to delete."""
        request = wire.PublishClassAveragesRequest(request_id=new_request_id(), lease=self._lease, class_averages=averages)
        reply: wire.PublishClassAveragesResponse = self._ask(self._stub.PublishClassAverages, request)
        return reply

    def publish_volume(self, volume: Volume) -> wire.PublishVolumeResponse:
        """Publish a volume; the reply has its revision and the files of older ones to delete."""
        request = wire.PublishVolumeRequest(request_id=new_request_id(), lease=self._lease, volume=volume)
        reply: wire.PublishVolumeResponse = self._ask(self._stub.PublishVolume, request)
        return reply

    def publish_templates(self, templates: Templates) -> wire.PublishTemplatesResponse:
        """Publish templates for the picker; the reply has the files of an earlier publication of this job to delete."""
        request = wire.PublishTemplatesRequest(request_id=new_request_id(), lease=self._lease, templates=templates)
        reply: wire.PublishTemplatesResponse = self._ask(self._stub.PublishTemplates, request)
        return reply

    def notify(self, sentence: str, level: str = "warning") -> None:
        """Tell people a sentence that they should know though the job goes on: an event of the session."""
        request = wire.NotifyRequest(request_id=new_request_id(), lease=self._lease, level=level, sentence=sentence)
        self._ask(self._stub.Notify, request)

    def delete_expired(self, relative_paths: tuple[str, ...]) -> None:
        """Delete files that a reply named as no longer needed; those outside the session's folder are left alone."""
        root = self.session_folder.resolve()
        for relative_path in relative_paths:
            path = (root / relative_path).resolve()
            if path.is_relative_to(root):
                path.unlink(missing_ok=True)

    def finish(self, failure: str = "") -> None:
        """End the job: it has finished, or with a sentence: it cannot go on. A second call does nothing."""
        if self._finished:
            return
        request = wire.FinishJobRequest(request_id=new_request_id(), lease=self._lease, failure=failure)
        self._ask(self._stub.FinishJob, request)
        self._finished = True

    # ----------------------------------------------------------------------------------------------------- heartbeats
    def heartbeat(self) -> None:
        """Send one sign of life and take the answer; an unreachable scheduler is waited for in silence."""
        try:
            request = wire.HeartbeatRequest(lease=self._lease, progress=self._progress)
            failpoint("worker.Heartbeat.before")
            reply = call(self._stub.Heartbeat, request)
            failpoint("worker.Heartbeat.after")
            if reply.stop:
                self._stop.set()
        except FrazilError as error:
            if error.kind in (ErrorKind.CONFLICT, ErrorKind.NOT_FOUND):
                self._lost.set()
                self._stop.set()
            elif error.kind is not ErrorKind.UNAVAILABLE:
                self.log.warning("heartbeat_refused", reason=error.reason, sentence=error.sentence)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Send heartbeats from a thread while the block runs."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                self.heartbeat()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # ----------------------------------------------------------------------------------------------------------- calls
    def _read(self, method: Any, request: Any, wait_seconds: float, stopped: Any) -> Any:
        """Make a waiting read; a stop while the scheduler is away ends it with the reply `stopped`."""
        if self._stop.is_set() and not self._lost.is_set():
            return stopped
        try:
            reply = self._ask(
                method,
                request,
                deadline_seconds=wait_seconds + _READ_REPLY_SECONDS,
                give_up=self._stop.is_set,
                sleep=self._wait,
            )
        except FrazilError as error:
            if error.kind is ErrorKind.UNAVAILABLE and self._stop.is_set():
                return stopped
            raise
        if reply.stop:
            self._stop.set()
        return reply

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _ask(
        self,
        method: Any,
        request: Any,
        *,
        deadline_seconds: float = _COMMIT_SECONDS,
        give_up: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] | None = None,
    ) -> Any:
        if self._lost.is_set():
            raise LeaseLost
        name = f"worker.{type(request).__name__.removesuffix('Request')}"
        failpoint(f"{name}.before")
        try:
            reply = call_until_answered(
                method, request, deadline_seconds=deadline_seconds, give_up=give_up, sleep=sleep or self._sleep
            )
            failpoint(f"{name}.after")
            return reply
        except FrazilError as error:
            if error.kind is not ErrorKind.CONFLICT:
                raise
            if error.reason == "ATTEMPT_SUPERSEDED":
                raise AttemptSuperseded(error.sentence) from error
            self._lost.set()
            self._stop.set()
            raise LeaseLost(error.sentence) from error


Runner: TypeAlias = Callable[[WorkerContext], None]


class runners_in(Mapping[str, Runner]):
    """The runners of a package by job type: module `preprocess` with a function `run`; imported when first asked for."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getitem__(self, job_type: str) -> Runner:
        if job_type not in set(self):
            raise KeyError(job_type)
        runner: Runner = importlib.import_module(f"{self._package}.{job_type}").run
        return runner

    def __iter__(self) -> Iterator[str]:
        path = importlib.import_module(self._package).__path__
        return (module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def run_worker(service: str, runners: Mapping[str, Runner], *, environ: Mapping[str, str] | None = None) -> int:
    """Run one job under the lease named in the environment and return the exit code.

    A runner that returns without being told to stop has finished its job. An InputError from a runner ends the job for
    good; any other FrazilError ends this worker only, and the scheduler decides whether the job is tried again.
    """
    configure_logging(service)
    log = structlog.get_logger()
    try:
        environment = WorkerEnvironment.from_environ(os.environ if environ is None else environ)
        _check_lock(environment)
    except FrazilError as error:
        log.error("worker_not_started", reason=error.reason, sentence=error.sentence)
        return EXIT_USAGE
    structlog.contextvars.bind_contextvars(lease_id=environment.lease_id, epoch=environment.epoch)
    try:
        with open_channel(environment.scheduler_address) as channel:
            return _attached(WorkerServiceStub(channel), environment, runners)
    except LeaseLost as lost:
        log.info("lease_lost", sentence=str(lost))
        return EXIT_LEASE_LOST
    except FrazilError as error:
        log.error("worker_failed", reason=error.reason, sentence=error.sentence)
        return EXIT_LEASE_LOST if error.kind is ErrorKind.NOT_FOUND else EXIT_FAILED
    except MemoryError as error:
        log.error("worker_out_of_memory", memory_mib=environment.memory_mib, exc_info=error)
        return EXIT_OUT_OF_MEMORY
    except Exception as error:
        log.error("worker_crashed", exc_info=error)
        return EXIT_CRASHED


def _attached(stub: Any, environment: WorkerEnvironment, runners: Mapping[str, Runner]) -> int:
    """Attach, run, finish."""
    context = WorkerContext(stub, environment)
    structlog.contextvars.bind_contextvars(job_id=context.job_id, session_id=context.session.session_id)
    with _stopping_on_signals(context), context.beating():
        context.log.info("worker_attached", job_type=context.job_type, session=context.session.name)
        try:
            runner = _runner_of(context.job_type, runners)
            if environment.device == "gpu" and environment.memory_mib:
                importlib.import_module("frazil.array").cap_memory(environment.memory_mib)
            runner(context)
        except InputError as error:
            context.finish(error.sentence)
            raise
        if not context.stop_requested:
            context.finish()
    context.log.info("worker_ended", stopped=context.stop_requested)
    return EXIT_OK


def _runner_of(job_type: str, runners: Mapping[str, Runner]) -> Runner:
    try:
        return runners[job_type]
    except KeyError:
        known = ", ".join(sorted(runners))
        raise InputError("JOB_TYPE_NOT_HERE", f"This program cannot run jobs of type {job_type!r}; it runs {known}.") from None


def _check_lock(environment: WorkerEnvironment) -> None:
    """Make sure that the slot's kernel lock came with us: it is what proves to the agent that we live."""
    if environment.lock_fd is None:
        return
    try:
        fcntl.flock(environment.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(environment.lock_fd, False)
    except OSError as error:
        raise FrazilError(
            "SLOT_NOT_OURS",
            f"The lock of slot {environment.slot_key} is not held by this worker ({error.strerror}).",
            kind=ErrorKind.CONFLICT,
        ) from error


@contextlib.contextmanager
def _stopping_on_signals(context: WorkerContext) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into a requested stop, where this is the main thread (tests run workers in others)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: context.request_stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
