"""Client channels, and calls that retry what may be retried and raise FrazilError."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.errors import from_rpc_error

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
)

Reply = TypeVar("Reply")


def open_channel(address: str) -> grpc.Channel:
    """Return a blocking channel to `address` ("host:port")."""
    return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)


def open_aio_channel(address: str) -> grpc.aio.Channel:
    """Return an asyncio channel to `address` ("host:port")."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def new_request_id() -> str:
    """Return a fresh request id; keep it over retries of the same request."""
    return uuid.uuid4().hex


def call(method: Callable[..., Reply], request: Any, *, deadline_seconds: float = 5.0) -> Reply:
    """Make one unary call; raises FrazilError."""
    try:
        return method(request, timeout=deadline_seconds)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def call_until_answered(
    method: Callable[..., Reply],
    request: Any,
    *,
    deadline_seconds: float = 30.0,
    give_up: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> Reply:
    """Repeat an idempotent unary call while the scheduler is unreachable, with full jitter between 0.2 s and 5 s.

    The request must carry a request_id or be a read. Raises FrazilError for every answer that is an error, and
    SCHEDULER_UNREACHABLE once `give_up()` says so.
    """
    ceiling = 0.2
    while True:
        try:
            return call(method, request, deadline_seconds=deadline_seconds)
        except FrazilError as error:
            if error.kind is not ErrorKind.UNAVAILABLE or give_up():
                raise
        sleep(random.uniform(0.1, ceiling))  # noqa: S311 jitter, not a secret
        ceiling = min(5.0, ceiling * 2)
