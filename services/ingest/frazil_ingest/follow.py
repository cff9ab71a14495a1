"""Following the running sessions: each has one task, with a thread of its own for a file system that may hang.

A session that is being completed gets no more movies, but those it has yet to work off may still change or vanish.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import structlog

from frazil.api.exposure.v1.exposure_pb2 import (
    Exposure,
    GetExposureRequest,
    ListExposuresRequest,
    RegisterExposuresRequest,
)
from frazil.api.exposure.v1.exposure_pb2_grpc import ExposureServiceStub
from frazil.api.session.v1.session_pb2 import ListSessionsRequest, ReportScanRequest, ScanStatus, Session
from frazil.api.session.v1.session_pb2_grpc import SessionServiceStub
from frazil.io.movie_check import MovieChecker
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.convert import metadata_to_message
from frazil.rpc.errors import from_rpc_error
from frazil.rpc.failpoints import failpoint
from frazil_ingest.scanner import MovieFound, SessionScanner
from frazil_ingest.settling import Patience

_CALL_SECONDS = 10.0
_REGISTER_SECONDS = 60.0
_BATCH = 200  # movies per stream: a batch that breaks is sent again, and changes nothing
_QUIET_FULL_SECONDS = 100.0  # after so long without change the sweeps are as rare as they get
_SWEEP_SHARE = 5.0  # at most 1/5 of the time goes into sweeping
_HUNG_SECONDS = 30.0
_RETRY_SECONDS = (1.0, 30.0)

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """`[ingest]` of frazil.toml, FRAZIL_INGEST_… in the environment, flags on the command line."""

    poll_seconds: float = 2.0  # how often the list of sessions is asked for
    sweep_min_seconds: float = 1.0
    sweep_max_seconds: float = 5.0
    settle_seconds: float = 3.0
    defect_after_seconds: float = 20.0
    companion_seconds: float = 15.0

    @property
    def patience(self) -> Patience:
        """How long files are waited for."""
        return Patience(
            settle_seconds=self.settle_seconds,
            defect_after_seconds=self.defect_after_seconds,
            companion_seconds=self.companion_seconds,
        )


class Ingest:
    """The service: follows every running session of one scheduler until it is cancelled."""

    def __init__(
        self, channel: grpc.aio.Channel, settings: IngestSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sessions: Any = SessionServiceStub(channel)
        self._exposures: Any = ExposureServiceStub(channel)
        self._settings = settings
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._followed: dict[str, tuple[int, bytes]] = {}  # state and parameters, by session
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Follow the sessions for ever."""
        said = ""
        try:
            while True:
                try:
                    self._follow([session async for session in self._running()])
                    said = ""
                except FrazilError as error:
                    if error.sentence != said:
                        said = error.sentence
                        self._log.warning("sessions_not_listed", reason=error.reason, sentence=error.sentence)
                await asyncio.sleep(self._settings.poll_seconds)
        finally:
            self._follow([])

    async def _running(self) -> AsyncIterator[Session]:
        token = ""
        while True:
            request = ListSessionsRequest(page_size=100, page_token=token)
            reply = await _asked(self._sessions.ListSessions(request, timeout=_CALL_SECONDS))
            for session in reply.sessions:
                if session.state in (Session.STATE_RUNNING, Session.STATE_COMPLETING):
                    yield session
            token = reply.next_page_token
            if not token:
                return

    def _follow(self, running: Sequence[Session]) -> None:
        """Start a task for every session that runs now, and end those of the others (and of those that have changed)."""
        wanted = {session.session_id: session for session in running}
        now = {
            key: (int(session.state), session.parameters.SerializeToString(deterministic=True))
            for key, session in wanted.items()
        }
        for session_id in [key for key in self._tasks if now.get(key) != self._followed[key]]:
            self._tasks.pop(session_id).cancel()
        for session_id, session in wanted.items():
            if session_id not in self._tasks:
                self._followed[session_id] = now[session_id]
                self._tasks[session_id] = asyncio.create_task(self._keep_scanning(session))

    # -------------------------------------------------------------------------------------------------------- a session
    async def _keep_scanning(self, session: Session) -> None:
        """Scan a session until cancelled; whatever breaks is said and begun again."""
        structlog.contextvars.bind_contextvars(session=session.name, session_id=session.session_id)
        low, high = _RETRY_SECONDS
        while True:
            try:
                await self._scan(session)
            except FrazilError as error:
                level = self._log.info if error.kind is ErrorKind.UNAVAILABLE else self._log.error
                level("session_not_scanned", reason=error.reason, sentence=error.sentence)
            except Exception as error:  # noqa: BLE001 one session's trouble must not end the others
                self._log.error("session_scan_broke", exc_info=error)
            await asyncio.sleep(random.uniform(low / 2, low))  # noqa: S311 jitter, not a secret
            low = min(high, low * 2)

    async def _scan(self, session: Session) -> None:
        checker = MovieChecker()
        scanner = SessionScanner(session.parameters, self._clock, self._settings.patience, checker.check)
        scanner.restore([exposure async for exposure in self._registered(session)])
        unsure = False  # whether the ledger may hold movies whose registration was not answered
        self._log.info("session_followed", folder=session.parameters.movie_folder)
        thread = ThreadPoolExecutor(1, "sweep")
        try:
            while True:
                started = self._clock()
                movies = await self._sweep(session, scanner, thread)
                spent = self._clock() - started
                try:
                    if unsure:
                        scanner.restore([exposure async for exposure in self._registered(session)])
                        unsure = False
                    await self._register(session, scanner, movies)
                    await self._report(session, scanner.status())
                except FrazilError as error:  # the scheduler is away: what it missed is found by the next sweep
                    if error.kind is not ErrorKind.UNAVAILABLE:
                        raise
                    unsure = True
                await asyncio.sleep(self.interval(scanner.status(), spent))
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
            checker.close()

    def interval(self, status: ScanStatus, sweep_seconds: float) -> float:
        """Return the seconds until the next sweep: short while movies arrive, longer in a quiet or a slow folder."""
        low, high = self._settings.sweep_min_seconds, self._settings.sweep_max_seconds
        if status.problem:
            return high
        quiet = 0.0 if status.files_settling else high * status.seconds_since_change / _QUIET_FULL_SECONDS
        return min(max(low, quiet), high) + _SWEEP_SHARE * sweep_seconds

    async def _sweep(self, session: Session, scanner: SessionScanner, thread: ThreadPoolExecutor) -> list[MovieFound]:
        """Sweep on the session's thread; a file system that hangs is reported while it hangs."""
        sweep = asyncio.get_running_loop().run_in_executor(thread, scanner.sweep)
        waited = 0.0
        while True:
            done, _ = await asyncio.wait([sweep], timeout=_HUNG_SECONDS)
            if done:
                return sweep.result()
            waited += _HUNG_SECONDS
            sentence = f"The movie folder has not answered for {waited:.0f} s: check its mount."
            await self._report(session, ScanStatus(problem=sentence))

    async def _registered(self, session: Session) -> AsyncIterator[Exposure]:
        token = ""
        while True:
            request = ListExposuresRequest(session=session.session_id, page_size=1000, page_token=token)
            reply = await _asked(self._exposures.ListExposures(request, timeout=_CALL_SECONDS))
            for exposure in reply.exposures:
                yield exposure
            token = reply.next_page_token
            if not token:
                return

    async def _register(self, session: Session, scanner: SessionScanner, movies: Sequence[MovieFound]) -> None:
        for start in range(0, len(movies), _BATCH):
            batch = movies[start : start + _BATCH]
            wanted = [movie for movie in batch if await self._is_wanted(session, scanner, movie)]
            if wanted:
                await self._register_batch(session, scanner, wanted)

    async def _register_batch(self, session: Session, scanner: SessionScanner, movies: Sequence[MovieFound]) -> None:
        """Send a batch on one stream; the replies come in order. What is refused or not answered is found again."""
        failpoint("ingest.RegisterExposures.before")
        requests = [
            RegisterExposuresRequest(
                session_id=session.session_id, file=movie.file, metadata=metadata_to_message(movie.metadata)
            )
            for movie in movies
        ]
        stream = self._exposures.RegisterExposures(iter(requests), timeout=_REGISTER_SECONDS)
        refusals = set()
        try:
            for movie in movies:
                reply = await stream.read()
                if reply is grpc.aio.EOF:
                    break
                if reply.refused:
                    refusals.add(reply.refused)
                else:
                    scanner.registered(movie, reply.exposure_id)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            stream.cancel()
        failpoint("ingest.RegisterExposures.after")
        for sentence in sorted(refusals):
            self._log.warning("movies_refused", sentence=sentence)

    async def _is_wanted(self, session: Session, scanner: SessionScanner, movie: MovieFound) -> bool:
        """Say whether a movie is to be registered now."""
        if movie.gone_exposure_id:
            return await self._still_waits(scanner, movie)
        if session.state == Session.STATE_RUNNING:
            return True
        exposure_id = scanner.exposure_id(movie)
        queued = (Exposure.STATE_READY, Exposure.STATE_RUNNING)
        return bool(exposure_id) and (await self._exposure(exposure_id)).state in queued

    async def _exposure(self, exposure_id: str) -> Exposure:
        request = GetExposureRequest(exposure_id=exposure_id)
        return await _asked(self._exposures.GetExposure(request, timeout=_CALL_SECONDS))

    async def _still_waits(self, scanner: SessionScanner, movie: MovieFound) -> bool:
        """Say whether a movie that is gone had not been taken up; one that is being processed is asked about again."""
        exposure = await self._exposure(movie.gone_exposure_id)
        if exposure.state in (Exposure.STATE_DONE, Exposure.STATE_QUARANTINED):
            scanner.registered(movie, exposure.exposure_id)
        if exposure.state == Exposure.STATE_QUARANTINED:
            scanner.may_be_retried(movie)
        return bool(exposure.state == Exposure.STATE_READY)

    async def _report(self, session: Session, status: ScanStatus) -> None:
        request = ReportScanRequest(session_id=session.session_id, scan=status)
        failpoint("ingest.ReportScan.before")
        await _asked(self._sessions.ReportScan(request, timeout=_CALL_SECONDS))
        failpoint("ingest.ReportScan.after")


async def _asked(call: Awaitable[Reply]) -> Reply:
    """Await a unary call; raises FrazilError."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
