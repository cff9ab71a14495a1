"""Preprocessing on one core, beside RELION: CPU seconds of motion correction, and of every stage of a movie's preprocessing.

Motion correction, from a TIFF-LZW file to two written micrographs, is timed in turns with `relion_run_motioncorr --use_own`
(5 x 5 patches, one thread) on the same movies, and taken apart into what it does. Without RELION on the PATH ours alone is
timed. Options: --rounds; --k3, movies of 5760 x 4092 x 50 instead of 2048 x 1440 x 36, and the peak memory of a process that
holds the next movie too; --super-resolution, the cost of cropping a frame of 11520 x 8184. The last line is JSON.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["FRAZIL_THREADS"] = "1"

import numpy as np
from gpu_preprocess import K3, OPTICS, moved_counts
from motion import MOVIES_STAR, ours, relion

from frazil.algorithms.super_resolution import crop_movie
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.movies import open_movie, read_movie
from frazil.io.mrc import write_mrc
from frazil.model.optics import Optics
from frazil.simulator.camera import Camera
from frazil.simulator.encoding import encode_tiff
from frazil.simulator.movie import session_camera, simulate_movie
from frazil.simulator.parameters import SimulationParameters
from frazil.simulator.truth import simulated_optics
from frazil_preprocess.pipeline import preprocess
from frazil_preprocess.products import write_products
from frazil_preprocess.settings import settings_of
from frazil_preprocess.stages import Stages

SIMULATED = SimulationParameters(
    width_px=2048, height_px=1440, frame_count=36, pixel_size_angstrom=1.06, particles_per_movie=90, contrast=0.8, seed=100
)
PARTICLE_ANGSTROM = 190.0
PARTS = {
    "read and decode": ("read_movie",),
    "gain": ("_device_gain",),
    "survey: sums, levels, bad pixels": ("survey",),
    "first trajectory": ("coarse_shifts",),
    "tiles: bin and transform": ("cut_tiles",),
    "fit": ("refine",),
    "warp and sum": ("_add_raw",),
    "dose weights, last transforms": ("_combined",),
    "write": ("write_mrc",),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--k3", action="store_true")
    options.add_argument("--super-resolution", action="store_true")
    options.add_argument("--peak", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if given.peak:
        print(peak_gib(*given.peak))
        return
    if given.super_resolution:
        print(json.dumps({"crop_cpu_s_per_frame": round(crop_seconds(), 3)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        camera, optics = k3_movie(home) if given.k3 else simulated_movie(home)
        figures = side_by_side(home, camera, optics, given.rounds)
        figures |= parts(home, camera, optics)
        if given.k3:
            command = [sys.executable, __file__, "--peak", str(home / "movie.tiff"), str(home / "movie.tiff")]
            figures["peak_gib"] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"peak with the next movie read: {figures['peak_gib']:.2f} GiB")
        else:
            figures |= stages(home, optics)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def simulated_movie(home: Path) -> tuple[Camera | None, Optics]:
    """Write a movie of the product's simulator with its gain and defects."""
    camera, optics = session_camera(SIMULATED), simulated_optics(SIMULATED)
    write_movie(home, simulate_movie(SIMULATED, 0).frames, optics)
    write_mrc(home / "gain.mrc", camera.gain, optics.pixel_size_angstrom)
    (home / "defects.txt").write_text("".join(f"{x} {y} {w} {h}\n" for x, y, w, h in camera.defect_boxes))
    return camera, optics


def k3_movie(home: Path) -> tuple[Camera | None, Optics]:
    """Write a movie of the size of a K3's."""
    write_movie(home, moved_counts(K3), OPTICS)
    return None, OPTICS


def write_movie(home: Path, frames: np.ndarray[Any, Any], optics: Optics) -> None:
    (home / "movie.tiff").write_bytes(encode_tiff(frames))
    (home / "movies.star").write_text(MOVIES_STAR.format(optics=optics))


