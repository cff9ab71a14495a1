"""The one error type that crosses rooms and the wire: a stable reason and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class ErrorKind(Enum):
    """What sort of failure it is; each kind maps to one gRPC status code."""

    INVALID = "invalid"  # the caller must change the request
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    CONFLICT = "conflict"  # stale epoch, wrong state
    EXHAUSTED = "exhausted"  # disk full, quota, no slot
    EXPIRED = "expired"  # was kept, is no more
    UNAVAILABLE = "unavailable"  # try again later
    INTERNAL = "internal"


class FrazilError(Exception):
    """An error a person can act on.

    `reason` is stable UPPER_SNAKE for programs; `sentence` is one clear sentence for people that says what to do.
    """

    def __init__(
        self,
        reason: str,
        sentence: str,
        *,
        kind: ErrorKind = ErrorKind.INVALID,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.kind = kind
        self.metadata = dict(metadata or {})

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.reason, self.sentence, self.kind, self.metadata))


def _rebuild(reason: str, sentence: str, kind: ErrorKind, metadata: Mapping[str, str]) -> FrazilError:
    return FrazilError(reason, sentence, kind=kind, metadata=metadata)


class FailureClass(Enum):
    """Whose fault a failed attempt was; it decides whether it is tried again (docs/decisions/0004)."""

    INPUT = "input"  # the movie or its metadata is bad: quarantined at once
    RESOURCE = "resource"  # out of memory: once more, smaller
    CRASH = "crash"  # the worker died: tried again, at most three times
    INFRA = "infra"  # node lost, disk full, source unreachable: never counts against the exposure


class InputError(FrazilError):
    """The movie, gain or metadata itself is unusable; retrying cannot help."""


class DiskFullError(FrazilError):
    """The output disk is full; the attempt does not count and is tried again when there is room."""
