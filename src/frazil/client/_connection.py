"""A connection to one scheduler, and calls that are repeated until it answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from frazil.api.event.v1.event_pb2_grpc import EventServiceStub
from frazil.api.exposure.v1.exposure_pb2_grpc import ExposureServiceStub
from frazil.api.reconstruction.v1.reconstruction_pb2_grpc import ReconstructionServiceStub
from frazil.api.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from frazil.api.session.v1.session_pb2_grpc import SessionServiceStub
from frazil.rpc.client import call_until_answered, new_request_id, open_channel

DEFAULT_ADDRESS = "127.0.0.1:50051"

Reply = TypeVar("Reply")


class Connection:
    """Channel, stubs, patience."""

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, deadline_seconds: float = 30.0, patience_seconds: float = 30.0
    ) -> None:
        """Connect lazily to `address` ("host:port").

        `deadline_seconds` bounds one call; `patience_seconds` is how long an unreachable scheduler is asked again
        before SCHEDULER_UNREACHABLE is raised.
        """
        self.address = address
        self._deadline_seconds = deadline_seconds
        self._patience_seconds = patience_seconds
        self._closed = False
        self._channel = open_channel(address)
        self._sessions = SessionServiceStub(self._channel)
        self._exposures = ExposureServiceStub(self._channel)
        self._reconstruction = ReconstructionServiceStub(self._channel)
        self._scheduler = SchedulerServiceStub(self._channel)
        self._events = EventServiceStub(self._channel)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; running event streams end."""
        self._closed = True
        self._channel.close()

    def _call(self, method: Callable[..., Reply], request: Any) -> Reply:
        give_up_at = time.monotonic() + self._patience_seconds
        return call_until_answered(
            method, request, deadline_seconds=self._deadline_seconds, give_up=lambda: time.monotonic() >= give_up_at
        )

    def _change(self, method: Callable[..., Reply], request: Any) -> Reply:
        """Call a method that changes something: repeats carry one request id, so that nothing happens twice."""
        request.request_id = request.request_id or new_request_id()
        return self._call(method, request)
