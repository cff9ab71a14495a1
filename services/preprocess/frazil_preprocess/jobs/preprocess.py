"""The preprocessing worker: claims exposures, reads the next movie while this one computes, commits results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from frazil import array
from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.api.worker.v1.worker_pb2 import Claim
from frazil.io.attempt import AttemptFolder
from frazil.io.movies import MovieInfo
from frazil.io.source import SourceChangedError, unchanged_source
from frazil.model.errors import DiskFullError, ErrorKind, FailureClass, FrazilError, InputError
from frazil.model.stages import STAGES, redone
from frazil.rpc.failpoints import failpoint
from frazil.worker import AttemptSuperseded, LeaseLost, WorkerContext
from frazil_preprocess.gain_check import GainCheck
from frazil_preprocess.intermediates import INTERMEDIATE_MISSING, Intermediates
from frazil_preprocess.pipeline import preprocess, reprocess
from frazil_preprocess.products import write_products
from frazil_preprocess.reading import open_exposure
from frazil_preprocess.settings import settings_of, stored_settings_of
from frazil_preprocess.stages import Stages

PREFETCH = 2  # exposures claimed at a time: one computes, one is read
WAIT_SECONDS = 10.0


def run(context: WorkerContext) -> None:
    """Process exposures until the queue is drained or the worker is told to stop; the current exposure is finished."""
    xp = array.backend("cupy" if context.environment.device == "gpu" else "numpy")
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
        _work(context, xp, reader)


@dataclass(frozen=True, slots=True)
class _Read:
    """A movie in memory, `(frame, y, x)` as stored, and what it is."""

    frames: npt.NDArray[Any]
    info: MovieInfo


@dataclass(slots=True)
class _Reading:
    """A claimed exposure whose movie is being read, or waits to be; None where its micrograph is there already."""

    claim: Claim
    stages: Stages
    movie: Future[_Read] | None


def _work(context: WorkerContext, xp: Any, reader: ThreadPoolExecutor) -> None:
    queue: deque[_Reading] = deque()
    gain_check = GainCheck()
    while not context.stop_requested:
        reply = context.claim(PREFETCH - len(queue), 0.0 if queue else WAIT_SECONDS)
        for claim in reply.claims:
            stages = Stages(_announcer(context, claim))
            movie = reader.submit(_read, context, claim, stages) if _needs_movie(claim) else None
            queue.append(_Reading(claim, stages, movie))
        if queue:
            _process(context, xp, queue.popleft(), gain_check)
        elif reply.drained or reply.stop:
            return
    for reading in queue:
        if reading.movie is not None:
            reading.movie.cancel()
        context.give_back(reading.claim, "the worker was told to stop")


def _needs_movie(claim: Claim) -> bool:
    return claim.first_stage in ("", STAGES[0])


def _parameters(context: WorkerContext, claim: Claim) -> SessionParameters:
    """Return the parameters to process a claim with: the session's may have changed since this worker attached."""
    return claim.parameters if claim.HasField("parameters") else context.session.parameters


def _announcer(context: WorkerContext, claim: Claim) -> Callable[[str], None]:
    number, name = claim.exposure.number, Path(claim.exposure.file.relative_path).name
    return lambda stage: context.report(f"exposure {number} ({name}): {stage}")


def _read(context: WorkerContext, claim: Claim, stages: Stages) -> _Read:
    """Read a movie that must be the one ingest registered, before and after."""
    file = claim.exposure.file
    root = Path(context.session.parameters.movie_folder)
    with stages.stage("read"), unchanged_source(root / file.relative_path, file.size_bytes, file.modified_ns, root=root):
        movie = open_exposure(_parameters(context, claim), claim.exposure, root / file.relative_path)
        return _Read(movie.read(), movie.info)


def _process(context: WorkerContext, xp: Any, reading: _Reading, gain_check: GainCheck) -> None:
    """Take one exposure from movie to commit; what goes wrong ends the attempt with a sentence and its class."""
    claim = reading.claim
    attempt = AttemptFolder(context.session_folder, claim.exposure.exposure_id, claim.attempt_folder)
    try:
        with attempt:
            result = None if _needs_movie(claim) else _from_intermediates(context, xp, reading, attempt.path)
            if result is None:
                result = _from_movie(context, xp, reading, attempt.path, gain_check)
            result.folder = attempt.relative_path
            result.stage_seconds.update(reading.stages.seconds)
            result.stage_end_times.update(reading.stages.ended)
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


def _from_movie(context: WorkerContext, xp: Any, reading: _Reading, folder: Path, gain_check: GainCheck) -> ExposureResult:
    claim, stages = reading.claim, reading.stages
    movie = reading.movie.result() if reading.movie is not None else _read(context, claim, stages)
    parameters = _parameters(context, claim)
    settings = settings_of(parameters, claim.exposure, movie.info)
    with stages.stage("check gain"):
        doubt = gain_check.sentence(movie.frames, settings.gain, parameters.gain_rotate, parameters.gain_flip or "none")
    found = preprocess(movie.frames, settings, stages, xp)
    with stages.stage("write"):
        result = write_products(found, settings, claim.exposure, folder)
    result.warnings.extend([doubt] if doubt else [])
    return result


def _from_intermediates(context: WorkerContext, xp: Any, reading: _Reading, folder: Path) -> ExposureResult | None:
    """Redo the later stages only; None where what they start from is gone or damaged."""
    claim, stages = reading.claim, reading.stages
    picks = redone("pick", claim.first_stage)
    settings = stored_settings_of(_parameters(context, claim), claim.exposure, picks=picks)
    before = Intermediates(context.session_folder, claim.exposure.result)
    try:
        found = reprocess(before, settings, claim.first_stage, stages, xp)
        with stages.stage("write"):
            return write_products(found, settings, claim.exposure, folder, before)
    except InputError as error:
        if error.reason != INTERMEDIATE_MISSING:
            raise
        context.log.warning("intermediates_missing", exposure=claim.exposure.exposure_id, sentence=error.sentence)
        return None


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
