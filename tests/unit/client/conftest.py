"""A scheduler with a scripted event log and canned answers, in this process, that can be cut and restarted on its port."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from frazil.api.event.v1 import event_pb2, event_pb2_grpc
from frazil.api.exposure.v1 import exposure_pb2, exposure_pb2_grpc
from frazil.api.reconstruction.v1 import reconstruction_pb2, reconstruction_pb2_grpc
from frazil.api.session.v1 import session_pb2, session_pb2_grpc


class FakeLedger(
    event_pb2_grpc.EventServiceServicer,
    exposure_pb2_grpc.ExposureServiceServicer,
    session_pb2_grpc.SessionServiceServicer,
    reconstruction_pb2_grpc.ReconstructionServiceServicer,
):
    """Holds events 1..n, sends at most `cut_after` of them per stream and then breaks it in the way `cut` says."""

    def __init__(self) -> None:
        self.event_count = 0
        self.cut_after = 10**9
        self.cut: grpc.StatusCode | None = None  # None ends the stream as if all were well
        self.asked_after: list[int] = []
        self.request_ids: list[str] = []
        self.unavailable_answers = 0
        self.exposure_count = 0
        self.exposure_pages = 0

    def WatchEvents(self, request: Any, context: Any) -> Iterator[event_pb2.WatchEventsResponse]:
        self.asked_after.append(request.after_sequence)
        yield event_pb2.WatchEventsResponse()  # a heartbeat
        sent = 0
        for sequence in range(request.after_sequence, self.event_count + 1):  # begins one too early: a duplicate
            if sequence == 0:
                continue
            if sent > self.cut_after:
                if self.cut is not None:
                    context.abort(self.cut, "cut")
                return
            sent += 1
            yield event_pb2.WatchEventsResponse(events=[event_pb2.Event(sequence=sequence, kind="exposure_done")])

    def CreateSession(self, request: Any, context: Any) -> session_pb2.Session:
        self.request_ids.append(request.request_id)
        if self.unavailable_answers:
            self.unavailable_answers -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return session_pb2.Session(session_id="s1", name=request.session.name, parameters=request.session.parameters)

    def GetSession(self, request: Any, context: Any) -> session_pb2.Session:
        if request.session != "known":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no session {request.session}")
        return session_pb2.Session(session_id="s1", name="known")

    def ListExposures(self, request: Any, context: Any) -> exposure_pb2.ListExposuresResponse:
        self.exposure_pages += 1
        start = int(request.page_token or 0)
        end = min(start + request.page_size, self.exposure_count)
        page = [exposure_pb2.Exposure(number=number + 1) for number in range(start, end)]
        return exposure_pb2.ListExposuresResponse(exposures=page, next_page_token=str(end) if end < self.exposure_count else "")

    def GetClassAverages(self, request: Any, context: Any) -> reconstruction_pb2.ClassAverages:
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing published")
        raise AssertionError("abort raises")


class FakeScheduler:
    """The fake ledger behind a real port."""

    def __init__(self) -> None:
        self.ledger = FakeLedger()
        self.port = 0
        self._server: grpc.Server | None = None
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
        event_pb2_grpc.add_EventServiceServicer_to_server(self.ledger, self._server)
        exposure_pb2_grpc.add_ExposureServiceServicer_to_server(self.ledger, self._server)
        session_pb2_grpc.add_SessionServiceServicer_to_server(self.ledger, self._server)
        reconstruction_pb2_grpc.add_ReconstructionServiceServicer_to_server(self.ledger, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        """Cut every connection."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture
def scheduler() -> Iterator[FakeScheduler]:
    fake = FakeScheduler()
    yield fake
    fake.stop()
