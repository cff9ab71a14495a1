"""When a worker lives but makes no progress: a pure function of times. What progress is, the ledger says.

It is flagged first. Past its job type's limit it is killed and starts anew under the next epoch, at most so many times: a job
that never gets further would hold its slot for nothing. A worker that has worked for longer than the limit is believed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

FLAG_SECONDS = 600.0  # without progress
RESTARTS_MAX = 2  # in a row


class Verdict(Enum):
    """What is to be done about a running worker."""

    NOTHING = "NOTHING"
    FLAG = "FLAG"
    RESTART = "RESTART"
    GIVE_UP = "GIVE_UP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A running worker that has something to do."""

    moved: float  # seconds; when it last made progress, or had nothing to do
    limit: float  # seconds that its job type may go without
    restarts: int  # of its job for want of progress, in a row


def judge(watched: Watched, now: float) -> Verdict:
    """Say what is to be done about a worker."""
    still = now - watched.moved
    if still < min(FLAG_SECONDS, watched.limit):
        return Verdict.NOTHING
    if still < watched.limit:
        return Verdict.FLAG
    return Verdict.RESTART if watched.restarts < RESTARTS_MAX else Verdict.GIVE_UP


def believed_again(began: float, limit: float, now: float) -> bool:
    """Tell whether a worker that makes progress now has worked for so long that earlier restarts do not count."""
    return now - began >= limit
