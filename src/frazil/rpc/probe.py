"""`python -m frazil.rpc.probe HOST:PORT`: exit 0 when the gRPC health service there says SERVING; for container checks."""

from __future__ import annotations

import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def is_serving(address: str, *, timeout_seconds: float = 4.0) -> bool:
    """Say whether the server at `address` answers SERVING within the time."""
    with grpc.insecure_channel(address) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if is_serving(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051") else 1)
