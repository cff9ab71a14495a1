"""Puts the service together: API, pictures, the built page, errors as JSON, gzip, guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from frazil.model.errors import ErrorKind, FrazilError
from frazil_web import classes, control, curation, images, routes
from frazil_web.events import Pace
from frazil_web.guard import Guard
from frazil_web.requests import field_of
from frazil_web.scheduler import Scheduler

DIST = Path(__file__).parent / "dist"
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

_STATUS_OF_KIND = {
    ErrorKind.INVALID: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.ALREADY_EXISTS: 409,
    ErrorKind.CONFLICT: 409,
    ErrorKind.EXHAUSTED: 429,
    ErrorKind.EXPIRED: 410,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.INTERNAL: 502,
}


class _Assets(StaticFiles):
    """Built files carry a hash of their content in their name: they never change."""

    async def get_response(self, path: str, scope: object) -> Response:
        response = await super().get_response(path, scope)  # type: ignore[arg-type]
        if response.status_code in {200, 304}:
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def create_app(
    scheduler: Scheduler, *, allowed_hosts: Sequence[str] = _LOOPBACK_HOSTS, pace: Pace | None = None, dist: Path = DIST
) -> FastAPI:
    """Return the service as an ASGI application; it closes `scheduler` when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await scheduler.close()

    app = FastAPI(title="Frazil", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.scheduler = scheduler
    app.state.pace = pace or Pace()
    app.state.closing = asyncio.Event()  # set when the service is about to stop: event streams then end
    app.add_exception_handler(FrazilError, _frazil_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)
    app.add_middleware(Guard, allowed_hosts=allowed_hosts)
    app.include_router(routes.router)
    app.include_router(control.router)
    app.include_router(curation.router)
    app.include_router(classes.router)
    app.include_router(images.router)
    app.add_api_route("/healthz", _health, methods=["GET"], response_model=None)
    _add_page(app, dist)
    return app


def hosts_for(host: str) -> tuple[str, ...]:
    """Return the Host names to answer to when listening on `host`: only loopback ones where only this machine can call."""
    return _LOOPBACK_HOSTS if host in _LOOPBACK_HOSTS else ("*",)


def _add_page(app: FastAPI, dist: Path) -> None:
    """Serve the built page; its own routes all answer with index.html."""
    index = dist / "index.html"
    if not index.is_file():
        raise FrazilError(
            "PAGE_MISSING",
            f"The built page is not in {dist}: run `make web`, or reinstall frazil-web.",
            kind=ErrorKind.INTERNAL,
        )

    async def page() -> Response:
        return FileResponse(index, media_type="text/html", headers={"Cache-Control": "no-cache"})

    for path in ("/", "/sessions", "/sessions/{session}", "/resources"):
        app.add_api_route(path, page, methods=["GET", "HEAD"], response_model=None)
    app.mount("/assets", _Assets(directory=dist / "assets"), name="assets")


async def _health(request: Request) -> Response:
    """Say that this service lives, and whether it reaches its scheduler; the page is served either way."""
    reachable = request.app.state.scheduler.reachable()
    return JSONResponse({"status": "ok", "scheduler": "reachable" if reachable else "unreachable"})


def _error(status: int, reason: str, sentence: str, fields: dict[str, str] | None = None) -> Response:
    content: dict[str, object] = {"reason": reason, "sentence": sentence}
    if fields:
        content["fields"] = fields
    return JSONResponse(content, status_code=status, headers={"Cache-Control": "no-store"})


async def _frazil_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, FrazilError):
        raise error
    if error.kind is ErrorKind.INTERNAL:
        structlog.get_logger().error("request_failed", reason=error.reason, sentence=error.sentence)
    return _error(_STATUS_OF_KIND[error.kind], error.reason, error.sentence, _fields(error))


def _fields(error: FrazilError) -> dict[str, str]:
    """Return wrong fields with their sentences: ours by name, the scheduler's where its sentence names one."""
    if error.reason == "FIELDS_INVALID":
        return error.metadata
    field = error.metadata.get("field") or field_of(error.reason, error.sentence)
    return {field: error.sentence} if field else {}


async def _invalid_request(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    where = ", ".join(str(problem["loc"][-1]) for problem in error.errors())
    return _error(400, "REQUEST_INVALID", f"These parts of the address are not usable: {where}.")


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _error(error.status_code, "NOT_FOUND" if error.status_code == 404 else "REQUEST_REFUSED", str(error.detail))
