"""The JSON API: snapshots, lists, single records, and the few things a person changes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from frazil.api.exposure.v1.exposure_pb2 import ListExposuresRequest, RetryQuarantinedRequest
from frazil.api.scheduler.v1.scheduler_pb2 import ExplainWaitRequest, ListJobsRequest, ListLanesRequest, ListNodesRequest
from frazil.api.session.v1.session_pb2 import (
    CompleteSessionRequest,
    CreateSessionRequest,
    PauseSessionRequest,
    Session,
    StartSessionRequest,
)
from frazil.model.errors import ErrorKind, FrazilError
from frazil_web.events import TYPE_OF_BODY, event_stream, until_closing
from frazil_web.records import (
    EXPOSURE_COLUMNS,
    Json,
    attribute_table,
    exposure_detail,
    exposure_row,
    exposure_table,
    to_json,
)
from frazil_web.requests import read_request_id, read_session
from frazil_web.scheduler import Scheduler

router = APIRouter(prefix="/api")


def scheduler_of(request: Request) -> Scheduler:
    """Return the service's connection to the scheduler."""
    scheduler: Scheduler = request.app.state.scheduler
    return scheduler


async def read_body(request: Request) -> Any:
    """Return a request's JSON object; raises FrazilError BODY_INVALID."""
    try:
        body = await request.json()
    except ValueError as error:
        raise FrazilError("BODY_INVALID", "The body is not JSON.") from error
    if not isinstance(body, dict):
        raise FrazilError("BODY_INVALID", "Send a JSON object.")
    return body


# --------------------------------------------------------------------------------------------------------------- sessions
@router.get("/sessions")
async def list_sessions(request: Request) -> Response:
    """Return every session, newest first."""
    sessions = await scheduler_of(request).session_list()
    return JSONResponse({"sessions": [to_json(session) for session in sessions], "time": time.time()})


@router.post("/sessions")
async def create_session(request: Request) -> Response:
    """Create a session in state paused."""
    body = await read_body(request)
    message = CreateSessionRequest(request_id=read_request_id(body), session=read_session(body))
    scheduler = scheduler_of(request)
    session = await scheduler.ask(scheduler.sessions.CreateSession, message)
    return JSONResponse(_session_json(session), status_code=201)


@router.get("/sessions/{session}")
async def get_session(request: Request, session: str) -> Response:
    """Return one session by identity or name."""
    found = await scheduler_of(request).session(session)
    return JSONResponse({"session": to_json(found), "time": time.time()})


@router.post("/sessions/{session}/start")
async def start_session(request: Request, session: str) -> Response:
    """Start or resume."""
    return await _change(request, session, "StartSession", StartSessionRequest)


@router.post("/sessions/{session}/pause")
async def pause_session(request: Request, session: str) -> Response:
    """Pause: every slot is released, nothing is lost."""
    return await _change(request, session, "PauseSession", PauseSessionRequest)


@router.post("/sessions/{session}/complete")
async def complete_session(request: Request, session: str) -> Response:
    """Complete: no more movies will come."""
    return await _change(request, session, "CompleteSession", CompleteSessionRequest)


@router.post("/sessions/{session}/retry-quarantined")
async def retry_quarantined(request: Request, session: str) -> Response:
    """Put the failed exposures back into the queue."""
    message = RetryQuarantinedRequest(request_id=read_request_id(await read_body(request)), session=session)
    scheduler = scheduler_of(request)
    reply: Any = await scheduler.ask(scheduler.exposures.RetryQuarantined, message)
    return JSONResponse({"count": reply.count})


async def _change(request: Request, session: str, method: str, make: type[Any]) -> Response:
    message = make(request_id=read_request_id(await read_body(request)), session=session)
    scheduler = scheduler_of(request)
    changed = await scheduler.ask(getattr(scheduler.sessions, method), message)
    structlog.get_logger().info("session_changed", method=method, session=session, request_id=message.request_id)
    return JSONResponse(_session_json(changed))


def _session_json(session: Session) -> Json:
    return {"session": to_json(session), "time": time.time()}


# -------------------------------------------------------------------------------------------------------------- snapshots
@router.get("/snapshot")
async def snapshot(request: Request) -> Response:
    """Return sessions, nodes, lanes and jobs, and the sequence to follow events from.

    The sequence is read before the lists: an event between the two is sent again, and since its body is the whole record
    it changes nothing.
    """
    scheduler = scheduler_of(request)
    sequence = await scheduler.newest_sequence()
    sessions, resources = await asyncio.gather(scheduler.session_list(), _resources(scheduler, ""))
    listed = [to_json(session) for session in sessions]
    return JSONResponse({"sequence": sequence, "time": time.time(), "sessions": listed, **resources})