def side_by_side(home: Path, camera: Camera | None, optics: Optics, rounds: int) -> dict[str, float]:
    """Time both programs in turns; the first run of ours, which compiles, does not count."""
    ours(home, camera, optics)
    spent: dict[str, list[float]] = {"ours": [], "relion": []}
    found = shutil.which("relion_run_motioncorr")
    if not found:
        print("relion_run_motioncorr is not on the PATH: only ours is timed.")
    for _ in range(rounds):
        start = time.process_time()
        ours(home, camera, optics)
        spent["ours"].append(time.process_time() - start)
        if found:
            spent["relion"].append(relion(home, camera, optics)[1])
            print(f"motion: ours {spent['ours'][-1]:.2f}, RELION {spent['relion'][-1]:.2f} core-s", flush=True)
    figures = {f"{name}_cpu_s": statistics.median(values) for name, values in spent.items() if values}
    if found:
        figures["speed_ratio"] = statistics.median(b / a for a, b in zip(spent["ours"], spent["relion"], strict=True))
        print(f"RELION takes {figures['speed_ratio']:.2f} times as long")
    return figures


def parts(home: Path, camera: Camera | None, optics: Optics) -> dict[str, float]:
    """Take motion correction apart: CPU seconds of each part, in a run of its own under the profiler."""
    profile = cProfile.Profile(time.process_time)
    profile.runcall(ours, home, camera, optics)
    rows = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    seconds = {part: sum(row[3] for place, row in rows if place[2] in names) for part, names in PARTS.items()}
    for part, spent in seconds.items():
        print(f"  {part:34s} {spent:7.3f} core-s")
    return {f"motion: {part}": spent for part, spent in seconds.items()}


def stages(home: Path, optics: Optics) -> dict[str, float]:
    """Preprocess the movie as the worker does, twice, and time the stages of the second run."""
    parameters = SessionParameters(
        pixel_size_angstrom=optics.pixel_size_angstrom,
        voltage_kv=optics.voltage_kv,
        spherical_aberration_mm=optics.spherical_aberration_mm,
        amplitude_contrast=optics.amplitude_contrast,
        dose_per_frame_e_per_angstrom2=optics.dose_per_frame_e_per_angstrom2,
        gain_path=str(home / "gain.mrc"),
        defects_path=str(home / "defects.txt"),
        particle_diameter_angstrom=PARTICLE_ANGSTROM,
    )
    exposure = Exposure(exposure_id="0")
    for _ in range(2):
        clock = Stages(clock=time.process_time)
        with clock.stage("read"):
            movie = open_movie(home / "movie.tiff")
            frames = movie.read()
        settings = settings_of(parameters, exposure, movie.info)
        found = preprocess(frames, settings, clock, np)
        with clock.stage("write"):
            write_products(found, settings, exposure, home)
    total = sum(clock.seconds.values())
    print(f"whole preprocessing {total:.2f} core-s: " + ", ".join(f"{name} {s:.2f}" for name, s in clock.seconds.items()))
    return {"preprocessing_cpu_s": total} | {f"stage: {name}": spent for name, spent in clock.seconds.items()}


def peak_gib(movie: Path, following: Path) -> float:
    """Correct a movie while the next one is in memory; the process's peak resident size."""
    frames = read_movie(movie)
    waiting = read_movie(following)
    from frazil.algorithms.motion.correct import correct_movie

    correct_movie(frames, None, None, OPTICS)
    del waiting
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def crop_seconds(frame_count: int = 8) -> float:
    """CPU seconds per frame of cropping a K3 super-resolution movie."""
    frame = np.random.default_rng(0).poisson(1.0, (8184, 11520)).astype(np.uint8)
    movie = np.broadcast_to(frame, (frame_count, *frame.shape))
    crop_movie(movie[:, :1024, :1024], None, None, 2)
    start = time.process_time()
    crop_movie(movie, None, None, 2)
    return (time.process_time() - start) / frame_count


if __name__ == "__main__":
    main()
