"""A second, simpler simulator: Gaussian beads on a bright field, each drawn where an analytic flow has taken it.

No image is interpolated and no optics are involved, so that nothing can agree with the product by a common mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Images = np.ndarray[Any, Any]
GRID = np.stack(np.meshgrid(*[np.linspace(-0.4, 0.4, 5)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class Beads:
    """A field of beads; `drift_px` of the whole frame, `across_px` the largest displacement beyond it, at a corner."""

    shape: tuple[int, int] = (512, 704)  # y, x
    frame_count: int = 16
    dose_per_px: float = 1.0
    contrast: float = 0.5
    spacing_px: float = 16.0
    drift_px: float = 8.0
    across_px: float = 3.0
    seed: int = 0

    def displacement(self, places: Images) -> Images:
        """Return where the specimen at relative places (n, 2), (y, x), has gone in every frame, (frame, n, 2) px."""
        rng = np.random.default_rng(self.seed + 1)
        t = np.arange(self.frame_count) / max(self.frame_count - 1, 1)
        early, late = 1 - np.exp(-6 * t), t * (1 + 0.3 * np.sin(2 * t))
        drift = early[:, None] * rng.normal(size=2) + late[:, None] * rng.normal(size=2) * 0.4
        y, x = places.T
        swirl = np.stack([x + y * x + 0.5 * np.sin(3 * y), -y + x * x - 0.5 * np.sin(3 * x)], axis=1)
        stretch = np.stack([y * y - 0.5 * x, np.sin(x + 2 * y)], axis=1)
        local = early[:, None, None] * swirl + 0.5 * late[:, None, None] * stretch
        return self.drift_px * drift[:, None] + self.across_px * local

    def movie(self) -> Images:
        """Record the movie, uint8 `(frame, y, x)`."""
        rng = np.random.default_rng(self.seed)
        margin = 30 + int(self.drift_px + self.across_px)
        size = np.array(self.shape)
        count = int(np.prod(size + 2 * margin) / self.spacing_px**2)
        places = rng.uniform(-margin, size + margin, (count, 2))
        widths, heights = rng.uniform(1.2, 4.0, count), rng.choice([-1, 1], count) * rng.uniform(0.5, 1, count)
        moved = places + self.displacement(places / size - 0.5)
        movie = np.empty((self.frame_count, *self.shape), np.uint8)
        for t in range(self.frame_count):
            field = np.ones(size + 2 * margin + 60)
            for (y, x), width, height in zip(moved[t] + margin + 30, widths, heights, strict=True):
                reach = int(4 * width) + 1
                y0, x0 = max(int(y) - reach, 0), max(int(x) - reach, 0)
                rows = np.exp(-0.5 * ((np.arange(y0, y0 + 2 * reach) - y) / width) ** 2)
                columns = np.exp(-0.5 * ((np.arange(x0, x0 + 2 * reach) - x) / width) ** 2)
                part = field[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach]
                part += self.contrast * height * np.outer(rows, columns)[: part.shape[0], : part.shape[1]]
            inside = field[margin + 30 :, margin + 30 :][: size[0], : size[1]]
            movie[t] = rng.poisson(np.maximum(inside, 0.05) * self.dose_per_px)
        return movie


def field_error(shift_applied: Images, displacement: Images) -> float:
    """Return the 2-D RMS distance (frame, place, 2) of an estimate from the truth in px, one constant removed."""
    error = np.asarray(shift_applied) + displacement
    error = error - error.mean(axis=(0, 1))
    return float(np.sqrt((error**2).sum(axis=2).mean()))
