"""The preprocessing worker: claims exposures, reads the next movie while this one computes, commits results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frazil import array
from frazil.api.worker.v1.worker_pb2 import Claim
from frazil.io.attempt import AttemptFolder
from frazil.io.source import SourceChangedError
from frazil.model.errors import DiskFullError, ErrorKind, FailureClass, FrazilError, InputError
from frazil.rpc.failpoints import failpoint
from frazil.worker import AttemptSuperseded, LeaseLost, WorkerContext
from frazil_preprocess.exposure_work import Order, Read, read_movie, work
from frazil_preprocess.gain_check import GainCheck
from frazil_preprocess.stages import Stages

PREFETCH = 2  # exposures claimed at a time: one computes, one is read
WAIT_SECONDS = 10.0


def run(context: WorkerContext) -> None:
    """Process exposures until the queue is drained or the worker is told to stop; the current exposure is finished."""
    xp = array.backend("cupy" if context.environment.device == "gpu" else "numpy")
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
        _work(context, xp, reader)


@dataclass(slots=True)
class _Reading:
    """A claimed exposure whose movie is being read, or waits to be; None where its micrograph is there already."""

    claim: Claim
    order: Order
    movie: Future[Read] | None


def _work(context: WorkerContext, xp: Any, reader: ThreadPoolExecutor) -> None:
    queue: deque[_Reading] = deque()
    gain_check = GainCheck()
    while not context.stop_requested:
        reply = context.claim(PREFETCH - len(queue), 0.0 if queue else WAIT_SECONDS)
        for claim in reply.claims:
            order = _order(context, claim)
            queue.append(_Reading(claim, order, reader.submit(read_movie, order) if order.needs_movie else None))
        if queue:
            _process(context, xp, queue.popleft(), gain_check)
        elif reply.drained or reply.stop:
            return
    for reading in queue:
        if reading.movie is not None:
            reading.movie.cancel()
        context.give_back(reading.claim, "the worker was told to stop")


def _order(context: WorkerContext, claim: Claim) -> Order:
    """Return what a claim asks for: the session's parameters may have changed since this worker attached."""
    return Order(
        exposure=claim.exposure,
        parameters=claim.parameters if claim.HasField("parameters") else context.session.parameters,
        first_stage=claim.first_stage,
        stages=Stages(_announcer(context, claim)),
    )


def _announcer(context: WorkerContext, claim: Claim) -> Callable[[str], None]:
    number, name = claim.exposure.number, Path(claim.exposure.file.relative_path).name
    return lambda stage: context.report(f"exposure {number} ({name}): {stage}")


def _process(context: WorkerContext, xp: Any, reading: _Reading, gain_check: GainCheck) -> None:
    """Take one exposure from movie to commit; what goes wrong ends the attempt with a sentence and its class."""
    claim = reading.claim
    attempt = AttemptFolder(context.session_folder, claim.exposure.exposure_id, claim.attempt_folder)
    try:
        with attempt:
            result = work(context, xp, reading.order, attempt.path, gain_check, reading.movie)
            result.folder = attempt.relative_path
        failpoint("preprocess.attempt.renamed")
        context.commit(claim, result, attempt.manifest_sha256)
    except AttemptSuperseded:
        attempt.discard()
    except LeaseLost:
        raise
    except Exception as error:
        failure_class, sentence = classify(error)
        foreseen = isinstance(error, FrazilError)
        context.log.warning(
            "exposure_failed",
            exposure=claim.exposure.exposure_id,
            failure=failure_class.value,
            sentence=sentence,
            exc_info=None if foreseen else error,
        )
        context.fail(claim, failure_class, sentence)


def classify(error: Exception) -> tuple[FailureClass, str]:
    """Return whose fault a failed attempt was, and one sentence for people."""
    if isinstance(error, InputError):
        return FailureClass.INPUT, error.sentence
    if isinstance(error, (DiskFullError, SourceChangedError)):
        return FailureClass.INFRA, error.sentence
    if isinstance(error, FrazilError):
        infra = error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.EXHAUSTED)
        return (FailureClass.INFRA if infra else FailureClass.CRASH), error.sentence
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return FailureClass.RESOURCE, "The worker ran out of memory on this movie: use a slot with more memory."
    if isinstance(error, OSError):
        return FailureClass.INFRA, f"Reading or writing failed: {error.strerror or error}."
    return FailureClass.CRASH, f"Processing broke: {type(error).__name__}: {error}. The worker's log has the details."
