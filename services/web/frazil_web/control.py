"""What an operator changes from the page: a session's resources, profiles, jobs, GPUs."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import APIRouter, Request
from google.protobuf.message import Message
from starlette.responses import JSONResponse, Response

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_web.records import to_json
from frazil_web.requests import read_advice, read_compute, read_counts, read_request_id, read_text
from frazil_web.routes import read_body, scheduler_of

router = APIRouter(prefix="/api")

_SLOT_VERBS: dict[str, tuple[str, type[Any]]] = {
    "drain": ("DrainGpu", scheduler_pb2.DrainGpuRequest),
    "quarantine": ("QuarantineGpu", scheduler_pb2.QuarantineGpuRequest),
    "clear": ("ClearGpu", scheduler_pb2.ClearGpuRequest),
}
_JOB_VERBS: dict[str, tuple[str, type[Any]]] = {
    "cancel": ("CancelJob", scheduler_pb2.CancelJobRequest),
    "kill": ("KillJob", scheduler_pb2.KillJobRequest),
    "requeue": ("RequeueJob", scheduler_pb2.RequeueJobRequest),
}
_STREAMING_VERBS: dict[str, tuple[str, type[Any]]] = {
    "start": ("StartStreamingJob", session_pb2.StartStreamingJobRequest),
    "stop": ("StopStreamingJob", session_pb2.StopStreamingJobRequest),
}


@router.post("/advice")
async def advise(request: Request) -> Response:
    """Say what will run together, what will wait and what to do; changes nothing."""
    scheduler = scheduler_of(request)
    advice: Any = await scheduler.ask(scheduler.sessions.AdviseCompute, read_advice(await read_body(request)))
    return JSONResponse({"advice": to_json(advice)})


@router.post("/sessions/{session}/compute")
async def update_compute(request: Request, session: str) -> Response:
    """Change where a session's jobs run: from its next start on, or now."""
    body = await read_body(request)
    now = body.get("now", False) is True
    message = session_pb2.UpdateComputeRequest(session=session, compute=read_compute(body), now=now)
    return await _change(request, body, scheduler_of(request).sessions.UpdateCompute, message, "session")


@router.post("/sessions/{session}/switch")
async def switch_plan(request: Request, session: str) -> Response:
    """Hand slots over inside a session; no jobs cancels the hand-over under way."""
    body = await read_body(request)
    message = session_pb2.SwitchPlanRequest(session=session, jobs=read_counts(body, "jobs"))
    return await _change(request, body, scheduler_of(request).sessions.SwitchPlan, message, "session")


@router.post("/sessions/{session}/streaming/{verb}")
async def change_streaming(request: Request, session: str, verb: str) -> Response:
    """Start or stop a streaming job."""
    method, make = _known(_STREAMING_VERBS, verb)
    body = await read_body(request)
    message = make(session=session, job_type=read_text(body, "job_type"))
    return await _change(request, body, getattr(scheduler_of(request).sessions, method), message, "session")


@router.post("/sessions/{session}/clone")
async def clone_session(request: Request, session: str) -> Response:
    """Create a session with the values of another."""
    body = await read_body(request)
    folder = read_text(body, "movie_folder", optional=True)
    message = session_pb2.CloneSessionRequest(session=session, name=read_text(body, "name"), movie_folder=folder)
    return await _change(request, body, scheduler_of(request).sessions.CloneSession, message, "session")


@router.post("/sessions/{session}/delete")
async def delete_session(request: Request, session: str) -> Response:
    """Forget a session; its results go only when that is asked for."""
    body = await read_body(request)
    results = body.get("delete_results", False) is True
    message = session_pb2.DeleteSessionRequest(session=session, delete_results=results)
    return await _change(request, body, scheduler_of(request).sessions.DeleteSession, message, "deleted")


@router.get("/profiles")
async def list_profiles(request: Request) -> Response:
    """Return the configuration profiles."""
    scheduler = scheduler_of(request)
    reply: Any = await scheduler.ask(scheduler.sessions.ListProfiles, session_pb2.ListProfilesRequest())
    return JSONResponse({"profiles": [to_json(profile) for profile in reply.profiles]})


@router.post("/profiles")
async def save_profile(request: Request) -> Response:
    """Save a session's parameters and compute resources under a name."""
    body = await read_body(request)
    profile = session_pb2.Profile(name=read_text(body, "name"), description=read_text(body, "description", optional=True))
    message = session_pb2.SaveProfileRequest(profile=profile, session=read_text(body, "session"))
    return await _change(request, body, scheduler_of(request).sessions.SaveProfile, message, "profile")


@router.post("/jobs/{job_id}/{verb}")
async def change_job(request: Request, job_id: str, verb: str) -> Response:
    """Cancel, kill or requeue a job."""
    method, make = _known(_JOB_VERBS, verb)
    body = await read_body(request)
    return await _change(request, body, getattr(scheduler_of(request).resources, method), make(job_id=job_id), "job")


@router.post("/slots/{verb}")
async def change_slot(request: Request, verb: str) -> Response:
    """Drain, quarantine or clear a GPU; its slot's key is in the body, because it holds a '#'."""
    method, make = _known(_SLOT_VERBS, verb)
    body = await read_body(request)
    message = make(slot_key=read_text(body, "slot_key"), reason=read_text(body, "reason", optional=True))
    return await _change(request, body, getattr(scheduler_of(request).resources, method), message, "slot")


def _known(verbs: dict[str, tuple[str, type[Any]]], verb: str) -> tuple[str, type[Any]]:
    if verb not in verbs:
        raise FrazilError("REQUEST_INVALID", f"Choose one of: {', '.join(verbs)}.", kind=ErrorKind.NOT_FOUND)
    return verbs[verb]


async def _change(request: Request, body: Any, method: Any, message: Any, name: str) -> Response:
    message.request_id = read_request_id(body)
    reply: Message = await scheduler_of(request).ask(method, message)
    structlog.get_logger().info("operator_changed", path=request.url.path, request_id=message.request_id)
    return JSONResponse({name: to_json(reply)})
