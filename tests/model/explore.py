"""Breadth-first exploration of every interleaving of a small model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was found: the number of states, and the shortest trace to each kind of violation."""

    states: int
    complete: bool
    violations: dict[str, tuple[str, ...]]


def explore(
    start: State,
    moves: Callable[[State], Iterable[tuple[str, State]]],
    violations: Callable[[State], Iterable[str]],
    *,
    limit: int = 200_000,
    stop_at_first: bool = False,
) -> Exploration:
    """Visit every state that can be reached from `start`, shortest traces first; a bad state is not left again."""
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    frontier = deque([start])
    found: dict[str, tuple[str, ...]] = {}
    while frontier and len(came_from) < limit:
        state = frontier.popleft()
        bad = list(violations(state))
        for kind in bad:
            found.setdefault(kind, _trace(state, came_from))
        if bad and stop_at_first:
            break
        if bad:
            continue
        for name, after in moves(state):
            if after not in came_from:
                came_from[after] = (state, name)
                frontier.append(after)
    return Exploration(len(came_from), not frontier, found)


def _trace(state: State, came_from: dict[State, tuple[State, str] | None]) -> tuple[str, ...]:
    names: list[str] = []
    step = came_from[state]
    while step is not None:
        names.append(step[1])
        step = came_from[step[0]]
    return tuple(reversed(names))
