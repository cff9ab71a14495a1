"""The event log as server-sent events: batches that carry the resume token, heartbeats, and the scheduler's own outages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from frazil.api.event.v1.event_pb2 import Event, WatchEventsResponse
from frazil.model.errors import ErrorKind, FrazilError
from frazil_web.records import epoch_seconds, exposure_summary, to_json
from frazil_web.scheduler import EventCall, Scheduler

# The page's word for each body of an event. Particle blocks are not shown; exposures and classes tell the same.
TYPE_OF_BODY = {
    "session": "session",
    "exposure": "exposure",
    "class_averages": "classes",
    "volume": "volume",
    "job": "job",
    "node": "node",
    "notice": "notice",
}
_GOES_ON = {ErrorKind.UNAVAILABLE, ErrorKind.EXHAUSTED}  # cut by a restart, the network or an overflow of the queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a stream is timed, in seconds."""

    gather: float = 0.1  # events of so long travel together
    most_events: int = 1000  # and no more once there are so many
    heartbeat: float = 10.0
    silence: float = 30.0  # the scheduler sends a heartbeat every 10 s: after so long it hangs
    retry: float = 0.5
    retry_most: float = 5.0


async def event_stream(
    scheduler: Scheduler,
    session: str,
    after: int,
    *,
    types: Collection[str],
    clock: Callable[[], float],
    pace: Pace = Pace(),
) -> AsyncIterator[bytes]:
    """Yield server-sent events for the events after `after`, for ever.

    `batch`: events in order, its id is the sequence to resume after. `heartbeat`: the same id and the time. `outage`: the
    scheduler does not answer; `recovered`: it does again. `reset`: `after` lies beyond the log, as after a new ledger, or
    before what is kept of it: take a new snapshot. `gone`: the session is not known; the stream ends. No event is lost or
    repeated over an outage.
    """
    yield b"retry: 1000\n\n"
    wait, outage = pace.retry, False
    while True:
        call: EventCall | None = None
        try:
            known = await scheduler.event_after(max(0, after - 1))
            if after > 0 and known is None:
                yield _message("reset", after, {"time": clock()})
                return
            yield _message("recovered" if outage else "heartbeat", after, {"time": clock()})
            outage = False
            call = scheduler.watch(session, after)
            async for batch in _batches(call, pace):
                wait = pace.retry
                if not batch:
                    yield _message("heartbeat", after, {"time": clock()})
                fresh = [event for event in batch if event.sequence > after]
                if fresh:
                    after = fresh[-1].sequence
                    records = [event_json(event) for event in fresh if _type_of(event) in types]
                    yield _message("batch", after, {"time": clock(), "events": records})
            raise FrazilError("STREAM_ENDED", "The scheduler ended the event stream.", kind=ErrorKind.UNAVAILABLE)
        except (grpc.aio.AioRpcError, FrazilError) as caught:
            error = scheduler.stream_error(caught) if isinstance(caught, grpc.aio.AioRpcError) else caught
            if error.kind not in _GOES_ON:
                structlog.get_logger().warning("event_stream_refused", session=session, reason=error.reason)
                yield _last_word(error, after, clock())
                return
            if error.reason == "SCHEDULER_UNREACHABLE" and not outage:
                outage = True
                yield _message("outage", after, {"time": clock(), "sentence": error.sentence})
        finally:
            if call is not None:
                call.cancel()
        await asyncio.sleep(wait)
        wait = min(pace.retry_most, wait * 2)


async def until_closing(stream: AsyncIterator[bytes], closing: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield what a stream yields until it ends or the service is about to stop."""
    ending = asyncio.ensure_future(closing.wait())
    step: asyncio.Future[bytes] | None = None
    try:
        while not closing.is_set():
            step = asyncio.ensure_future(anext(stream))
            await asyncio.wait({step, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                return
            if isinstance(step.exception(), StopAsyncIteration):
                return
            yield step.result()
    finally:
        ending.cancel()
        if step is not None:
            step.cancel()


def event_json(event: Event) -> dict[str, Any]:
    """Return an event for the page: exposures in short, everything else whole."""
    body = event.WhichOneof("body")
    record: dict[str, Any] | None = None
    if body == "exposure":
        record = exposure_summary(event.exposure)
    elif body is not None:
        record = to_json(getattr(event, body))
    return {
        "sequence": event.sequence,
        "time": epoch_seconds(event.time),
        "session_id": event.session_id,
        "kind": event.kind,
        "type": _type_of(event),
        "record": record,
    }


def _type_of(event: Event) -> str:
    return TYPE_OF_BODY.get(event.WhichOneof("body") or "", "")


def _last_word(error: FrazilError, after: int, now: float) -> bytes:
    if error.kind is ErrorKind.EXPIRED:
        return _message("reset", after, {"time": now})
    return _message("gone", after, {"reason": error.reason, "sentence": error.sentence})


def _message(kind: str, sequence: int, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return f"event: {kind}\nid: {sequence}\ndata: {text}\n\n".encode()


async def _batches(call: EventCall, pace: Pace) -> AsyncIterator[list[Event]]:
    """Yield what arrives within `gather` as one list, and an empty one when nothing came for a heartbeat's time.

    Ends when the stream ends; raises SCHEDULER_UNREACHABLE when the scheduler is silent, and what the call raises.
    """
    loop = asyncio.get_running_loop()
    reading = asyncio.ensure_future(call.read())
    heard = loop.time()
    try:
        while True:
            done, _ = await asyncio.wait({reading}, timeout=pace.heartbeat)
            if not done:
                if loop.time() - heard >= pace.silence:
                    raise FrazilError("SCHEDULER_UNREACHABLE", "The scheduler is silent.", kind=ErrorKind.UNAVAILABLE)
                yield []
                continue
            heard = loop.time()
            replies: list[WatchEventsResponse] = []  # one without events is the scheduler's own heartbeat
            until = heard + pace.gather
            while done and sum(len(reply.events) for reply in replies) < pace.most_events and not _is_over(reading):
                replies.append(reading.result())
                reading = asyncio.ensure_future(call.read())
                done, _ = await asyncio.wait({reading}, timeout=max(0.0, until - loop.time()))
            if replies:
                yield [event for reply in replies for event in reply.events]
            if done and _is_over(reading) and reading.result() is grpc.aio.EOF:
                return
    finally:
        if not reading.cancel() and not reading.cancelled():
            reading.exception()  # looked at, so that asyncio does not complain that nobody did


def _is_over(reading: asyncio.Future[Any]) -> bool:
    """Say whether a finished read found the end or an error."""
    return reading.exception() is not None or reading.result() is grpc.aio.EOF
