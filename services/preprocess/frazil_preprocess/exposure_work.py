"""The work on one exposure: from its movie, or from what an earlier attempt has left, to everything that it leaves on disk."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.movies import MovieInfo
from frazil.io.source import unchanged_source
from frazil.model.errors import InputError
from frazil.model.stages import STAGES, redone
from frazil.worker import WorkerContext
from frazil_preprocess.gain_check import GainCheck
from frazil_preprocess.intermediates import INTERMEDIATE_MISSING, Intermediates
from frazil_preprocess.pipeline import preprocess, reprocess
from frazil_preprocess.products import write_products
from frazil_preprocess.reading import open_exposure
from frazil_preprocess.settings import settings_of, stored_settings_of
from frazil_preprocess.stages import Stages


@dataclass(frozen=True, slots=True)
class Read:
    """A movie in memory, `(frame, y, x)` as stored, and what it is."""

    frames: npt.NDArray[Any]
    info: MovieInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done to an exposure: with which parameters, and from which stage on ("": all of them)."""

    exposure: Exposure
    parameters: SessionParameters
    first_stage: str
    stages: Stages

    @property
    def needs_movie(self) -> bool:
        """Tell whether it starts from the movie."""
        return self.first_stage in ("", STAGES[0])


def read_movie(order: Order) -> Read:
    """Read a movie that must be the one ingest registered, before and after."""
    file = order.exposure.file
    root = Path(order.parameters.movie_folder)
    source = unchanged_source(root / file.relative_path, file.size_bytes, file.modified_ns, root=root)
    with order.stages.stage("read"), source:
        movie = open_exposure(order.parameters, order.exposure, root / file.relative_path)
        return Read(movie.read(), movie.info)


def work(
    context: WorkerContext, xp: Any, order: Order, folder: Path, gain_check: GainCheck, movie: Future[Read] | None = None
) -> ExposureResult:
    """Do what an order says, write it into the folder of an attempt, and return the result; `movie` may be read already."""
    result = None if order.needs_movie else _from_intermediates(context, xp, order, folder)
    if result is None:
        read = read_movie(order) if movie is None else movie.result()
        result = _from_movie(xp, order, read, folder, gain_check)
    result.stage_seconds.update(order.stages.seconds)
    result.stage_end_times.update(order.stages.ended)
    return result


def _from_movie(xp: Any, order: Order, movie: Read, folder: Path, gain_check: GainCheck) -> ExposureResult:
    parameters, stages = order.parameters, order.stages
    settings = settings_of(parameters, order.exposure, movie.info)
    with stages.stage("check gain"):
        doubt = gain_check.sentence(movie.frames, settings.gain, parameters.gain_rotate, parameters.gain_flip or "none")
    found = preprocess(movie.frames, settings, stages, xp)
    with stages.stage("write"):
        result = write_products(found, settings, order.exposure, folder)
    result.warnings.extend([doubt] if doubt else [])
    return result


def _from_intermediates(context: WorkerContext, xp: Any, order: Order, folder: Path) -> ExposureResult | None:
    """Redo the later stages only; None where what they start from is gone or damaged."""
    before = Intermediates(context.session_folder, order.exposure.result)
    settings = stored_settings_of(order.parameters, order.exposure, picks=redone("pick", order.first_stage))
    try:
        found = reprocess(before, settings, order.first_stage, order.stages, xp)
        with order.stages.stage("write"):
            return write_products(found, settings, order.exposure, folder, before)
    except InputError as error:
        if error.reason != INTERMEDIATE_MISSING:
            raise
        context.log.warning("intermediates_missing", exposure=order.exposure.exposure_id, sentence=error.sentence)
        return None
