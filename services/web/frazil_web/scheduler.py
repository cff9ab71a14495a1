"""The scheduler as the page's service sees it: asyncio stubs, calls that raise FrazilError, and the newest event's number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc

from frazil.api.event.v1.event_pb2 import WatchEventsRequest
from frazil.api.event.v1.event_pb2_grpc import EventServiceStub
from frazil.api.exposure.v1.exposure_pb2 import Exposure, GetExposureRequest, ListExposuresRequest
from frazil.api.exposure.v1.exposure_pb2_grpc import ExposureServiceStub
from frazil.api.reconstruction.v1.reconstruction_pb2 import (
    ClassAverages,
    GetClassAveragesRequest,
    GetVolumeRequest,
    Volume,
)
from frazil.api.reconstruction.v1.reconstruction_pb2_grpc import ReconstructionServiceStub
from frazil.api.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from frazil.api.session.v1.session_pb2 import GetSessionRequest, ListSessionsRequest, Session
from frazil.api.session.v1.session_pb2_grpc import SessionServiceStub
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.client import open_aio_channel
from frazil.rpc.errors import from_rpc_error

_DEADLINE_SECONDS = 5.0
_EXPOSURE_PAGE = 500  # an exposure is about 1.5 kB: far below the 4 MB of one message
_FOLDERS_REMEMBERED = 1000

Reply = TypeVar("Reply")


class EventCall(Protocol):
    """A running WatchEvents call."""

    async def read(self) -> Any:
        """Return the next response, or grpc.aio.EOF."""
        ...

    def cancel(self) -> bool:
        """End the call."""
        ...


class Scheduler:
    """A lazily connected client of one scheduler; holds no truth."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = open_aio_channel(address)
        self.sessions: Any = SessionServiceStub(self._channel)
        self.exposures: Any = ExposureServiceStub(self._channel)
        self.reconstruction: Any = ReconstructionServiceStub(self._channel)
        self.resources: Any = SchedulerServiceStub(self._channel)
        self._events: Any = EventServiceStub(self._channel)
        self._newest_hint = 0
        self._folders: dict[str, str] = {}

    async def close(self) -> None:
        """Close the connection; running calls end."""
        await self._channel.close()

    def reachable(self) -> bool:
        """Say whether the connection stands or is being made, without asking the scheduler."""
        return self._channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def ask(self, method: Callable[..., Awaitable[Reply]], request: object) -> Reply:
        """Make one unary call; raises FrazilError, SCHEDULER_UNREACHABLE when nobody answers."""
        try:
            return await method(request, timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error

    def _translated(self, error: grpc.aio.AioRpcError) -> FrazilError:
        """Return the scheduler's own error, or one that names the address instead of gRPC's inner details."""
        translated = from_rpc_error(error)
        if translated.reason != "SCHEDULER_UNREACHABLE":
            return translated
        sentence = f"The scheduler at {self.address} does not answer; this page goes on by itself once it does."
        return FrazilError("SCHEDULER_UNREACHABLE", sentence, kind=ErrorKind.UNAVAILABLE)

    # ------------------------------------------------------------------------------------------------------- sessions
    async def session(self, session: str) -> Session:
        """Return one session by identity or name."""
        found: Session = await self.ask(self.sessions.GetSession, GetSessionRequest(session=session))
        return found

    async def session_list(self) -> list[Session]:
        """Return every session, newest first."""
        found: list[Session] = []
        token = ""
        while True:
            reply: Any = await self.ask(self.sessions.ListSessions, ListSessionsRequest(page_size=500, page_token=token))
            found.extend(reply.sessions)
            token = reply.next_page_token
            if not token:
                return found

    async def session_folder(self, session_id: str) -> str:
        """Return the absolute folder of a session; it never changes, so it is asked for once."""
        if session_id not in self._folders:
            folder = (await self.session(session_id)).folder
            if len(self._folders) >= _FOLDERS_REMEMBERED:
                self._folders.clear()
            self._folders[session_id] = folder
        return self._folders[session_id]

    # -------------------------------------------------------------------------------------------- exposures and classes
    async def exposure(self, exposure_id: str) -> Exposure:
        """Return one exposure by identity."""
        found: Exposure = await self.ask(self.exposures.GetExposure, GetExposureRequest(exposure_id=exposure_id))
        return found

    async def exposure_pages(self, session: str) -> AsyncIterator[list[Exposure]]:
        """Yield a session's exposures page by page, in order of their number."""
        token = ""
        while True:
            request = ListExposuresRequest(session=session, page_size=_EXPOSURE_PAGE, page_token=token)
            reply: Any = await self.ask(self.exposures.ListExposures, request)
            yield list(reply.exposures)
            token = reply.next_page_token
            if not token:
                return

    async def class_averages(self, session: str) -> ClassAverages | None:
        """Return the newest classification of a known session, or None before the first."""
        try:
            found: ClassAverages = await self.ask(
                self.reconstruction.GetClassAverages, GetClassAveragesRequest(session=session)
            )
        except FrazilError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None
        return found

    async def volume(self, session: str) -> Volume | None:
        """Return the newest volume of a known session, or None before the first."""
        try:
            found: Volume = await self.ask(self.reconstruction.GetVolume, GetVolumeRequest(session=session))
        except FrazilError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None
        return found

    # --------------------------------------------------------------------------------------------------------- events
    def watch(self, session: str, after: int, *, until_now: bool = False) -> EventCall:
        """Start a WatchEvents call; reading it raises grpc.aio.AioRpcError."""
        request = WatchEventsRequest(after_sequence=after, session=session, until_now=until_now)
        call: EventCall = self._events.WatchEvents(request, timeout=_DEADLINE_SECONDS if until_now else None)
        return call

    def stream_error(self, error: grpc.aio.AioRpcError) -> FrazilError:
        """Return what ended an event stream as a FrazilError."""
        return self._translated(error)

    async def event_after(self, sequence: int) -> int | None:
        """Return the number of the first event after `sequence`, or None when there is none yet."""
        call = self.watch("", sequence, until_now=True)
        try:
            while True:
                response = await call.read()
                if response is grpc.aio.EOF:
                    return None
                for event in response.events:  # none in a heartbeat
                    if event.sequence > sequence:
                        return int(event.sequence)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        finally:
            call.cancel()

    async def newest_sequence(self) -> int:
        """Return the number of the newest event.

        The contract has no call for it, so it is searched: gallop from the number known last, then halve. Each step reads
        one event; a page opened on a ledger of millions of events costs some 40 calls the first time and a handful later.
        """
        try:
            self._newest_hint = await search_newest(self.event_after, self._newest_hint)
        except FrazilError as error:
            if error.kind is not ErrorKind.EXPIRED:
                raise
            self._newest_hint = await search_newest(self.event_after, 0)  # the hint was older than what is kept
        return self._newest_hint


async def search_newest(event_after: Callable[[int], Awaitable[int | None]], hint: int) -> int:
    """Return the newest sequence by asking `event_after`; `hint` is a guess that may be too small or too large."""
    newest, step = 0, 1
    following = await event_after(hint)
    if following is None:
        nothing_after = hint
    else:
        newest = following
        while (following := await event_after(newest + step)) is not None:
            newest, step = following, step * 2
        nothing_after = newest + step
    while newest < nothing_after:
        middle = (newest + nothing_after) // 2
        following = await event_after(middle)
        if following is None:
            nothing_after = middle
        else:
            newest = following
    return newest
