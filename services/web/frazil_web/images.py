"""Pictures and overlays by opaque identity: the row names the file, and it lies in the session's folder or is not sent."""

from __future__ import annotations

import asyncio
import hashlib
import math
from typing import Any

from fastapi import APIRouter, Request
from google.protobuf.json_format import Parse
from starlette.responses import JSONResponse, Response

from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc import attributes
from frazil_web.containment import read_beneath, split_relative
from frazil_web.npy import read_candidates
from frazil_web.records import exposure_detail, finite, result_version
from frazil_web.scheduler import Scheduler
from frazil_web.star import read_loop, read_value

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_IMMUTABLE = "private, max-age=31536000, immutable"
_REVALIDATE = "private, no-cache"

router = APIRouter(prefix="/api")


@router.get("/exposures/{exposure_id}/thumbnail.png")
async def thumbnail(request: Request, exposure_id: str, v: str = "") -> Response:
    """Return the thumbnail; with `v` = the exposure's version it may be kept for ever."""
    exposure, result = await _result(request, exposure_id)
    content = await _read(request, exposure.session_id, _attempt_path(result, result.thumbnail))
    return _png(request, content, forever=v == result_version(exposure))


@router.get("/exposures/{exposure_id}/spectrum.png")
async def spectrum(request: Request, exposure_id: str, v: str = "") -> Response:
    """Return the power spectrum."""
    exposure, result = await _result(request, exposure_id)
    content = await _read(request, exposure.session_id, _attempt_path(result, result.spectrum))
    return _png(request, content, forever=v == result_version(exposure))


@router.get("/exposures/{exposure_id}/picks.json")
async def picks(request: Request, exposure_id: str, v: str = "") -> Response:
    """Return the picks in px of the full micrograph: parallel lists x, y and score."""
    exposure, result = await _result(request, exposure_id)
    content = b""
    if result.picks_star:
        content = await _read(request, exposure.session_id, _attempt_path(result, result.picks_star))
    return _json(await asyncio.to_thread(_picks_of, result, content), forever=v == result_version(exposure))


def _picks_of(result: ExposureResult, content: bytes) -> dict[str, Any]:
    names = ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit")
    columns = read_loop(content.decode("utf-8", "replace"), "", names)
    return {
        "width_px": result.width_px,
        "height_px": result.height_px,
        "pixel_size_angstrom": result.pixel_size_angstrom,
        "x": _numbers(columns.get("rlnCoordinateX", []), 1),
        "y": _numbers(columns.get("rlnCoordinateY", []), 1),
        "score": _numbers(columns.get("rlnAutopickFigureOfMerit", []), 4),
    }


@router.get("/exposures/{exposure_id}/candidates.json")
async def candidates(request: Request, exposure_id: str, v: str = "") -> Response:
    """Return what the picker found, also below its threshold, and that threshold; parallel lists, best first."""
    exposure, result = await _result(request, exposure_id)
    content = await _read(request, exposure.session_id, _attempt_path(result, result.candidates))
    columns = await asyncio.to_thread(read_candidates, content)
    found: dict[str, Any] = {
        name: _numbers(columns[name], digits) for name, digits in (("x_px", 1), ("y_px", 1), ("score", 4), ("power", 3))
    }
    found |= {"score_min": finite(result.pick_score_min), "pixel_size_angstrom": result.pixel_size_angstrom}
    return _json(found | {"width_px": result.width_px, "height_px": result.height_px}, forever=v == result_version(exposure))


@router.get("/exposures/{exposure_id}/tests/{job_id}/{name}")
async def tested(request: Request, exposure_id: str, job_id: str, name: str) -> Response:
    """Return a file of a test of parameters: result.json, thumbnail.png, spectrum.png, or its picks.json."""
    exposure = await _scheduler(request).exposure(exposure_id)
    folder = f"tests/{exposure.exposure_id}/{job_id}"
    result = Parse(await _read(request, exposure.session_id, f"{folder}/result.json"), ExposureResult())
    if name == "result.json":
        shown = Exposure(exposure_id=exposure_id, result=result)
        return _json({"result": exposure_detail(shown)["result"], "attributes": attributes.values(shown)}, forever=True)
    if name == "picks.json":
        content = await _read(request, exposure.session_id, f"{folder}/{result.picks_star}")
        return _json(await asyncio.to_thread(_picks_of, result, content), forever=True)
    if name not in ("thumbnail.png", "spectrum.png"):
        raise FrazilError("FILE_NOT_FOUND", f"A test has no {name}.", kind=ErrorKind.NOT_FOUND)
    return _png(request, await _read(request, exposure.session_id, f"{folder}/{name}"), forever=True)


