"""The service over a real channel: sessions come, pause and go; the scheduler goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from frazil.api.exposure.v1 import exposure_pb2 as exposures
from frazil.api.exposure.v1.exposure_pb2_grpc import ExposureServiceServicer, add_ExposureServiceServicer_to_server
from frazil.api.session.v1 import session_pb2 as sessions
from frazil.api.session.v1.session_pb2_grpc import SessionServiceServicer, add_SessionServiceServicer_to_server
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.client import open_aio_channel
from frazil.rpc.server import RunningServer, start_server
from frazil_ingest.follow import Ingest, IngestSettings

Movie = Callable[..., bytes]
FAST = IngestSettings(
    poll_seconds=0.02, sweep_min_seconds=0.02, settle_seconds=0.05, defect_after_seconds=0.3, companion_seconds=0.1
)


class Ledger(SessionServiceServicer, ExposureServiceServicer):
    """The scheduler's sessions and exposures, as far as ingest sees them."""

    def __init__(self) -> None:
        self.sessions: dict[str, sessions.Session] = {}
        self.exposures: dict[tuple[str, str], exposures.Exposure] = {}
        self.requests = 0
        self.scans: dict[str, sessions.ScanStatus] = {}
        self.changed = asyncio.Event()
        self.break_after: int | None = None  # registrations
        self.before_reply: Callable[[], None] | None = None  # done once; then the reply is lost

    def run(self, name: str, folder: Path) -> None:
        parameters = sessions.SessionParameters(movie_folder=str(folder), pixel_size_angstrom=1.0)
        self.sessions[name] = sessions.Session(
            session_id=name, name=name, state=sessions.Session.STATE_RUNNING, parameters=parameters
        )

    def paths(self, session: str) -> list[str]:
        return [path for key, path in self.exposures if key == session]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def ListSessions(self, request: Any, context: Any) -> Any:
        first = int(request.page_token or 0)
        page = list(self.sessions.values())[first : first + 2]
        token = str(first + 2) if first + 2 < len(self.sessions) else ""
        return sessions.ListSessionsResponse(sessions=page, next_page_token=token)

    async def ReportScan(self, request: Any, context: Any) -> Any:
        self.scans[request.session_id] = request.scan
        self.changed.set()
        return sessions.ReportScanResponse()

    async def ListExposures(self, request: Any, context: Any) -> Any:
        known = [exposure for (session, _), exposure in self.exposures.items() if session == request.session]
        first = int(request.page_token or 0)
        token = str(first + 3) if first + 3 < len(known) else ""
        return exposures.ListExposuresResponse(exposures=known[first : first + 3], next_page_token=token)

    async def GetExposure(self, request: Any, context: Any) -> Any:
        return next(e for e in self.exposures.values() if e.exposure_id == request.exposure_id)

    async def RegisterExposures(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            self.requests += 1
            if self.break_after is not None and self.requests > self.break_after:
                self.break_after = None
                raise FrazilError("LEDGER_BUSY", "The ledger is away.", kind=ErrorKind.UNAVAILABLE)
            path = request.file.relative_path
            key = (request.session_id, path)
            completing = self.sessions[request.session_id].state == sessions.Session.STATE_COMPLETING and key in self.exposures
            if self.sessions[request.session_id].state != sessions.Session.STATE_RUNNING and not completing:
                yield exposures.RegisterExposuresResponse(relative_path=path, refused="The session does not run.")
                continue
            created = key not in self.exposures
            state = exposures.Exposure.STATE_QUARANTINED if request.file.defect else exposures.Exposure.STATE_READY
            self.exposures[key] = exposures.Exposure(
                exposure_id=f"{key}", session_id=key[0], file=request.file, metadata=request.metadata, state=state
            )
            self.changed.set()
            if self.before_reply is not None:
                act, self.before_reply = self.before_reply, None
                act()
                raise FrazilError("REPLY_LOST", "Nobody hears this.", kind=ErrorKind.UNAVAILABLE)
            yield exposures.RegisterExposuresResponse(relative_path=path, exposure_id=f"{key}", created=created)


@contextlib.asynccontextmanager
async def serving(ledger: Ledger, address: str = "127.0.0.1:0") -> AsyncIterator[RunningServer]:
    adders = [
        lambda server: add_SessionServiceServicer_to_server(ledger, server),
        lambda server: add_ExposureServiceServicer_to_server(ledger, server),
    ]
    server = await start_server(adders, [], address)
    try:
        yield server
    finally:
        await server.stop(0.1)


@contextlib.asynccontextmanager
async def ingesting(port: int) -> AsyncIterator[None]:
    async with open_aio_channel(f"127.0.0.1:{port}") as channel:
        task = asyncio.create_task(Ingest(channel, FAST).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_every_running_session_is_followed_and_reported(tmp_path: Path, movie_bytes: Movie) -> None:
    ledger = Ledger()
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mrc").write_bytes(movie_bytes())
        ledger.run(name, tmp_path / name)
    (tmp_path / "one" / "bad.mrc").touch()
    async with serving(ledger) as server, ingesting(server.port):
        await ledger.until(lambda: len(ledger.exposures) == 4)
        assert ledger.exposures[("one", "bad.mrc")].file.defect
        await ledger.until(lambda: all(scan.files_settling == 0 and scan.sweeps >= 2 for scan in ledger.scans.values()))
        assert {name: scan.files_seen for name, scan in ledger.scans.items()} == {"one": 2, "two": 1, "three": 1}
        registrations = ledger.requests
        seen = ledger.scans["one"].sweeps
        await ledger.until(lambda: ledger.scans["one"].sweeps > seen + 3)
        assert ledger.requests == registrations


async def test_paused_session_is_left_alone_and_resumed(tmp_path: Path, movie_bytes: Movie) -> None:
    ledger = Ledger()
    ledger.run("s", tmp_path)
    ledger.run("other", tmp_path)
    async with serving(ledger) as server, ingesting(server.port):
        await ledger.until(lambda: len(ledger.scans) == 2)
        ledger.sessions["s"].state = sessions.Session.STATE_PAUSED
        (tmp_path / "a.mrc").write_bytes(movie_bytes())
        await ledger.until(lambda: bool(ledger.paths("other")))
        seen = ledger.scans["other"].sweeps
        await ledger.until(lambda: ledger.scans["other"].sweeps > seen + 5)
        assert ledger.paths("s") == []
        ledger.sessions["s"].state = sessions.Session.STATE_RUNNING
        await ledger.until(lambda: ledger.paths("s") == ["a.mrc"])


async def test_completing_session_gets_no_movie_but_hears_of_changes(tmp_path: Path, movie_bytes: Movie) -> None:
    ledger = Ledger()
    ledger.run("s", tmp_path)
    for name in ("changes", "vanishes", "stays"):
        (tmp_path / f"{name}.mrc").write_bytes(movie_bytes())
    async with serving(ledger) as server, ingesting(server.port):
        await ledger.until(lambda: len(ledger.exposures) == 3)
        ledger.sessions["s"].state = sessions.Session.STATE_COMPLETING
        registrations = ledger.requests
        (tmp_path / "new.mrc").write_bytes(movie_bytes())
        (tmp_path / "vanishes.mrc").unlink()
        os.utime(tmp_path / "changes.mrc", ns=(1, 1))
        await ledger.until(lambda: "deleted" in ledger.exposures[("s", "vanishes.mrc")].file.defect)
        await ledger.until(lambda: ledger.exposures[("s", "changes.mrc")].file.modified_ns == 1)
        assert ledger.requests == registrations + 2  # the new one is not even asked for


async def test_broken_stream_registers_every_movie_in_the_end(tmp_path: Path, movie_bytes: Movie) -> None:
    ledger = Ledger()
    ledger.run("s", tmp_path)
    for number in range(7):
        (tmp_path / f"{number}.mrc").write_bytes(movie_bytes())
    ledger.break_after = 3
    async with serving(ledger) as server, ingesting(server.port):
        await ledger.until(lambda: len(ledger.exposures) == 7)
    assert ledger.requests == 8


async def test_movie_that_vanishes_while_its_registration_is_answered_is_declared_gone(
    tmp_path: Path, movie_bytes: Movie
) -> None:
    ledger = Ledger()
    ledger.run("s", tmp_path)
    for name in ("a.mrc", "b.mrc"):
        (tmp_path / name).write_bytes(movie_bytes())
    ledger.before_reply = (tmp_path / "a.mrc").unlink
    async with serving(ledger) as server, ingesting(server.port):
        await ledger.until(lambda: ledger.paths("s") == ["a.mrc", "b.mrc"])
        await ledger.until(lambda: "deleted" in ledger.exposures[("s", "a.mrc")].file.defect)


async def test_restarted_ingest_registers_nothing_twice(tmp_path: Path, movie_bytes: Movie) -> None:
    ledger = Ledger()
    ledger.run("s", tmp_path)
    for number in range(7):
        (tmp_path / f"{number}.mrc").write_bytes(movie_bytes())
    async with serving(ledger) as server:
        async with ingesting(server.port):
            await ledger.until(lambda: len(ledger.exposures) == 7)
        ledger.scans.clear()
        async with ingesting(server.port):
            await ledger.until(lambda: "s" in ledger.scans and ledger.scans["s"].sweeps > 5)
            assert ledger.scans["s"].files_seen == 7
    assert ledger.requests == 7


async def test_scheduler_that_comes_late_and_comes_back(tmp_path: Path, movie_bytes: Movie) -> None:
    ledger = Ledger()
    ledger.run("s", tmp_path)
    async with serving(ledger) as server:
        port = server.port
        async with ingesting(port):
            await ledger.until(lambda: "s" in ledger.scans)
            await server.stop(0.0)
            (tmp_path / "a.mrc").write_bytes(movie_bytes())
            async with serving(ledger, f"127.0.0.1:{port}"):
                await ledger.until(lambda: ledger.paths("s") == ["a.mrc"])


@pytest.mark.parametrize(
    ("state", "defective"),
    [(exposures.Exposure.STATE_READY, True), (exposures.Exposure.STATE_RUNNING, False), (exposures.Exposure.STATE_DONE, False)],
)
async def test_only_a_waiting_movie_is_declared_gone(tmp_path: Path, movie_bytes: Movie, state: Any, defective: bool) -> None:
    ledger = Ledger()
    ledger.run("s", tmp_path)
    for name in ("a.mrc", "b.mrc"):
        (tmp_path / name).write_bytes(movie_bytes())
    async with serving(ledger) as server, ingesting(server.port):
        await ledger.until(lambda: len(ledger.exposures) == 2)
        ledger.exposures[("s", "a.mrc")].state = state
        (tmp_path / "a.mrc").unlink()
        seen = ledger.scans["s"].sweeps if "s" in ledger.scans else 0
        await ledger.until(lambda: ledger.scans["s"].sweeps > seen + 6)
        assert bool(ledger.exposures[("s", "a.mrc")].file.defect) is defective
        assert not ledger.exposures[("s", "b.mrc")].file.defect


async def test_sweeps_grow_rarer_in_a_quiet_folder() -> None:
    async with open_aio_channel("127.0.0.1:1") as channel:
        ingest = Ingest(channel, IngestSettings())
    status = sessions.ScanStatus
    assert ingest.interval(status(seconds_since_change=0), 0.0) == 1.0
    assert ingest.interval(status(seconds_since_change=60), 0.0) == pytest.approx(3.0)
    assert ingest.interval(status(seconds_since_change=1e6), 0.0) == 5.0
    assert ingest.interval(status(seconds_since_change=1e6, files_settling=1), 0.0) == 1.0
    assert ingest.interval(status(seconds_since_change=0), 2.0) == pytest.approx(11.0)
    assert ingest.interval(status(problem="away"), 0.0) == 5.0


def test_service_needs_no_numpy() -> None:
    code = "import sys, frazil_ingest.__main__, frazil.io.movies as m; m.formats(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
