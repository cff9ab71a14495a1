"""Where particles sit before anything is known of their shape: on the circularly symmetric average of all, at low detail.

Beyond 1.6 cycles per diameter the average of long or lobed particles is a spot that other spots are put on, 20 to 30 Å off
(docs/refinement.md); up to there it is a blob, whose centre is the particle's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frazil.algorithms.abinitio.state import AbInitioState
from frazil.algorithms.class2d.centring import find_centres, make_centring, radial_profile
from frazil.algorithms.class2d.grid import make_grid
from frazil.algorithms.refine3d.intake import Imaging

_CYCLES = 1.6  # per particle diameter: finest detail used
_GRID_CYCLES = 8.0
_ITERATIONS = 4
_BATCH = 256
_PROFILE_IMAGES = 2000


def centre_on_average(imaging: Imaging, state: AbInitioState, particle_diameter_angstrom: float) -> None:
    """Set `centre` and `shift` of all particles to where the radial average of the first 2000 fits best, in four rounds."""
    plane = imaging.plane
    diameter = particle_diameter_angstrom
    grid = make_grid(plane.box_size_px, plane.pixel_size_angstrom, diameter / _GRID_CYCLES, plane.xp)
    centring = make_centring(grid, diameter)
    count = min(centring.count, plane.count(max(_CYCLES * plane.box_angstrom / diameter, 2.0)))
    centring = replace(centring, count=count)
    table, rows = state.particles, np.arange(len(state.particles))
    for iteration in range(_ITERATIONS):
        first = rows[:_PROFILE_IMAGES]
        coefficients, ctf = imaging.images.take(first, count)
        scaled = coefficients * plane.xp.asarray(1 / table.scale[first])[:, None]
        profile = np.zeros(plane.shell_count)
        found = radial_profile(grid, centring, scaled, ctf, plane.xp.asarray(table.shift[first]))
        profile[: found.size] = found
        weight = plane.xp.asarray((profile / (2 * state.first_noise))[: grid.shell_count].astype(np.float32))
        last = iteration == _ITERATIONS - 1
        for start in range(0, rows.size if last else first.size, _BATCH):
            part = rows[start : start + _BATCH]
            coefficients, ctf = imaging.images.take(part, count)
            scaled = coefficients * plane.xp.asarray(1 / table.scale[part])[:, None]
            table.centre[part] = table.shift[part] = find_centres(grid, centring, scaled, ctf, weight)