@router.get("/sessions/{session}/snapshot")
async def session_snapshot(request: Request, session: str) -> Response:
    """Return all that a session's page shows, exposures in short, and the sequence to follow events from."""
    scheduler = scheduler_of(request)
    sequence = await scheduler.newest_sequence()
    found = await scheduler.session(session)
    classes, volume = await asyncio.gather(scheduler.class_averages(found.session_id), scheduler.volume(found.session_id))
    resources = await _resources(scheduler, found.session_id)
    rows: list[list[Any]] = []
    async for page in scheduler.exposure_pages(found.session_id):
        rows.extend(exposure_row(exposure) for exposure in page)
    content = {
        "sequence": sequence,
        "time": time.time(),
        "session": to_json(found),
        "attributes": attribute_table(),
        "exposures": {"columns": list(EXPOSURE_COLUMNS), "rows": rows},
        "classes": to_json(classes) if classes is not None else None,
        "volume": to_json(volume) if volume is not None else None,
        **resources,
    }
    return JSONResponse(content)


async def _resources(scheduler: Scheduler, session: str) -> Json:
    nodes: Any
    lanes: Any
    jobs: Any
    nodes, lanes, jobs = await asyncio.gather(
        scheduler.ask(scheduler.resources.ListNodes, ListNodesRequest()),
        scheduler.ask(scheduler.resources.ListLanes, ListLanesRequest()),
        scheduler.ask(scheduler.resources.ListJobs, ListJobsRequest(session=session)),
    )
    return {
        "nodes": [to_json(node) for node in nodes.nodes],
        "lanes": [to_json(lane) for lane in lanes.lanes],
        "jobs": [to_json(job) for job in jobs.jobs],
    }


# -------------------------------------------------------------------------------------------------- exposures and classes
@router.get("/sessions/{session}/exposures")
async def list_exposures(
    request: Request, session: str, page: str = "", size: int = 200, newest_first: bool = False
) -> Response:
    """Return one page of exposures in short; `page` is the `next_page` of the page before."""
    scheduler = scheduler_of(request)
    message = ListExposuresRequest(
        session=session, page_size=min(max(size, 1), 1000), page_token=page, newest_first=newest_first
    )
    reply: Any = await scheduler.ask(scheduler.exposures.ListExposures, message)
    return JSONResponse({**exposure_table(reply.exposures), "next_page": reply.next_page_token})


@router.get("/exposures/{exposure_id}")
async def get_exposure(request: Request, exposure_id: str) -> Response:
    """Return one exposure whole."""
    return JSONResponse({"exposure": exposure_detail(await scheduler_of(request).exposure(exposure_id))})


@router.get("/sessions/{session}/classes")
async def get_classes(request: Request, session: str) -> Response:
    """Return the newest classification; null before the first."""
    scheduler = scheduler_of(request)
    found = await scheduler.session(session)
    classes = await scheduler.class_averages(found.session_id)
    return JSONResponse({"classes": to_json(classes) if classes is not None else None})


# -------------------------------------------------------------------------------------------------------------- resources
@router.get("/nodes")
async def list_nodes(request: Request) -> Response:
    """Return nodes with their slots and who holds them."""
    scheduler = scheduler_of(request)
    reply: Any = await scheduler.ask(scheduler.resources.ListNodes, ListNodesRequest())
    return JSONResponse({"nodes": [to_json(node) for node in reply.nodes]})


@router.get("/lanes")
async def list_lanes(request: Request) -> Response:
    """Return the lanes."""
    scheduler = scheduler_of(request)
    reply: Any = await scheduler.ask(scheduler.resources.ListLanes, ListLanesRequest())
    return JSONResponse({"lanes": [to_json(lane) for lane in reply.lanes]})


@router.get("/jobs")
async def list_jobs(request: Request, session: str = "", active_only: bool = False) -> Response:
    """Return jobs in queue order."""
    scheduler = scheduler_of(request)
    reply: Any = await scheduler.ask(scheduler.resources.ListJobs, ListJobsRequest(session=session, active_only=active_only))
    return JSONResponse({"jobs": [to_json(job) for job in reply.jobs]})


@router.get("/jobs/{job_id}/wait")
async def explain_wait(request: Request, job_id: str) -> Response:
    """Say why a job waits, who blocks it and what can be done."""
    scheduler = scheduler_of(request)
    reply: Any = await scheduler.ask(scheduler.resources.ExplainWait, ExplainWaitRequest(job_id=job_id))
    return JSONResponse({"wait": to_json(reply)})


# ----------------------------------------------------------------------------------------------------------------- events
@router.get("/events")
async def events(request: Request, session: str = "", after: int = 0, types: str = "") -> Response:
    """Follow the event log as server-sent events; Last-Event-ID, which a browser sends by itself, wins over `after`."""
    wanted = frozenset(types.split(",")) if types else frozenset(TYPE_OF_BODY.values())
    last = request.headers.get("last-event-id", "")
    start = int(last) if last.isdecimal() and len(last) < 19 else after
    if start < 0 or not wanted <= frozenset(TYPE_OF_BODY.values()):
        known = ", ".join(sorted(TYPE_OF_BODY.values()))
        raise FrazilError("REQUEST_INVALID", f"Give after >= 0 and types among: {known}.", kind=ErrorKind.INVALID)
    stream = event_stream(scheduler_of(request), session, start, types=wanted, clock=time.time, pace=request.app.state.pace)
    return StreamingResponse(
        until_closing(stream, request.app.state.closing),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
