"""What a person changes of a session's processing from the page: parameters, thresholds, whose particles are used."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.session.v1 import session_pb2
from frazil.model.errors import FrazilError
from frazil_web.records import exposure_summary, to_json
from frazil_web.requests import read_changes, read_request_id, read_text, read_texts, read_thresholds
from frazil_web.routes import read_body, scheduler_of

router = APIRouter(prefix="/api")

_CURATED_MAX = 1000
_OVERRIDES = {
    "": exposure_pb2.OVERRIDE_UNSPECIFIED,
    "accept": exposure_pb2.OVERRIDE_ACCEPT,
    "reject": exposure_pb2.OVERRIDE_REJECT,
}


@router.post("/sessions/{session}/parameters")
async def update_parameters(request: Request, session: str) -> Response:
    """Change some of a session's parameters, or with `dry_run` only say what would be redone."""
    body = await read_body(request)
    scheduler = scheduler_of(request)
    found = await scheduler.session(session)
    dry_run = body.get("dry_run", False) is True
    message = session_pb2.UpdateParametersRequest(
        request_id=read_request_id(body),
        session=found.session_id,
        parameters=read_changes(body, found.parameters),
        new_exposures_only=body.get("new_exposures_only", False) is True,
        redo_from=read_text(body, "redo_from", optional=True),
        dry_run=dry_run,
    )
    reply: Any = await scheduler.ask(scheduler.sessions.UpdateParameters, message)
    if not dry_run:
        structlog.get_logger().info("parameters_changed", session=session, request_id=message.request_id)
    return JSONResponse({"session": to_json(reply.session), "redone": dict(reply.redone), "sentence": reply.sentence})


@router.post("/sessions/{session}/thresholds")
async def update_thresholds(request: Request, session: str) -> Response:
    """Set all the intervals that exposures' attributes must lie in."""
    body = await read_body(request)
    scheduler = scheduler_of(request)
    message = session_pb2.UpdateThresholdsRequest(
        request_id=read_request_id(body), session=session, thresholds=read_thresholds(body)
    )
    changed: Any = await scheduler.ask(scheduler.sessions.UpdateThresholds, message)
    return JSONResponse({"session": to_json(changed)})


@router.post("/sessions/{session}/curate")
async def curate(request: Request, session: str) -> Response:
    """Reject or accept exposures by hand."""
    body = await read_body(request)
    word = read_text(body, "override", optional=True)
    if word not in _OVERRIDES:
        raise FrazilError("BODY_INVALID", "override is accept, reject, or empty.")
    scheduler = scheduler_of(request)
    message = exposure_pb2.CurateExposuresRequest(
        request_id=read_request_id(body),
        session=session,
        exposure_ids=read_texts(body, "exposure_ids", _CURATED_MAX),
        override=_OVERRIDES[word],
    )
    reply: Any = await scheduler.ask(scheduler.exposures.CurateExposures, message)
    return JSONResponse({"exposures": [exposure_summary(exposure) for exposure in reply.exposures]})


@router.post("/exposures/{exposure_id}/test")
async def test_exposure(request: Request, exposure_id: str) -> Response:
    """Process one exposure with some parameters changed, beside its session."""
    body = await read_body(request)
    scheduler = scheduler_of(request)
    exposure = await scheduler.exposure(exposure_id)
    session = await scheduler.session(exposure.session_id)
    message = exposure_pb2.TestExposureRequest(
        request_id=read_request_id(body), exposure_id=exposure_id, parameters=read_changes(body, session.parameters)
    )
    reply: Any = await scheduler.ask(scheduler.exposures.TestExposure, message)
    return JSONResponse({"job_id": reply.job_id, "folder": reply.folder})
