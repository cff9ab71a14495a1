"""How the specimen moves under the beam: a fast start, a slow drift, and a smooth difference across the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.simulator.parameters import SimulationParameters

_SETTLING_DOSE = 4.0  # e/Å² after which the fast movement has fallen to 1/e
_LOCAL_SETTLING_DOSE = 9.0


@dataclass(frozen=True, slots=True)
class SpecimenMotion:
    """Displacement of the specimen, in px, frame 0 at rest; to apply: the opposite.

    `drift` is (frame, 2) as x, y. The local part at place (X, Y) in [-1/2, 1/2]² is `settling[frame] * (field @ terms)` with
    terms X, Y, X², Y², XY; it is 0 in the middle of the frame.
    """

    drift: npt.NDArray[np.float64]
    settling: npt.NDArray[np.float64]
    field: npt.NDArray[np.float64]

    def local(self, places: npt.NDArray[Any], frame: int) -> npt.NDArray[np.float64]:
        """Return the local displacement (n, 2) in px at places (n, 2), given as x, y in [-1/2, 1/2]."""
        x, y = places[:, 0], places[:, 1]
        terms = np.stack([x, y, x * x, y * y, x * y])
        return np.asarray(self.settling[frame] * (self.field @ terms).T)


def draw_motion(parameters: SimulationParameters, rng: np.random.Generator) -> SpecimenMotion:
    """Draw the motion of one movie: exponential early movement, steady drift, small random steps."""
    frames = parameters.frame_count
    dose = parameters.dose_per_frame_e_per_angstrom2 * np.arange(frames)
    angle, turn = rng.uniform(0.0, 2.0 * np.pi), rng.normal(0.0, 0.9)
    size = parameters.motion_angstrom * rng.lognormal(0.0, 0.4)
    early = 0.6 * size * (1.0 - np.exp(-dose / _SETTLING_DOSE))
    late = 0.4 * size * np.arange(frames) / max(frames - 1, 1)
    steps = rng.normal(0.0, 0.012 * size, (frames, 2))
    steps[0] = 0.0
    drift = (
        early[:, None] * [np.cos(angle), np.sin(angle)]
        + late[:, None] * [np.cos(angle + turn), np.sin(angle + turn)]
        + np.cumsum(steps, axis=0)
    )
    settling = 1.0 - np.exp(-dose / _LOCAL_SETTLING_DOSE)
    scale = parameters.local_motion_angstrom / parameters.pixel_size_angstrom
    field = rng.normal(0.0, scale, (2, 5)) * [1.0, 1.0, 1.5, 1.5, 1.5]
    return SpecimenMotion(drift / parameters.pixel_size_angstrom, settling, field)
