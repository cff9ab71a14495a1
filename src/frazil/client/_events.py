"""The resumable event stream."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import grpc

from frazil.api.event.v1.event_pb2 import Event, WatchEventsRequest
from frazil.client._connection import Connection
from frazil.rpc.errors import from_rpc_error

_EVENT_BACKOFF_SECONDS = (0.2, 5.0)
# A stream that ends so was cut by the network, a restart or an overflow of its queue: it goes on at the resume token.
_RESUMABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


class EventCalls(Connection):
    """The event stream."""

    def events(
        self,
        session: str = "",
        *,
        after: int = 0,
        until_now: bool = False,
        patience_seconds: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[Event]:
        """Yield events after a sequence number, then go on live; every event once, in order, over any disconnect.

        The `sequence` of the last event that you have dealt with is the resume token: store it, pass it as `after` next
        time. `until_now` ends at the newest event. An unreachable scheduler is asked again for `patience_seconds`
        without a sign of life (None: for ever). Close the generator to stop.

        Raises FrazilError EVENTS_FORGOTTEN when events after `after` are no longer kept: read the records anew, then follow
        after `int(error.metadata["newest_sequence"])`. `after=0` begins with the oldest that is kept.
        """
        backoff, ceiling = _EVENT_BACKOFF_SECONDS
        wait, silent_since = backoff, time.monotonic()
        while True:
            request = WatchEventsRequest(after_sequence=after, session=session, until_now=until_now)
            stream = self._events.WatchEvents(request)
            try:
                for response in stream:
                    wait, silent_since = backoff, time.monotonic()
                    for event in response.events:  # none in a heartbeat
                        if event.sequence > after:
                            yield event
                            after = event.sequence
                if until_now:
                    return
            except grpc.RpcError as error:
                if self._closed:
                    return
                silent = time.monotonic() - silent_since
                if error.code() not in _RESUMABLE or (patience_seconds is not None and silent > patience_seconds):
                    raise from_rpc_error(error) from error
            finally:
                stream.cancel()
            sleep(random.uniform(wait / 2, wait))  # noqa: S311 jitter, not a secret
            wait = min(ceiling, wait * 2)
