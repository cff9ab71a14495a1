"""Whole-frame motion correction of simulated movies: error against the truth, predicted error, CPU seconds.

Movies of the simulator without local motion, over particles, doses, pixel sizes and frame shapes; beside them plain
leave-one-out cross-correlation with a B-factor, and RELION where `relion_run_motioncorr` is on the PATH. Options: --seeds,
--k3 (time and memory of one movie of 5760 x 4092 x 50). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("FRAZIL_THREADS", "1")

import numpy as np
import scipy.fft

from frazil.algorithms.motion.correct import correct_movie
from frazil.io.mrc import write_mrc
from frazil.model.motion import Motion
from frazil.model.optics import Optics
from frazil.simulator.camera import Camera
from frazil.simulator.encoding import encode_tiff
from frazil.simulator.movie import SimulatedMovie, session_camera, simulate_movie
from frazil.simulator.parameters import SimulationParameters

Images = np.ndarray[Any, Any]

CONDITIONS: dict[str, dict[str, Any]] = {
    "default session": {},
    "0.8 e/px, 12 frames": {"pixel_size_angstrom": 1.3, "dose_per_frame_e_per_angstrom2": 0.8 / 1.3**2, "frame_count": 12},
    "0.8 e/px, 60 frames": {"pixel_size_angstrom": 1.06, "dose_per_frame_e_per_angstrom2": 0.8 / 1.06**2, "frame_count": 60},
    "octahedron, odd sizes": {"particle": "octahedron", "width_px": 1111, "height_px": 947, "pixel_size_angstrom": 1.4},
    "chain, 200 kV": {"particle": "chain", "voltage_kv": 200.0, "width_px": 1440, "height_px": 1024},
    "0.7 Å/px": {"pixel_size_angstrom": 0.7, "dose_per_frame_e_per_angstrom2": 1.6, "width_px": 1600, "height_px": 1200},
    "2048 x 1440 x 36": {"width_px": 2048, "height_px": 1440, "frame_count": 36, "pixel_size_angstrom": 1.06},
}


_MOVIES_STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName
_rlnOpticsGroup
_rlnMicrographOriginalPixelSize
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
g1 1 {optics.pixel_size_angstrom} {optics.voltage_kv} 2.7 0.1

# version 30001

data_movies

loop_
_rlnMicrographMovieName
_rlnOpticsGroup
movie.tiff 1
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--k3", action="store_true")
    given = options.parse_args()
    if given.k3:
        print(json.dumps(k3()))
        return
    figures: dict[str, dict[str, float]] = {}
    correct_movie(np.ones((2, 64, 64), np.uint8), None, None, Optics(pixel_size_angstrom=1.0))  # compiled before it is timed
    for name, changes in CONDITIONS.items():
        runs = [measure(SimulationParameters(**changes, seed=seed, local_motion_angstrom=0.0)) for seed in range(given.seeds)]
        figures[name] = {key: round(float(np.mean([run[key] for run in runs])), 3) for key in runs[0]}
        print(f"{name:24s}", "  ".join(f"{key} {value:.3f}" for key, value in figures[name].items()), flush=True)
    print(json.dumps(figures))


def measure(parameters: SimulationParameters) -> dict[str, float]:
    """Simulate one movie and correct it by each method."""
    simulated, camera = simulate_movie(parameters, 0), session_camera(parameters)
    truth = path_of(simulated.motion)
    optics = Optics(
        pixel_size_angstrom=parameters.pixel_size_angstrom,
        voltage_kv=parameters.voltage_kv,
        dose_per_frame_e_per_angstrom2=parameters.dose_per_frame_e_per_angstrom2,
    )
    bad = bad_mask(camera)
    start = time.process_time()
    corrected = correct_movie(simulated.frames, camera.gain, bad, optics)
    seconds = time.process_time() - start
    result = {
        "uncorrected_px": rms_error(np.zeros_like(truth), truth),
        "error_px": rms_error(path_of(corrected.motion), truth),
        "sigma_px": corrected.motion.sigma_px or float("nan"),
        "cpu_s": seconds,
    }
    clean = simulated.frames * camera.gain
    clean[:, bad | (camera.gain == 0)] = clean.mean()
    clean.reshape(len(clean), -1)[:, camera.hot_index] = clean.mean()
    for b_factor in (50.0, 150.0):
        shifts = leave_one_out(clean, b_factor)
        result[f"cross_correlation_b{b_factor:.0f}_px"] = rms_error(shifts, truth)
    if shutil.which("relion_run_motioncorr"):
        result |= relion(simulated, camera, optics, truth)
    return result


def path_of(motion: Motion) -> Images:
    return np.stack([motion.shift_y_px, motion.shift_x_px], axis=1)


def bad_mask(camera: Camera) -> Images:
    bad = np.zeros(camera.gain.shape, dtype=bool)
    for x, y, width, height in camera.defect_boxes:
        bad[y : y + height, x : x + width] = True
    return bad


def rms_error(shifts: Images, truth: Images) -> float:
    """Two-dimensional RMS distance, one constant removed."""
    error = shifts - truth
    return float(np.sqrt(((error - error.mean(axis=0)) ** 2).sum(axis=1).mean()))


def leave_one_out(frames: Images, b_factor: float) -> Images:
    """The common method: each frame against the sum of the others, weighted by exp(-2 B k^2), peaks by parabola."""
    height, width = frames.shape[1:]
    transforms = [scipy.fft.rfft2((f - f.mean()).astype(np.float32)) for f in frames]
    ky, kx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    weight = np.exp(-2 * b_factor * (ky**2 + kx**2))
    weight[0, 0] = 0
    shifts = np.zeros((len(frames), 2))
    for _ in range(10):
        moved = [
            f * np.exp(-2j * np.pi * (ky * s[0] + kx * s[1])).astype(np.complex64)
            for f, s in zip(transforms, shifts, strict=True)
        ]
        total = sum(moved)
        steps = np.array([peak(scipy.fft.irfft2((total - f) * f.conj() * weight, s=(height, width))) for f in moved])
        shifts += steps
        shifts -= shifts[0].copy()
        if np.sqrt((steps**2).sum(axis=1).mean()) < 0.02:
            break
    return shifts


def peak(correlation: Images, reach: int = 50) -> Images:
    """Position of the highest value within `reach` px of 0, refined by a parabola on each axis."""
    near = np.roll(correlation, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = np.unravel_index(np.argmax(near[1:-1, 1:-1]), (2 * reach - 1, 2 * reach - 1))
    at = []
    for below, here, above in ((near[y, x + 1], near[y + 1, x + 1], near[y + 2, x + 1]), near[y + 1, x : x + 3]):
        at.append(0.5 * (below - above) / (below - 2 * here + above))
    return np.array([y + 1 - reach + at[0], x + 1 - reach + at[1]])


def relion(simulated: SimulatedMovie, camera: Camera, optics: Optics, truth: Images) -> dict[str, float]:
    """Run RELION's own implementation as a separate process on the same movie, whole frame only."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "movie.tiff").write_bytes(encode_tiff(simulated.frames))
        write_mrc(home / "gain.mrc", camera.gain, optics.pixel_size_angstrom)
        (home / "defects.txt").write_text("".join(f"{x} {y} {w} {h}\n" for x, y, w, h in camera.defect_boxes))
        (home / "movies.star").write_text(_MOVIES_STAR.format(optics=optics))
        command = ["relion_run_motioncorr", "--i", "movies.star", "--o", "out/", "--use_own", "--j", "1", "--bfactor", "150"]
        command += ["--patch_x", "1", "--patch_y", "1", "--dose_weighting", "--save_noDW", "--gainref", "gain.mrc"]
        command += ["--defect_file", "defects.txt", "--dose_per_frame", str(optics.dose_per_frame_e_per_angstrom2)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=home, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rows = (home / "out" / "movie.star").read_text().split("data_global_shift")[1].split("data_")[0].splitlines()
        table = np.array([[float(v) for v in r.split()] for r in rows if r.split() and r.split()[0].isdigit()])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"relion_px": rms_error(table[:, [2, 1]], truth), "relion_cpu_s": cpu}


