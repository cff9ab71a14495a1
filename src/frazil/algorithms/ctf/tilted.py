"""Where to start when the specimen is tilted so much that the rings of the whole micrograph's average are washed out.

Each tile's rings are correlated with those of every defocus; the scores of all tiles are then added along every plane, as a
Hough transform adds along every line. Astigmatism is left out: it matters little at the low frequencies that decide here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from frazil.algorithms.ctf.fit import CtfSearch
from frazil.algorithms.ctf.landscape import TILES_MIN, TILT_MAX_DEGREES, planes, ring_profiles, smooth
from frazil.algorithms.ctf.model import aberration_at
from frazil.algorithms.ctf.rings import ring_visibility
from frazil.algorithms.ctf.spectrum import Tiles
from frazil.algorithms.ctf.window import Floats
from frazil.model.ctf import DefocusField
from frazil.model.optics import Optics

_STEP = 75.0
_ENVELOPE = 100.0  # B of the power's decay that is assumed, Å²
_FINEST_ANGSTROM = 5.0
_DEGREE = 6
_GAIN = 12.0  # that the best plane's squared signal over noise must bring beyond the best constant's


@dataclass(frozen=True, slots=True)
class TiltedStart:
    """A mean defocus, Å, and a plane."""

    mean: float
    field: DefocusField


def tilted_start(tiles: Tiles, optics: Optics, search: CtfSearch, shape: tuple[int, int]) -> TiltedStart | None:
    """Return the plane that agrees best with the tiles, when it does so much better than no tilt.

    Parameters
    ----------
    tiles: of the micrograph.
    optics: of the micrograph.
    search: ranges.
    shape: of the micrograph, `(y, x)`.
    """
    if len(tiles.x) < TILES_MIN:
        return None
    sides = (shape[1] * optics.pixel_size_angstrom, shape[0] * optics.pixel_size_angstrom)
    reach = 0.5 * math.tan(math.radians(TILT_MAX_DEGREES)) * math.hypot(*sides)
    low, high = search.defocus_min_angstrom, search.defocus_max_angstrom
    margin, count = math.ceil(reach / _STEP), math.ceil((high - low) / _STEP) + 1
    defocus = low + np.arange(-margin, count + margin) * _STEP
    scores = tiles.shares[:, None] * _scores(tiles, optics, search, np.maximum(defocus, _STEP))
    slopes = planes(sides)
    offsets = margin + np.rint(slopes @ np.stack([tiles.x, tiles.y]) / _STEP).astype(np.int64)
    offsets = np.clip(offsets, 0, 2 * margin)
    flat, best, found = float(scores.sum(axis=0)[margin : margin + count].max()), -np.inf, None
    for slope, offset in zip(slopes, offsets, strict=True):
        total = np.zeros(count)
        for row, by in zip(scores, offset, strict=True):
            total += row[by : by + count]
        i = int(np.argmax(total))
        if total[i] > best:
            best = float(total[i])
            plane = DefocusField((float(slope[0]), float(slope[1]), 0.0, 0.0, 0.0))
            found = TiltedStart(float(defocus[margin + i]), plane)
    noise = float((scores**2).mean(axis=1).sum())
    return found if best**2 - max(flat, 0.0) ** 2 > _GAIN * noise else None


def _scores(tiles: Tiles, optics: Optics, search: CtfSearch, defocus: Floats) -> Floats:
    """Return the correlation of each tile's rings with those of each defocus (tile, defocus), the best over phase shifts."""
    q, count, powers = ring_profiles(tiles, 1.0 / search.resolution_min_angstrom, 1.0 / _FINEST_ANGSTROM)
    flat = powers / np.maximum(smooth(powers, q, count, _DEGREE), 1e-3 * powers.mean())
    flat = flat - smooth(flat, q, count, _DEGREE)
    visible = ring_visibility(q[None, :], defocus[:, None], optics, tiles.window) * np.exp(-0.5 * _ENVELOPE * q**2)
    best = np.full((len(powers), defocus.size), -np.inf)
    for phase_shift in search.phase_shifts[:: max(1, len(search.phase_shifts) // 6)]:
        chi = aberration_at(
            q[None, :],
            0.0 * q[None, :],
            defocus_u_angstrom=defocus[:, None],
            defocus_v_angstrom=defocus[:, None],
            defocus_angle_degrees=0.0,
            phase_shift_degrees=float(phase_shift),
            optics=optics,
        )
        rings = -np.cos(2.0 * chi) * visible
        rings = rings - smooth(rings, q, count, _DEGREE)
        rings = rings * count / np.sqrt(np.maximum((rings**2) @ count, 1e-12))[:, None]
        best = np.maximum(best, flat @ rings.T)
    return best
