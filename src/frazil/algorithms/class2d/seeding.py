"""How classes begin: from random members, or from a part of the biggest class (recipe: class2d 3.2, 3.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.class2d.grid import PADDING, Grid
from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.class2d.state import Class2dState, ClassStatistics, ParticleTable
from frazil.algorithms.class2d.transforms import shift_phases
from frazil.array import namespace
from frazil.kernels.scatter import Rows, scatter_rotated

_MEMBERS = 30
_SPLIT_SHARE = 4  # one in four members of the biggest class begins a new one
_SPLIT_MEMBERS = (10, 80)


@dataclass(frozen=True, slots=True)
class Seeds:
    """Particles that begin classes: rows of the particle table, the class of each, and the angle to lay it down at."""

    positions: np.ndarray[Any, Any]
    classes: np.ndarray[Any, Any]
    angles: np.ndarray[Any, Any]


def first_classes(
    state: Class2dState,
    grid: Grid,
    images: ParticleImages,
    class_count: int,
    radius: float,
    random: np.random.Generator,
) -> None:
    """Begin every class with 30 random particles at random angles, as if they stood for all."""
    live = state.live()
    members = min(_MEMBERS, live.size)
    chosen = [random.choice(live, members, replace=False) for _ in range(class_count)]
    seeds = Seeds(
        np.concatenate(chosen),
        np.repeat(np.arange(class_count), members),
        random.uniform(0, 2 * np.pi, class_count * members),
    )
    numerator, denominator = _lay_down(state, grid, images, seeds, class_count, radius)
    share = live.size / (class_count * members)
    weight = np.full(class_count, live.size / class_count)
    state.classes = ClassStatistics(numerator * share, denominator * share, weight)
    state.bias = np.zeros(class_count, np.float32)
    state.restarts = np.zeros(class_count, np.int32)


def restart_starving(
    state: Class2dState,
    grid: Grid,
    images: ParticleImages,
    threshold: float,
    radius: float,
    random: np.random.Generator,
) -> int:
    """Let every class below `threshold` of the mean size begin anew from the biggest class; return how many did."""
    mean = state.classes.weight.mean()
    restarted = 0
    for starving in np.flatnonzero(state.classes.weight < threshold * mean):
        if split_biggest(state, grid, images, int(starving), radius, random):
            state.restarts[starving] += 1
            restarted += 1
    return restarted


def grow(
    state: Class2dState,
    grid: Grid,
    images: ParticleImages,
    target: int,
    radius: float,
    random: np.random.Generator,
) -> None:
    """Add classes up to `target`, each split off the biggest one; fewer if no class is big enough."""
    while state.class_count < target:
        new = state.class_count
        _append_empty(state)
        if not split_biggest(state, grid, images, new, radius, random):
            _drop_last(state)
            return


def split_biggest(
    state: Class2dState,
    grid: Grid,
    images: ParticleImages,
    new: int,
    radius: float,
    random: np.random.Generator,
) -> bool:
    """Give class `new` half the weight of the biggest class and the average of some of its members; False: too few.

    Every other class begins from the members that fit worst instead of random ones: broken particles and junk would else
    stay spread over good classes (measured: 76 % against 61 % of the junk ends in classes of its own).
    """
    weight = state.classes.weight
    biggest = int(weight.argmax())
    live = state.live()
    members = live[state.particles.class_index[live] == biggest]
    if members.size < _SPLIT_MEMBERS[0] or biggest == new:
        return False
    count = int(np.clip(members.size // _SPLIT_SHARE, *_SPLIT_MEMBERS))
    if new % 2:
        chosen = members[np.argsort(state.particles.log_likelihood[members], kind="stable")[:count]]
    else:
        chosen = random.choice(members, count, replace=False)
    seeds = Seeds(chosen, np.zeros(count, np.int64), state.particles.psi[chosen].astype(np.float64))
    numerator, denominator = _lay_down(state, grid, images, seeds, 1, radius)
    half = float(weight[biggest]) / 2
    num, den = state.classes.numerator, state.classes.denominator
    num[:, new, ...] = numerator[:, 0, ...] * (half / count)
    den[:, new, ...] = denominator[:, 0, ...] * (half / count)
    num[:, biggest, ...] = num[:, biggest, ...] * 0.5
    den[:, biggest, ...] = den[:, biggest, ...] * 0.5
    weight[new] = weight[biggest] = half
    state.bias[[new, biggest]] = 0
    return True


def _lay_down(
    state: Class2dState, grid: Grid, images: ParticleImages, seeds: Seeds, class_count: int, radius: float
) -> tuple[Any, Any]:
    """Return (half, class, padded, padded) numerators and denominators of seeds where they were last found."""
    order = np.argsort(seeds.positions, kind="stable")
    positions, classes = seeds.positions[order], seeds.classes[order]
    table: ParticleTable = state.particles
    xp, count = grid.xp, grid.count(radius)
    coefficients, ctf = images.take(positions, count)
    inverse = xp.asarray((1 / state.noise[grid.shells_of(count)]).astype(np.float32))
    scale = xp.asarray((1 / table.scale[positions]).astype(np.float32))
    centred = coefficients * shift_phases(grid, xp.asarray(table.shift[positions]), count)
    rows = Rows(
        values=centred * (ctf * inverse * scale[:, None]),
        weights=ctf * ctf * inverse,
        angles=seeds.angles[order],
        target=table.half[positions].astype(np.int64) * class_count + classes,
    )
    shape = (2 * class_count, grid.padded_size)
    numerator, denominator = scatter_rotated(rows, grid.frequency_x[:count], grid.frequency_y[:count], shape, PADDING)
    grids = (2, class_count, grid.padded_size, grid.padded_size)
    return xp.reshape(numerator, grids), xp.reshape(denominator, grids)


def _append_empty(state: Class2dState) -> None:
    xp = namespace(state.classes.numerator)
    num, den = state.classes.numerator, state.classes.denominator
    state.classes = ClassStatistics(
        xp.concat([num, xp.zeros_like(num[:, :1, ...])], axis=1),
        xp.concat([den, xp.zeros_like(den[:, :1, ...])], axis=1),
        np.append(state.classes.weight, 0.0),
    )
    state.bias = np.append(state.bias, np.float32(0))
    state.restarts = np.append(state.restarts, np.int32(0))


def _drop_last(state: Class2dState) -> None:
    state.classes = ClassStatistics(
        state.classes.numerator[:, :-1, ...], state.classes.denominator[:, :-1, ...], state.classes.weight[:-1]
    )
    state.bias, state.restarts = state.bias[:-1], state.restarts[:-1]
