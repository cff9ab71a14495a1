"""Motion correction of simulated movies beside RELION's own: error against the truth, predicted error, CPU seconds, ratios.

Movies of the product's simulator and of an independent one (beads), with and without motion across the field. Errors are 2-D
RMS in px over 5 x 5 places and all frames, one constant removed; "blur" with one constant removed per place. Ours is timed
from the TIFF file to two written MRC files, in turns with `relion_run_motioncorr --use_own` where that is on the PATH, on one
core. Options: --seeds, --only NAME. `preprocess.py` has speed and memory at other sizes. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("FRAZIL_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np

from frazil.algorithms.motion.correct import CorrectedMovie, correct_movie
from frazil.algorithms.motion.relion import COEFFICIENT_COUNT, relion_shifts
from frazil.io.movies import read_movie
from frazil.io.mrc import write_mrc
from frazil.model.optics import Optics
from frazil.simulator.camera import Camera
from frazil.simulator.encoding import encode_tiff
from frazil.simulator.movie import session_camera, simulate_movie, simulate_scene
from frazil.simulator.parameters import SimulationParameters
from frazil.simulator.truth import simulated_optics
from unit.algorithms.motion.beads import GRID, Beads

Images = np.ndarray[Any, Any]
PATCHES = 5

SIMULATED: dict[str, dict[str, Any]] = {
    "default session": {},
    "drift only, default": {"local_motion_angstrom": 0.0},
    "drift only, chain, 200 kV": {
        "particle": "chain",
        "voltage_kv": 200.0,
        "width_px": 1440,
        "contrast": 0.8,
        "pixel_size_angstrom": 2.0,
        "local_motion_angstrom": 0.0,
    },
    "drift only, octahedron": {
        "particle": "octahedron",
        "width_px": 1112,
        "height_px": 948,
        "contrast": 0.8,
        "pixel_size_angstrom": 1.1,
        "local_motion_angstrom": 0.0,
    },
    "1600 x 2048 x 40, strong": {
        "width_px": 1600,
        "height_px": 2048,
        "frame_count": 40,
        "pixel_size_angstrom": 1.06,
        "particles_per_movie": 90,
        "contrast": 0.5,
        "local_motion_angstrom": 8.0,
    },
}
BEADS: dict[str, dict[str, Any]] = {
    "beads, moderate": {"shape": (1024, 1280), "frame_count": 24, "across_px": 1.5, "contrast": 0.3},
    "beads, ten px across": {"shape": (1280, 960), "frame_count": 30, "across_px": 10.0, "contrast": 0.3},
    "beads, 2048 x 1440 x 36": {"shape": (1440, 2048), "frame_count": 36, "across_px": 3.0, "contrast": 0.2},
}

MOVIES_STAR = """
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
    options.add_argument("--only", default="")
    given = options.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    correct_movie(np.ones((2, 256, 256), np.uint8), None, None, Optics(pixel_size_angstrom=1.0))  # compiled before it is timed
    figures: dict[str, dict[str, float]] = {}
    for name in (name for name in (*SIMULATED, *BEADS) if given.only in name):
        runs = [simulated(name, seed) if name in SIMULATED else beads(name, seed) for seed in range(100, 100 + given.seeds)]
        figures[name] = {key: round(float(np.median([run[key] for run in runs])), 3) for key in runs[0]}
        print(f"{name:26s}", "  ".join(f"{key} {value:.3f}" for key, value in figures[name].items()), flush=True)
    print(json.dumps(figures))


def simulated(name: str, seed: int) -> dict[str, float]:
    """Measure one movie of the product's simulator."""
    parameters = SimulationParameters(**SIMULATED[name], seed=seed)
    movie, camera = simulate_movie(parameters, 0), session_camera(parameters)
    motion = simulate_scene(parameters, 0).motion
    local = np.stack([motion.local(GRID[:, ::-1], t)[:, ::-1] for t in range(parameters.frame_count)])
    drift = np.stack([movie.motion.shift_y_px, movie.motion.shift_x_px], axis=1)
    return measure(movie.frames, camera, simulated_optics(parameters), drift[:, None] - local)


