"""What a refinement shows: maps, mask, curves and the resolution they support, poses, their distribution, the trend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.refine3d import maps, steps
from frazil.algorithms.refine3d.fsc import FscCurves, corrected_fsc
from frazil.algorithms.refine3d.mask import automatic_mask
from frazil.algorithms.refine3d.sharpening import Guinier, combined_weights, guinier, sharpen
from frazil.algorithms.refine3d.state import HISTORY, Refine3dState
from frazil.algorithms.refine3d.stream import StreamingRefinement
from frazil.algorithms.refine3d.trend import ResolutionTrend, fit_trend
from frazil.array import to_host
from frazil.model.errors import FrazilError
from frazil.primitives.rotations import matrix_to_euler_degrees, sphere_points
from frazil.primitives.volumes import filter_volume

_DIRECTIONS = 192
_PREFERRED = 50.0  # most over least populated direction at which a warning is due (algorithms 8)
_SAMPLING_SHARE = 0.97  # a resolution this close to the finest that can be is the sampling's, not the particles'


@dataclass(frozen=True, slots=True, kw_only=True)
class Poses:
    """Orientation and centre of every live, refined particle; one row each, in block sequence (docs/conventions.md).

    Attributes
    ----------
    uid: identity. half_set: 1 or 2, fixed by the uid.
    rot_degrees, tilt_degrees, psi_degrees: as RELION has them.
    origin_x_angstrom, origin_y_angstrom: the particle's centre sits at minus the origin from the box centre.
    probability: of the best orientation. log_likelihood: relative to no particle. generation: of the pass that set the row.
    """

    uid: npt.NDArray[np.uint64]
    half_set: npt.NDArray[np.uint8]
    rot_degrees: npt.NDArray[np.float64]
    tilt_degrees: npt.NDArray[np.float64]
    psi_degrees: npt.NDArray[np.float64]
    origin_x_angstrom: npt.NDArray[np.float32]
    origin_y_angstrom: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    log_likelihood: npt.NDArray[np.float32]
    generation: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class AngularDistribution:
    """How many particles look along each of evenly spread directions.

    Attributes
    ----------
    directions: (direction, 3) unit vectors, over the whole sphere. count: (direction,), symmetry mates counted in, divided by
        their number.
    ratio: of the most to the least populated direction, one particle added to each.
    preferred: the ratio is so high that some directions may be missing from the map.
    """

    directions: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    ratio: float
    preferred: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """A published state of a refinement; maps are host float32 (box, box, box), density positive.

    Attributes
    ----------
    half_maps: neither masked, sharpened nor joined: what FSC and post-processing programs want.
    volume: mean of the half maps, weighted by the corrected FSC. sharpened: for display. mask: automatic, 0 to 1.
    curves, guinier: of the half maps.
    resolution_angstrom: corrected FSC at 0.143; never finer than the start map's limit unless `supported`.
    supported: half maps agree beyond what start map and mask can explain. Else the maps may be no more than the start map.
    trend: resolution against particle count, or None.
    """

    half_maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
    volume: npt.NDArray[np.float32]
    sharpened: npt.NDArray[np.float32]
    mask: npt.NDArray[np.float32]
    curves: FscCurves
    guinier: Guinier
    resolution_angstrom: float
    supported: bool
    trend: ResolutionTrend | None


def publish(refinement: StreamingRefinement) -> Refined:
    """Return the present maps and what they are worth.

    Raises FrazilError before the first pass over particles is done.
    """
    run, state = refinement.run, refinement.state
    if state.accumulated is None:
        raise FrazilError("NOTHING_REFINED", "Wait for the first pass over particles: there is no map yet.")
    plane, parameters, size = run.plane, run.parameters, run.plane.box_size_px
    cubes = maps.half_cubes(plane, run.group, state.accumulated)
    halves = maps.unregularised_maps(plane, cubes, state.accumulated.radius, size)
    average = (halves[0] + halves[1]) * 0.5
    mask = automatic_mask(average, plane.pixel_size_angstrom, parameters.particle_diameter_angstrom)
    random = steps.random_for(parameters, state.counters.step, steps.Purpose.PHASES)
    curves = corrected_fsc(halves, mask, plane.box_angstrom, random)
    plot = guinier(average * mask, curves)
    weighted = filter_volume(average, plane.xp.asarray(combined_weights(np.maximum(curves.corrected, 0))))
    return Refined(
        half_maps=(_host(halves[0]), _host(halves[1])),
        volume=_host(weighted),
        sharpened=_host(sharpen(average, curves, plot.b_factor_angstrom2) * mask),
        mask=_host(mask),
        curves=curves,
        guinier=plot,
        resolution_angstrom=_claimed(refinement, curves),
        supported=bool(state.counters.supported),
        trend=resolution_trend(refinement),
    )


def poses(state: Refine3dState) -> Poses:
    """Return where every live, refined particle sits and how it is turned."""
    table, live = state.particles, state.live()
    rows = live[table.generation[live] >= 0]
    angles = matrix_to_euler_degrees(table.pose[rows])
    return Poses(
        uid=table.uid[rows],
        half_set=table.half[rows] + np.uint8(1),
        rot_degrees=angles[:, 0],
        tilt_degrees=angles[:, 1],
        psi_degrees=angles[:, 2],
        origin_x_angstrom=-table.shift[rows, 0],
        origin_y_angstrom=-table.shift[rows, 1],
        probability=table.probability[rows],
        log_likelihood=table.log_likelihood[rows],
        generation=table.generation[rows],
    )


def angular_distribution(matrices: npt.NDArray[Any], operators: npt.NDArray[np.float64]) -> AngularDistribution:
    """Count particles by viewing direction over 192 even directions, symmetry mates and opposite directions included.

    matrices: (particle, 3, 3). operators: (operator, 3, 3). Opposite views are mirror images and fill the same slice.
    """
    directions = sphere_points(_DIRECTIONS)
    views = np.einsum("nj,gjk->ngk", np.asarray(matrices, np.float64)[:, 2], operators).reshape(-1, 3)
    count = np.zeros(_DIRECTIONS)
    for start in range(0, len(views), 4096):
        part = views[start : start + 4096] @ directions.T
        count += np.bincount(part.argmax(axis=1), minlength=_DIRECTIONS)
        count += np.bincount((-part).argmax(axis=1), minlength=_DIRECTIONS)
    count /= 2 * len(operators)
    ratio = float((count.max() + 1) / (count.min() + 1))
    return AngularDistribution(directions=directions, count=count, ratio=ratio, preferred=ratio > _PREFERRED)


def resolution_trend(refinement: StreamingRefinement) -> ResolutionTrend | None:
    """Fit resolution against particle count over the run so far: the best resolution at each count of particles."""
    run, state = refinement.run, refinement.state
    finest = _SAMPLING_SHARE * min(run.plane.limit, run.plane.box_size_px / 2 - 1)
    best: dict[int, float] = {}
    for particles, resolved in state.history[:, [HISTORY.index("particles"), HISTORY.index("resolved")]]:
        if state.counters.supported and refinement.start_radius < resolved < finest:
            best[int(particles)] = max(best.get(int(particles), 0.0), resolved)
    if not best:
        return None
    return fit_trend(list(best), [run.plane.box_angstrom / resolved for resolved in best.values()])


def _claimed(refinement: StreamingRefinement, curves: FscCurves) -> float:
    """Return the resolution that may be claimed: the start map's own limit where nothing else is supported."""
    start = refinement.run.plane.box_angstrom / refinement.start_radius
    if not refinement.state.counters.supported or curves.resolution_angstrom is None:
        return start
    return min(curves.resolution_angstrom, start)


def _host(volume: Any) -> npt.NDArray[np.float32]:
    return to_host(volume).astype(np.float32)
