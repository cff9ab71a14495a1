"""Time and fresh names, passed in so that tests decide them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass


def _token() -> str:
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where the scheduler's time and fresh names come from."""

    monotonic: Callable[[], float] = time.monotonic  # seconds; decides
    wall_ns: Callable[[], int] = time.time_ns  # for people to read; decides nothing
    token: Callable[[], str] = _token  # unique
