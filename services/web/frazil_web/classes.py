"""What a person does with 2D classes from the page: select and exclude them, begin the classification anew, clear it."""

from __future__ import annotations

import math
from typing import Any

import structlog
from fastapi import APIRouter, Request
from google.protobuf.json_format import ParseDict, ParseError
from starlette.responses import JSONResponse, Response

from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassThresholds, ResetClassesRequest, SelectClassesRequest
from frazil.model.errors import FrazilError
from frazil_web.records import to_json
from frazil_web.requests import read_request_id
from frazil_web.routes import read_body, scheduler_of

router = APIRouter(prefix="/api")

_CLASSES_MAX = 1000


@router.post("/sessions/{session}/classes/select")
async def select_classes(request: Request, session: str) -> Response:
    """Select, exclude or release classes by number, and set all thresholds where the body has them."""
    body = await read_body(request)
    scheduler = scheduler_of(request)
    message = SelectClassesRequest(
        request_id=read_request_id(body),
        session=session,
        **{name: _read_numbers(body, name) for name in ("select", "exclude", "release")},
        release_all=body.get("release_all", False) is True,
        thresholds=_read_thresholds(body),
        all_particles=body.get("all_particles", False) is True,
    )
    reply: Any = await scheduler.ask(scheduler.reconstruction.SelectClasses, message)
    structlog.get_logger().info("classes_selected", session=session, request_id=message.request_id)
    return JSONResponse({"selection": to_json(reply.selection)})


@router.post("/sessions/{session}/classes/reset")
async def reset_classes(request: Request, session: str) -> Response:
    """Begin 2D classification anew, or with `clear` stop it and take its classes away."""
    body = await read_body(request)
    scheduler = scheduler_of(request)
    clear = body.get("clear", False) is True
    message = ResetClassesRequest(request_id=read_request_id(body), session=session, clear=clear)
    await scheduler.ask(scheduler.reconstruction.ResetClasses, message)
    structlog.get_logger().info("classes_reset", session=session, clear=clear, request_id=message.request_id)
    return JSONResponse({})


def _read_numbers(body: Any, name: str) -> list[int]:
    values = body.get(name, []) if isinstance(body, dict) else None
    if not isinstance(values, list) or len(values) > _CLASSES_MAX or not all(type(one) is int for one in values):
        raise FrazilError("BODY_INVALID", f"Send {name} as a list of class numbers.")
    return values


def _read_thresholds(body: Any) -> ClassThresholds | None:
    """Return all thresholds that a body has; what it leaves out is no threshold. None: they stay as they are."""
    said = body.get("thresholds")
    if said is None:
        return None
    try:
        found: ClassThresholds = ParseDict(said, ClassThresholds())
    except ParseError as error:
        raise FrazilError("BODY_INVALID", f"Send thresholds as an object of numbers ({error}).") from error
    if not all(math.isfinite(value) for value in (found.resolution_max_angstrom, found.effective_classes_max)):
        raise FrazilError("BODY_INVALID", "Send thresholds as an object of numbers.")
    return found
