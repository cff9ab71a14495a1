"""FrazilError across the wire: google.rpc.Status with ErrorInfo, packed at one interceptor, unpacked in the client."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.failpoints import operation

DOMAIN = "frazil"

_CODE_OF_KIND = {
    ErrorKind.INVALID: code_pb2.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: code_pb2.NOT_FOUND,
    ErrorKind.ALREADY_EXISTS: code_pb2.ALREADY_EXISTS,
    ErrorKind.CONFLICT: code_pb2.ABORTED,
    ErrorKind.EXHAUSTED: code_pb2.RESOURCE_EXHAUSTED,
    ErrorKind.EXPIRED: code_pb2.OUT_OF_RANGE,
    ErrorKind.UNAVAILABLE: code_pb2.UNAVAILABLE,
    ErrorKind.INTERNAL: code_pb2.INTERNAL,
}
_KIND_OF_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorKind.INVALID,
    grpc.StatusCode.NOT_FOUND: ErrorKind.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ErrorKind.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED: ErrorKind.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorKind.EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE: ErrorKind.EXPIRED,
    grpc.StatusCode.UNAVAILABLE: ErrorKind.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorKind.UNAVAILABLE,
    grpc.StatusCode.CANCELLED: ErrorKind.UNAVAILABLE,  # by the server: it stops, or sheds load
}


def to_status(error: FrazilError) -> status_pb2.Status:
    """Pack an error into google.rpc.Status."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    return status_pb2.Status(code=_CODE_OF_KIND[error.kind], message=error.sentence, details=[detail])


def from_rpc_error(error: grpc.RpcError) -> FrazilError:
    """Unpack what a call raised into the same error the server raised; anything else becomes UNAVAILABLE or RPC_FAILED."""
    code: grpc.StatusCode = error.code()
    kind = _KIND_OF_STATUS.get(code, ErrorKind.INTERNAL)
    status = rpc_status.from_call(cast(grpc.Call, error))
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return FrazilError(info.reason, status.message, kind=kind, metadata=dict(info.metadata))
    reason = "SCHEDULER_UNREACHABLE" if kind is ErrorKind.UNAVAILABLE else "RPC_FAILED"
    return FrazilError(reason, error.details() or code.name, kind=kind)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns FrazilError into a rich status at the one edge, and logs what was not foreseen exactly once."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler, whatever its arity."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        make, behaviour = _arity(handler)
        method = handler_call_details.method
        wrapped = _guard_stream(behaviour, method) if handler.response_streaming else _guard_unary(behaviour, method)
        return make(wrapped, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer)


def _arity(handler: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler, handler.stream_stream
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


async def _abort(context: Any, error: Exception, method: str) -> NoReturn:
    if not isinstance(error, FrazilError):
        structlog.get_logger().error("rpc_failed", method=method, exc_info=error)
        error = FrazilError("INTERNAL", f"{method} failed inside the service; see its log", kind=ErrorKind.INTERNAL)
    await context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("abort_with_status does not return")


def _guard_unary(behaviour: Callable[..., Any], method: str) -> Callable[[Any, Any], Awaitable[Any]]:
    async def guarded(request: Any, context: Any) -> Any:
        operation.set(method.rpartition("/")[2])
        try:
            reply = behaviour(request, context)
            return await reply if inspect.isawaitable(reply) else reply
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 the one edge: every failure becomes a status
            await _abort(context, error, method)

    return guarded


def _guard_stream(behaviour: Callable[..., Any], method: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        operation.set(method.rpartition("/")[2])
        try:
            async for reply in behaviour(request, context):
                yield reply
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 the one edge: every failure becomes a status
            await _abort(context, error, method)

    return guarded