def beads(name: str, seed: int) -> dict[str, float]:
    """Measure one movie of beads."""
    made = Beads(**BEADS[name], seed=seed)
    return measure(
        made.movie(), None, Optics(pixel_size_angstrom=1.1, dose_per_frame_e_per_angstrom2=1.0), -made.displacement(GRID)
    )


def measure(frames: Images, camera: Camera | None, optics: Optics, truth: Images) -> dict[str, float]:
    """Correct one movie by each program, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "movie.tiff").write_bytes(encode_tiff(frames))
        (home / "movies.star").write_text(MOVIES_STAR.format(optics=optics))
        if camera is not None:
            write_mrc(home / "gain.mrc", camera.gain, optics.pixel_size_angstrom)
            (home / "defects.txt").write_text("".join(f"{x} {y} {w} {h}\n" for x, y, w, h in camera.defect_boxes))
        start = time.process_time()
        corrected = ours(home, camera, optics)
        seconds = time.process_time() - start
        result = {"uncorrected_px": errors(np.zeros_like(truth), truth)[0]}
        result["error_px"], result["blur_px"] = errors(corrected.field.at(GRID), truth)
        result |= {"sigma_px": corrected.motion.sigma_px or float("nan"), "cpu_s": seconds}
        if shutil.which("relion_run_motioncorr"):
            shifts, relion_seconds = relion(home, camera, optics)
            result["relion_px"], result["relion_blur_px"] = errors(shifts, truth)
            result |= {"relion_cpu_s": relion_seconds, "error_ratio": result["error_px"] / result["relion_px"]}
            result["speed_ratio"] = relion_seconds / seconds
    return result


def ours(home: Path, camera: Camera | None, optics: Optics) -> CorrectedMovie:
    """Read a movie, correct it, write both sums."""
    gain = None if camera is None else camera.gain
    corrected = correct_movie(read_movie(home / "movie.tiff"), gain, bad_mask(camera), optics)
    for name, image in (("weighted.mrc", corrected.dose_weighted), ("plain.mrc", corrected.plain)):
        write_mrc(home / name, image, optics.pixel_size_angstrom)
    return corrected


def bad_mask(camera: Camera | None) -> Images | None:
    if camera is None:
        return None
    bad = np.zeros(camera.gain.shape, dtype=bool)
    for x, y, width, height in camera.defect_boxes:
        bad[y : y + height, x : x + width] = True
    return bad


def errors(shifts: Images, truth: Images) -> tuple[float, float]:
    """Two-dimensional RMS distance (frame, place, 2), one constant removed, and one constant per place removed."""
    error = shifts - truth
    parts = error - error.mean(axis=(0, 1)), error - error.mean(axis=0)
    return tuple(float(np.sqrt((part**2).sum(axis=2).mean())) for part in parts)  # type: ignore[return-value]


def relion(home: Path, camera: Camera | None, optics: Optics) -> tuple[Images, float]:
    """Run RELION's own implementation as a separate process; returns shifts (frame, place, 2) and CPU seconds."""
    command = ["relion_run_motioncorr", "--i", "movies.star", "--o", "out/", "--use_own", "--j", "1", "--bfactor", "150"]
    command += ["--patch_x", str(PATCHES), "--patch_y", str(PATCHES), "--dose_weighting", "--save_noDW"]
    command += ["--dose_per_frame", str(optics.dose_per_frame_e_per_angstrom2)]
    if camera is not None:
        command += ["--gainref", "gain.mrc", "--defect_file", "defects.txt"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=home, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = (home / "out" / "movie.star").read_text()
    whole = numbers(text, "data_global_shift")[:, [2, 1]]
    found = "data_local_motion_model" in text
    coefficients = numbers(text, "data_local_motion_model")[:, 1] if found else np.zeros(2 * COEFFICIENT_COUNT)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return relion_shifts(whole, coefficients, GRID), cpu


def numbers(text: str, table: str) -> Images:
    """Return the numeric rows of a table of a STAR file."""
    rows = text.split(table)[1].split("data_")[0].splitlines()
    return np.array([[float(v) for v in row.split()] for row in rows if row.split() and row.split()[0].isdigit()])


if __name__ == "__main__":
    main()
