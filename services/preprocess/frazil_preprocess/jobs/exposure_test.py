"""Tries other parameters on one exposure: `tests/<exposure>/<job>/` holds what processing it with them would leave."""

from __future__ import annotations

from google.protobuf.json_format import MessageToJson, Parse, ParseError

from frazil import array
from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.atomic import write_text
from frazil.io.attempt import AttemptFolder
from frazil.model.errors import InputError
from frazil.model.stages import STAGES, first_stale
from frazil.rpc.convert import stage_digests
from frazil.worker import WorkerContext
from frazil_preprocess.exposure_work import Order, work
from frazil_preprocess.gain_check import GainCheck
from frazil_preprocess.stages import Stages

FOLDER, RESULT = "tests", "result.json"


def run(context: WorkerContext) -> None:
    """Do the test; one that was done before its worker died is left as it is."""
    if not context.exposure.exposure_id:
        raise InputError("EXPOSURE_GONE", "The exposure to test is no longer there.")
    xp = array.backend("cupy" if context.environment.device == "gpu" else "numpy")
    attempt = AttemptFolder(context.session_folder, context.exposure.exposure_id, context.job_id, among=FOLDER)
    if attempt.final_path.exists():
        return
    parameters = _parameters(context)
    order = Order(
        exposure=context.exposure,
        parameters=parameters,
        first_stage=_first_stage(context.exposure.result, parameters),
        stages=Stages(context.report),
    )
    with attempt:
        result = work(context, xp, order, attempt.path, GainCheck())
        result.folder = attempt.relative_path
        result.ClearField("stage_digests")
        write_text(attempt.path / RESULT, MessageToJson(result, preserving_proto_field_name=True))


def _parameters(context: WorkerContext) -> SessionParameters:
    """Return the parameters to try; the movie stays the session's own."""
    try:
        parameters = Parse(context.parameters.get("parameters", "{}"), SessionParameters())
    except ParseError as error:
        raise InputError("PARAMETERS_INVALID", f"The parameters to test cannot be read: {error}.") from error
    parameters.movie_folder = context.session.parameters.movie_folder
    return parameters


def _first_stage(result: ExposureResult, parameters: SessionParameters) -> str:
    """Return where the test starts: at the last stage in any case, so that there is something to compare."""
    made_with = [result.stage_digests[stage] for stage in STAGES if stage in result.stage_digests]
    return first_stale(made_with, stage_digests(parameters)) or STAGES[-1]
