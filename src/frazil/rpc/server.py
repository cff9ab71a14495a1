"""One way to start a gRPC server: errors, health and reflection always on, SIGTERM drains it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.errors import ErrorInterceptor

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # without it a frozen peer is noticed only after 80 s
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.server.max_pending_requests", 20_000),  # the default sheds load with CANCELLED beyond 1000
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
)


@dataclass(slots=True)
class RunningServer:
    """A started server, its bound port and its health."""

    server: grpc.aio.Server
    port: int
    health: health.aio.HealthServicer

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Say NOT_SERVING, let running calls end, stop."""
        await self.health.enter_graceful_shutdown()
        await self.server.stop(grace_seconds)


async def start_server(
    adders: Sequence[Callable[[grpc.aio.Server], None]], service_names: Sequence[str], address: str
) -> RunningServer:
    """Start a server at `address` ("host:port"; port 0 takes a free one) with the servicers that `adders` add.

    Raises FrazilError ADDRESS_IN_USE when the port is taken.
    """
    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=SERVER_OPTIONS)
    for add in adders:
        add(server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise FrazilError(
            "ADDRESS_IN_USE",
            f"Cannot listen at {address}: another program uses the port; stop it or choose another.",
            kind=ErrorKind.CONFLICT,
        ) from error
    await server.start()
    for name in ("", *service_names):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    structlog.get_logger().info("server_started", address=address, port=port)
    return RunningServer(server, port, servicer)


async def until_signalled() -> None:
    """Return when SIGTERM or SIGINT arrives."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
