"""Motion correction on a GPU, stage by stage against the least time its memory traffic takes.

Each stage runs on cupy with a movie of K3 size (5760 x 4092 x 50, or --frames of it); its milliseconds stand beside the bytes
that it cannot avoid over the bandwidth that a plain copy reaches on the same card. Without cupy or a device the stages and
their bytes are listed, and nothing is timed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.defects import DefectParameters
from frazil.algorithms.motion.coarse import coarse_shifts, small_factor
from frazil.algorithms.motion.field import ShiftField
from frazil.algorithms.motion.fit import FitParameters, exposure_of, refine
from frazil.algorithms.motion.frames import background_of, survey
from frazil.algorithms.motion.sums import aligned_sums
from frazil.algorithms.motion.tiles import cut_tiles, tile_layout
from frazil.array import cuda_available
from frazil.model.optics import Optics

K3 = (50, 4092, 5760)
OPTICS = Optics(pixel_size_angstrom=0.83, dose_per_frame_e_per_angstrom2=1.0)
RANK = 7  # sums over time that all dose weights are made of
FIT_PASSES = 7  # over the coefficients of the tiles: covariances and gradients


@dataclass(frozen=True)
class Stage:
    """A stage and the bytes per px of all frames (`per_px`) and of one image (`per_image_px`) that it reads and writes."""

    name: str
    per_px: float
    per_image_px: float

    def traffic(self, shape: tuple[int, int, int]) -> float:
        image = shape[1] * shape[2]
        return self.per_px * shape[0] * image + self.per_image_px * image


STAGES = (
    Stage("survey: upload, gain, sum, small copies", 1 + 1 + 4 + 8, 12),  # frame in, gain, total read and written
    Stage("first trajectory", 0.1, 0),
    Stage("tiles: gain, bin, transform, keep", 1 + 4 + 1 + 4 * 1 + 0.8, 4),  # binned twice: a quarter of the px, 4 passes
    Stage("fit", FIT_PASSES * 0.8, 0),  # coefficients are some 0.8 bytes per px
    Stage("warp and sum", 1 + 4 + 4 + 8 * RANK / 8, 0),  # frames corrected, written, read; sums once per 8 frames
    Stage("dose weights, last transforms", 0, RANK * (4 + 4 + 16 + 16) + 2 * 24),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=K3[0])
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    shape = (given.frames, *K3[1:])
    if not cuda_available():
        print("No GPU: cupy is not installed or sees no device. What each stage has to move, for a movie of this size:")
        for stage in STAGES:
            print(f"  {stage.name:42s} {stage.traffic(shape) / 1e9:7.2f} GB")
        print(json.dumps({stage.name: round(stage.traffic(shape) / 1e9, 3) for stage in STAGES}))
        return
    figures = measure(shape, given.rounds)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def measure(shape: tuple[int, int, int], rounds: int) -> dict[str, float]:
    """Time every stage on the device, the best of some rounds, each fed with what the one before it made."""
    import cupy as xp

    bandwidth = copy_bandwidth(xp, rounds)
    print(f"{xp.cuda.runtime.getDeviceProperties(0)['name'].decode()}: copies at {bandwidth / 1e9:.0f} GB/s")
    movie = moved_counts(shape)
    gain = xp.ones(shape[1:], dtype=xp.float32)
    pixel, parameters = OPTICS.pixel_size_angstrom, FitParameters()
    made: dict[str, Any] = {}

    def surveyed() -> None:
        made["seen"] = survey(movie, gain, DefectParameters(), small_factor(pixel, shape[1:]), 0)

    def first_trajectory() -> None:
        made["shifts"], _ = coarse_shifts(made["seen"], pixel, parameters.max_shift_angstrom)

    def tiled() -> None:
        seen, shifts = made["seen"], made["shifts"]
        layout = tile_layout(seen, shifts, pixel, parameters.tile_angstrom, parameters.band_angstrom, parameters.shell_count)
        background = background_of(seen.total, xp.asarray(~seen.frames.bad), pixel)
        made["tiles"] = cut_tiles(seen, shifts, layout, background)

    def fitted() -> None:
        made["fit"] = refine(made["tiles"], made["shifts"], exposure_of(made["seen"], OPTICS), parameters)

    def summed() -> None:
        made["sums"] = aligned_sums(made["seen"].frames, ShiftField(made["fit"].coefficients), OPTICS)

    figures: dict[str, float] = {"copy_gb_per_s": bandwidth / 1e9}
    for stages, work in (
        (STAGES[:1], surveyed),
        (STAGES[1:2], first_trajectory),
        (STAGES[2:3], tiled),
        (STAGES[3:4], fitted),
        (STAGES[4:], summed),
    ):
        name = ", ".join(stage.name for stage in stages)
        bound = 1e3 * sum(stage.traffic(shape) for stage in stages) / bandwidth
        spent = best_ms(xp, work, rounds)
        print(f"  {name:74s} {spent:9.1f} ms, bound {bound:7.1f} ms, {spent / bound:6.1f} times it")
        figures[f"{name}_ms"], figures[f"{name}_bound_ms"] = spent, bound
    return figures


def best_ms(xp: Any, work: Callable[[], None], rounds: int) -> float:
    """Return the least milliseconds of some runs after a first one, which compiles."""
    spent = []
    for _ in range(rounds + 1):
        start, stop = xp.cuda.Event(), xp.cuda.Event()
        start.record()
        work()
        stop.record()
        stop.synchronize()
        spent.append(float(xp.cuda.get_elapsed_time(start, stop)))
    return min(spent[1:])


def copy_bandwidth(xp: Any, rounds: int) -> float:
    """Return bytes per second, read and written, of copying 1 GiB on the device."""
    source = xp.zeros(1 << 28, dtype=xp.float32)
    target = xp.empty_like(source)
    return 2e3 * source.nbytes / best_ms(xp, lambda: xp.copyto(target, source), rounds)


def moved_counts(shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Return counts that align: one image, moved, plus noise rolled by random amounts."""
    rng = np.random.default_rng(0)
    specimen, noise = (rng.poisson(mean, shape[1:]).astype(np.uint8) for mean in (0.2, 0.6))
    movie = np.empty(shape, np.uint8)
    for t, frame in enumerate(movie):
        np.add(np.roll(specimen, (t // 3, -t // 4), (0, 1)), np.roll(noise, tuple(rng.integers(0, 4000, 2)), (0, 1)), out=frame)
    return movie


if __name__ == "__main__":
    main()
