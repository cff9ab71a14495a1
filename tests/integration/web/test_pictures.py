"""Pictures by opaque identity: right bytes, cached for ever by version, never from outside the session's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from frazil.api.reconstruction.v1.reconstruction_pb2 import Volume
from integration.web.fake_scheduler import FakeScheduler
from integration.web.fake_session import HEIGHT_PX, WIDTH_PX, Microscope


@pytest.fixture
async def exposure(ledger: FakeScheduler) -> Any:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1000.0)
    found = await microscope.find()
    await microscope.finish(found)
    return found


def _folder(ledger: FakeScheduler, exposure: Any) -> Path:
    return ledger.data_dir / "grid7" / exposure.result.folder


@pytest.mark.parametrize("name", ["thumbnail", "spectrum"])
async def test_a_picture_is_the_file(client: httpx.AsyncClient, ledger: FakeScheduler, exposure: Any, name: str) -> None:
    version = (await client.get(f"/api/exposures/{exposure.exposure_id}")).json()["exposure"]["version"]
    reply = await client.get(f"/api/exposures/{exposure.exposure_id}/{name}.png?v={version}")
    assert reply.content == (_folder(ledger, exposure) / f"{name}.png").read_bytes()
    assert reply.headers["content-type"] == "image/png"
    assert "immutable" in reply.headers["cache-control"]


async def test_without_its_version_a_picture_is_asked_for_again(client: httpx.AsyncClient, exposure: Any) -> None:
    path = f"/api/exposures/{exposure.exposure_id}/thumbnail.png"
    first = await client.get(path)
    assert first.headers["cache-control"] == "private, no-cache"
    again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    stale = await client.get(f"{path}?v=000000000000")
    assert stale.headers["cache-control"] == "private, no-cache"


async def test_another_attempt_is_another_version(client: httpx.AsyncClient, exposure: Any) -> None:
    path = f"/api/exposures/{exposure.exposure_id}"
    first = (await client.get(path)).json()["exposure"]["version"]
    exposure.result.folder = "exposures/000001/attempt-2"
    assert (await client.get(path)).json()["exposure"]["version"] != first


async def test_picks_are_the_stars_rows(client: httpx.AsyncClient, ledger: FakeScheduler, exposure: Any) -> None:
    picks = (await client.get(f"/api/exposures/{exposure.exposure_id}/picks.json")).json()
    rows = [line.split() for line in (_folder(ledger, exposure) / "picks.star").read_text().splitlines() if line[:1] == " "]
    assert len(picks["x"]) == exposure.result.pick_count == len(rows)
    assert picks["x"] == pytest.approx([float(row[0]) for row in rows], abs=0.051)
    assert picks["y"] == pytest.approx([float(row[1]) for row in rows], abs=0.051)
    assert (picks["width_px"], picks["height_px"]) == (WIDTH_PX, HEIGHT_PX)


async def test_motion_is_in_angstrom(client: httpx.AsyncClient, exposure: Any) -> None:
    motion = (await client.get(f"/api/exposures/{exposure.exposure_id}/motion.json")).json()
    assert len(motion["x_angstrom"]) == 50
    assert motion["x_angstrom"][0] == 0
    assert motion["x_angstrom"][-1] == pytest.approx(0.83 * 6 * (1 - 2.718281828 ** (-7)), abs=1e-3)


async def test_an_exposure_without_a_result_has_no_picture(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid8")
    waiting = await ledger.add_exposure(session.session_id, "a.tiff")
    reply = await client.get(f"/api/exposures/{waiting.exposure_id}/thumbnail.png")
    assert (reply.status_code, reply.json()["reason"]) == (404, "RESULT_NOT_FOUND")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("exposures/000001/attempt-1", "../../../../secret.png"),
        ("exposures/000001/attempt-1", "/secret.png"),
        ("../", "secret.png"),
        ("..", "secret.png"),
        ("/", "secret.png"),
        ("exposures/../..", "secret.png"),
        ("exposures/000001/attempt-1", "a\\..\\secret.png"),
        ("exposures/000001/attempt-1", "a\0secret.png"),
        ("exposures/000001/attempt-1", "link.png"),
        ("linked", "secret.png"),
        ("exposures/000001/attempt-1", "missing.png"),
        ("exposures/000001", "attempt-1"),
        ("exposures/000001/attempt-1", "pipe.png"),
        ("exposures/000001/attempt-1", "picks.star"),
    ],
)
async def test_nothing_outside_the_session_is_sent(
    client: httpx.AsyncClient, ledger: FakeScheduler, exposure: Any, folder: str, name: str
) -> None:
    secret = ledger.data_dir / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nhidden bytes")
    attempt = _folder(ledger, exposure)
    (attempt / "link.png").symlink_to(secret)
    (ledger.data_dir / "grid7" / "linked").symlink_to(ledger.data_dir)
    os.mkfifo(attempt / "pipe.png")
    exposure.result.folder, exposure.result.thumbnail = folder, name
    reply = await client.get(f"/api/exposures/{exposure.exposure_id}/thumbnail.png")
    assert reply.status_code == 404
    assert b"hidden bytes" not in reply.content


async def test_a_sheet_is_served_for_its_revision_only(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    microscope = Microscope(ledger, session, clock=lambda: 1.0)
    classes = await microscope.publish_classes(class_count=6)
    path = f"/api/sessions/{session.session_id}/classes"
    first = await client.get(f"{path}/1/sheet.png")
    assert first.content == (ledger.data_dir / "grid7" / classes.sheet).read_bytes()
    assert "immutable" in first.headers["cache-control"]
    await microscope.publish_classes(class_count=6)
    assert (await client.get(f"{path}/1/sheet.png")).status_code == 404
    assert (await client.get(f"{path}/2/sheet.png")).status_code == 200
    assert (await client.get(f"{path}/x/sheet.png")).status_code == 400


async def test_slices_of_the_newest_volume_are_served(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    session = await ledger.add_session("grid7")
    folder = ledger.data_dir / "grid7" / "refine3d"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nslices")
    volume = Volume(session_id=session.session_id, revision=3, kind=Volume.KIND_REFINEMENT, sheet="refine3d/1.png")
    volume.history.add(particle_count=100, resolution_angstrom=12.0)
    ledger.volumes[session.session_id] = volume
    shown = (await client.get("/api/sessions/grid7/snapshot")).json()["volume"]
    assert (shown["kind"], shown["resolution_angstrom"], shown["fsc"]) == ("refinement", None, None)
    assert shown["history"] == [{"particle_count": 100, "resolution_angstrom": 12.0}]
    path = f"/api/sessions/{session.session_id}/volumes"
    assert (await client.get(f"{path}/3/sheet.png")).content.endswith(b"slices")
    assert (await client.get(f"{path}/2/sheet.png")).status_code == 404