def k3() -> dict[str, float]:
    """Correct one movie of the size of a K3's and report CPU seconds and peak memory, the raw movie included.

    Its frames are one image of counts, moved, plus noise that is rolled by random amounts: quick to make, and it aligns.
    """
    rng = np.random.default_rng(0)
    shape = (4092, 5760)
    specimen, noise = rng.poisson(0.2, shape).astype(np.uint8), rng.poisson(0.6, shape).astype(np.uint8)
    movie = np.empty((50, *shape), np.uint8)
    for t, frame in enumerate(movie):
        np.add(np.roll(specimen, (t // 3, -t // 4), (0, 1)), np.roll(noise, tuple(rng.integers(0, 4000, 2)), (0, 1)), out=frame)
    del specimen, noise
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start, wall = time.process_time(), time.perf_counter()
    corrected = correct_movie(movie, None, None, Optics(pixel_size_angstrom=0.83))
    truth = np.array([(-(t // 3), t // 4 + (t % 4 > 0)) for t in range(50)], float)
    return {
        "cpu_s": round(time.process_time() - start, 1),
        "wall_s": round(time.perf_counter() - wall, 1),
        "error_px": round(rms_error(path_of(corrected.motion), truth - truth[0]), 3),
        "raw_gib": round(before, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    main()
