"""Automatic alternation on few GPUs: which job of a session is to give its slot to which other, a pure function of the session.

A streaming job that has something new to work on is due once it has waited for the interval, or at once while preprocessing
has nothing to do. Preprocessing is due as soon as exposures wait and no worker runs. A slot changes hands for the job that has
waited longest, from the job that can best do without: one that is up to date, an idle worker, one worker of several, a
streaming job whose turn is over, and only for a due streaming job the last worker. Nobody gives up before the shortest turn,
except a streaming job that is up to date. So preprocessing always gets its slot back: a streaming job's turn lasts half an
interval once it has brought something, and a whole one at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """A job that takes turns: a preprocessing worker or a streaming job."""

    job_id: str
    streams: bool
    runs: bool
    since: float  # seconds; when it began to run, or to wait
    updated: float = 0.0  # seconds; when it last saved or published
    has_input: bool = False  # a streaming job: there are particles that it has not taken in
    could_use: frozenset[str] = frozenset()  # running jobs whose slots it could use


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast turns change, seconds."""

    interval: float  # that a streaming job waits at most while there is something new for it
    turn_min: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One job gives its slot to another."""

    gives: str
    takes: str


class _Ease(IntEnum):
    """How easily a running job can do without its slot."""

    UP_TO_DATE = 0
    IDLE_WORKER = 1
    ONE_OF_SEVERAL = 2
    TURN_OVER = 3
    LAST_WORKER = 4


def next_turn(players: Sequence[Player], backlog: int, now: float, pace: Pace) -> Turn | None:
    """Return the next change of hands, or None; `backlog` is the number of exposures that wait or are being processed."""
    for taker in sorted(_due(players, backlog, now, pace), key=lambda player: (player.since, player.job_id)):
        givers = [
            (ease, giver.job_id)
            for giver in players
            if giver.job_id in taker.could_use and (ease := _ease(giver, players, backlog, now, pace)) is not None
            if ease <= _hardest(taker, players)
        ]
        if givers:
            return Turn(min(givers)[1], taker.job_id)
    return None


def _due(players: Sequence[Player], backlog: int, now: float, pace: Pace) -> list[Player]:
    waiting = [player for player in players if not player.runs]
    return [
        player
        for player in waiting
        if (player.has_input and (backlog == 0 or now - player.since >= pace.interval) if player.streams else backlog > 0)
    ]


def _hardest(taker: Player, players: Sequence[Player]) -> _Ease:
    """Return from whom a job may take a slot at most."""
    if taker.streams:
        return _Ease.LAST_WORKER
    return _Ease.UP_TO_DATE if _workers(players) else _Ease.TURN_OVER


def _ease(player: Player, players: Sequence[Player], backlog: int, now: float, pace: Pace) -> _Ease | None:
    """Return how easily a running job can do without its slot; None: it cannot yet."""
    if not player.runs:
        return None
    ran = now - player.since
    if player.streams:
        if not player.has_input:
            return _Ease.UP_TO_DATE
        enough = max(pace.turn_min, pace.interval / 2 if player.updated > player.since else pace.interval)
        return _Ease.TURN_OVER if ran >= enough else None
    if ran < pace.turn_min:
        return None
    if backlog == 0:
        return _Ease.IDLE_WORKER
    return _Ease.ONE_OF_SEVERAL if _workers(players) > 1 else _Ease.LAST_WORKER


def _workers(players: Sequence[Player]) -> int:
    return sum(player.runs and not player.streams for player in players)
