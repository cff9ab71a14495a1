"""Where particles sit: the start map, at every orientation, over a wide disc of shifts.

The circularly symmetric average, which centres round particles well, puts long and lobed ones 20 to 30 Å off, beyond what any
later search of shifts reaches: their poses stay wrong (docs/refinement.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleImages
from frazil.algorithms.refine3d.dense import dense_posterior, make_bank
from frazil.algorithms.refine3d.layout import HalfPlane
from frazil.algorithms.refine3d.schedule import shift_disc
from frazil.algorithms.refine3d.state import PoseTable
from frazil.algorithms.refine3d.tiles import Placement, make_tile
from frazil.array import Array, to_host
from frazil.primitives.rotations import directions_to_matrices
from frazil.primitives.symmetry import Symmetry

_VIEWS, _ANGLES = 192, 24  # 15 degrees apart
_REACH = 0.25  # particle diameters from the picked centre; the prior's sigma is half of it
_PERIOD_SHARE = 0.3  # of the finest period: the step of shifts


def centre_on_reference(
    plane: HalfPlane,
    group: Symmetry,
    images: ParticleImages,
    table: PoseTable,
    rows: npt.NDArray[Any],
    reference: tuple[Array, float],
    noise: npt.NDArray[np.float64],
    particle_diameter_angstrom: float,
) -> None:
    """Set `centre` and `shift` of particles to where a reference of unknown scale fits best, all orientations considered.

    rows: sorted. reference: half cube and its radius, Fourier pixels: detail that both half sets share. noise: (shell,).
    """
    cube, radius = reference
    count = plane.count(radius)
    deviation = plane.xp.asarray(np.sqrt(noise[plane.shell[:count]]).astype(np.float32))
    reach = _REACH * particle_diameter_angstrom
    shifts = shift_disc(plane, radius, reach / (plane.box_angstrom * _PERIOD_SHARE / radius), _PERIOD_SHARE)
    psi = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    matrices = directions_to_matrices(group.views(_VIEWS, np.eye(3)), psi)
    bank = make_bank(plane, [cube], deviation, matrices, shifts, count)
    for start in range(0, rows.size, bank.tile_images):
        part = rows[start : start + bank.tile_images]
        picked = np.zeros((part.size, 2), np.float32)
        tile = make_tile(plane, images, part, Placement(table.scale[part], picked, picked), deviation)
        found, _ = dense_posterior(plane, bank, tile, reach / 2, fit_scale=True)
        best = to_host(plane.xp.sum(found.weights, axis=2)).argmax(axis=1)
        table.centre[part] = table.shift[part] = shifts[best]