@router.get("/exposures/{exposure_id}/motion.json")
async def motion(request: Request, exposure_id: str, v: str = "") -> Response:
    """Return the shifts of the frames in Å: parallel lists x and y; empty when the file does not say the pixel size."""
    exposure, result = await _result(request, exposure_id)
    track: dict[str, list[float | None]] = {"x_angstrom": [], "y_angstrom": []}
    if result.motion_star:
        content = await _read(request, exposure.session_id, _attempt_path(result, result.motion_star))
        text = content.decode("utf-8", "replace")
        pixel_size = read_value(text, "general", "rlnMicrographOriginalPixelSize")
        shifts = read_loop(text, "global_shift", ("rlnMicrographShiftX", "rlnMicrographShiftY"))
        if pixel_size is not None:
            for axis in ("X", "Y"):
                column = shifts.get(f"rlnMicrographShift{axis}", [])
                track[f"{axis.lower()}_angstrom"] = _numbers([shift * pixel_size for shift in column], 3)
    return _json(track, forever=v == result_version(exposure))


@router.get("/sessions/{session}/classes/{revision}/sheet.png")
async def sheet(request: Request, session: str, revision: int) -> Response:
    """Return the sheet of class averages of the newest revision; older ones are no longer named by anybody."""
    scheduler = _scheduler(request)
    classes = await scheduler.class_averages(session)
    if classes is None or classes.revision != revision or not classes.sheet:
        raise FrazilError(
            "REVISION_NOT_FOUND", f"There is no revision {revision} of the classes any more.", kind=ErrorKind.NOT_FOUND
        )
    content = await _read(request, classes.session_id, classes.sheet)
    return _png(request, content, forever=True)


@router.get("/sessions/{session}/volumes/{revision}/sheet.png")
async def volume_sheet(request: Request, session: str, revision: int) -> Response:
    """Return slices and projections of the newest volume; older ones are no longer named by anybody."""
    volume = await _scheduler(request).volume(session)
    if volume is None or volume.revision != revision or not volume.sheet:
        sentence = f"There is no revision {revision} of the volume any more."
        raise FrazilError("REVISION_NOT_FOUND", sentence, kind=ErrorKind.NOT_FOUND)
    content = await _read(request, volume.session_id, volume.sheet)
    return _png(request, content, forever=True)


def _scheduler(request: Request) -> Scheduler:
    scheduler: Scheduler = request.app.state.scheduler
    return scheduler


async def _result(request: Request, exposure_id: str) -> tuple[Exposure, ExposureResult]:
    exposure = await _scheduler(request).exposure(exposure_id)
    if not exposure.HasField("result"):
        raise FrazilError("RESULT_NOT_FOUND", "This exposure has no result yet.", kind=ErrorKind.NOT_FOUND)
    return exposure, exposure.result


def _attempt_path(result: ExposureResult, name: str) -> str:
    if not name:
        raise FrazilError("FILE_NOT_FOUND", "This exposure has no such picture.", kind=ErrorKind.NOT_FOUND)
    split_relative(name)  # before joining, so that no half of the path can lead upwards
    return f"{result.folder.rstrip('/')}/{name}"


async def _read(request: Request, session_id: str, relative_path: str) -> bytes:
    folder = await _scheduler(request).session_folder(session_id)
    return await asyncio.to_thread(read_beneath, folder, relative_path)


def _png(request: Request, content: bytes, *, forever: bool) -> Response:
    if not content.startswith(_PNG_MAGIC):
        raise FrazilError("FILE_NOT_FOUND", "The file is not a PNG picture.", kind=ErrorKind.NOT_FOUND)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": _IMMUTABLE if forever else _REVALIDATE, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/png", headers=headers)


def _json(content: Any, *, forever: bool) -> Response:
    return JSONResponse(content, headers={"Cache-Control": _IMMUTABLE if forever else _REVALIDATE})


def _numbers(values: list[float], digits: int) -> list[float | None]:
    return [round(value, digits) if math.isfinite(value) else None for value in values]
