"""Optics groups of a session: movies taken with the same beam tilt, told by their names and their beam shifts.

With aberration-free image shift (AFIS, multi-shot) the beam is tilted differently at each place of the pattern around a stage
position, and higher-order aberrations are refined per place. EPU names the place of a shot within a hole in the file name,
SerialEM the hole and the shot; the hole within the pattern shows in the beam shift, which repeats from one stage position to
the next.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

EPU_RADIUS, SERIALEM_RADIUS_UM = 0.05, 0.7
"""How far from their mean beam shifts of one group lie: EPU's in its own unit, SerialEM's in µm (holes are 2 to 5 apart)."""

_TOKENS = (
    re.compile(r"_Data_(\d+)_"),  # EPU: the template of the shot within the hole
    re.compile(r"_(X[+-]\d+Y[+-]\d+-\d+)(?=[_.]|$)"),  # SerialEM, multi-shot: hole and shot
)


def name_token(movie_name: str) -> str:
    """Return what a movie's name says of its place in the pattern of shots; empty when it says nothing."""
    for pattern in _TOKENS:
        found = pattern.findall(movie_name)
        if found:
            return str(found[-1])
    return ""


@dataclass(slots=True)
class _Cluster:
    """Beam shifts that belong together, around their mean."""

    number: int
    count: int
    x: float
    y: float

    def distance(self, shift: tuple[float, float]) -> float:
        return math.hypot(shift[0] - self.x, shift[1] - self.y)

    def take(self, shift: tuple[float, float]) -> None:
        self.count += 1
        self.x += (shift[0] - self.x) / self.count
        self.y += (shift[1] - self.y) / self.count


@dataclass(slots=True)
class OpticsGroups:
    """Gives every movie the number of its optics group, from 1, as the movies come in; a number once given stays.

    A movie joins the nearest group of its name's token whose mean beam shift is within `radius`, else it founds one. Movies
    asked about in the same order get the same numbers, so that a restart need only go through a session's exposures again.
    """

    radius: float = EPU_RADIUS
    _clusters: dict[str, list[_Cluster]] = field(default_factory=dict)
    _count: int = 0

    def assign(self, movie_name: str, beam_shift: tuple[float | None, float | None] = (None, None)) -> int:
        """Return the group of one more movie; one without a beam shift is told by its name alone."""
        token = name_token(movie_name)
        x, y = beam_shift
        if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
            return self._found(f"{token} without shift", (0.0, 0.0), math.inf).number
        cluster = self._found(token, (x, y), self.radius)
        cluster.take((x, y))
        return cluster.number

    def _found(self, token: str, shift: tuple[float, float], radius: float) -> _Cluster:
        clusters = self._clusters.setdefault(token, [])
        nearest = min(clusters, key=lambda one: one.distance(shift), default=None)
        if nearest is None or nearest.distance(shift) > radius:
            self._count += 1
            nearest = _Cluster(self._count, 0, *shift)
            clusters.append(nearest)
        return nearest


def optics_groups(
    movies: Sequence[tuple[str, tuple[float | None, float | None]]], radius: float = EPU_RADIUS
) -> tuple[int, ...]:
    """Return the group of each movie, given as its name and its beam shift (x, y), in order of registration."""
    groups = OpticsGroups(radius)
    return tuple(groups.assign(name, shift) for name, shift in movies)
