"""CTF estimation and picking on simulated movies that do not move: errors against the truth, F1, CPU seconds.

F1 is that of the blob picker, of the template picker (48 projections of the particle) and, where `relion_autopick` is on the
PATH, of RELION's Laplacian of Gaussian on the same micrographs, also with the centres' RMS error in diameters. Conditions
differ in particle, pixel size, voltage, dose and frame size. Only the optics and the particle's diameter are told.
Run with --movies for the number per condition and --only for one condition; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import scipy.fft

from frazil.algorithms.ctf.estimate import estimate_ctf
from frazil.algorithms.detection.peaks import Limits
from frazil.algorithms.dose_weighting import dose_weights, frame_exposures
from frazil.algorithms.extraction import advise_box, extract
from frazil.algorithms.pick_thresholds import picked
from frazil.algorithms.picking import blob, template
from frazil.algorithms.templates import Templates, project
from frazil.io.mrc import write_mrc
from frazil.io.star import read_star
from frazil.model.ctf import Ctf
from frazil.model.optics import Optics
from frazil.primitives.fourier import frequency_radius
from frazil.simulator.atoms import load_atoms
from frazil.simulator.movie import session_camera, simulate_movie
from frazil.simulator.parameters import SimulationParameters
from frazil.simulator.potential import potential_volume

FRAMES = 5  # few frames of much dose: nothing moves, and counts are all that matters


@dataclass(frozen=True)
class Condition:
    particle: str
    pixel: float
    voltage: float
    dose: float
    width: int
    height: int
    count: int
    contrast: float = 0.5
    tilt: float = 0.0


CONDITIONS = {
    "cct 1.76 Å 300 kV": Condition("cct", 1.76, 300.0, 40.0, 1280, 1280, 70),
    "cct 0.8 Å 300 kV": Condition("cct", 0.8, 300.0, 40.0, 2048, 2048, 35),
    "cct 2.2 Å 200 kV": Condition("cct", 2.2, 200.0, 30.0, 1024, 1024, 60),
    "cct 1.5 Å 200 kV, 20 e": Condition("cct", 1.5, 200.0, 20.0, 1536, 1536, 60),
    "chain 1.5 Å 300 kV": Condition("chain", 1.5, 300.0, 40.0, 1536, 1536, 90, contrast=0.8),
    "chain 2.2 Å 200 kV": Condition("chain", 2.2, 200.0, 40.0, 1024, 1024, 90, contrast=0.8),
}
# No number in the code was chosen by looking at these.
UNSEEN = {
    "octahedron 0.6 Å 300 kV": Condition("octahedron", 0.6, 300.0, 50.0, 4096, 2880, 60),
    "octahedron 1.05 Å 300 kV": Condition("octahedron", 1.05, 300.0, 40.0, 2880, 2048, 100),
    "octahedron 1.3 Å 200 kV": Condition("octahedron", 1.3, 200.0, 40.0, 2304, 1728, 100),
    "octahedron 1.6 Å 300 kV": Condition("octahedron", 1.6, 300.0, 30.0, 2048, 1440, 110),
    "octahedron 1.3 Å 300 kV, tilted": Condition("octahedron", 1.3, 300.0, 40.0, 2304, 1728, 100, tilt=30.0),
}


def micrographs(condition: Condition, index: int, seed: int) -> tuple[Any, Any, Any, Optics]:
    """The plain and the dose-weighted sum of a movie, and its truth."""
    parameters = SimulationParameters(
        seed=seed, particle=condition.particle, particles_per_movie=condition.count, width_px=condition.width,
        height_px=condition.height, frame_count=FRAMES, pixel_size_angstrom=condition.pixel, voltage_kv=condition.voltage,
        spherical_aberration_mm=2.7 if condition.voltage > 250 else 1.4, contrast=condition.contrast,
        dose_per_frame_e_per_angstrom2=condition.dose / FRAMES, motion_angstrom=0.0, local_motion_angstrom=0.0,
        tilt_degrees=condition.tilt, tilt_axis_degrees=40.0, defocus_max_angstrom=25_000.0,
    )  # fmt: skip
    movie = simulate_movie(parameters, index)
    camera = session_camera(parameters)
    frames = movie.frames * camera.gain
    bad = camera.gain == 0
    bad.reshape(-1)[camera.hot_index] = True
    for x, y, width, height in camera.defect_boxes:
        bad[y : y + height, x : x + width] = True
    frames[:, bad] = np.random.default_rng(seed).poisson(parameters.electrons_per_px, (FRAMES, int(bad.sum())))
    s = frequency_radius((condition.height, condition.width), np) / np.float32(condition.pixel)
    exposures = frame_exposures(FRAMES, parameters.dose_per_frame_e_per_angstrom2, 0.0)
    weighted = (dose_weights(s, exposures, condition.voltage) * scipy.fft.rfft2(frames.astype(np.float32))).sum(axis=0)
    optics = Optics(
        pixel_size_angstrom=condition.pixel,
        voltage_kv=condition.voltage,
        spherical_aberration_mm=parameters.spherical_aberration_mm,
        amplitude_contrast=parameters.amplitude_contrast,
    )
    image = scipy.fft.irfft2(weighted, s=frames.shape[1:]).astype(np.float32)
    return frames.sum(axis=0, dtype=np.float32), image, movie, optics


@cache
def templates(particle: str) -> Templates:
    """Projections of the particle."""
    atoms = load_atoms(particle)
    box = 2 * int(1.6 * atoms.diameter_angstrom / 4.0 / 2.0)
    return project(potential_volume(atoms, box, 4.0), 4.0)


def relion_log(image: Any, pixel_size: float, diameter: float) -> Any:
    """Picks of RELION's Laplacian of Gaussian, (n, 2) as x, y."""
    with tempfile.TemporaryDirectory() as home:
        write_mrc(Path(home) / "m.mrc", image, pixel_size)
        command = ["relion_autopick", "--i", "m.mrc", "--odir", "out/", "--pickname", "log", "--LoG", "--shrink", "0"]
        command += ["--LoG_diam_min", f"{0.9 * diameter:.1f}", "--LoG_diam_max", f"{1.1 * diameter:.1f}", "--lowpass", "20"]
        subprocess.run([*command, "--angpix", str(pixel_size)], cwd=home, check=True, capture_output=True)
        table: Any = next(iter(read_star(Path(home) / "out" / "m_log.star").values()))
    return np.stack([table["rlnCoordinateX"], table["rlnCoordinateY"]], axis=1)


def agreement(found: Any, truth: Any, diameter_px: float, size: tuple[int, int]) -> tuple[float, float, float]:
    """Precision, recall and the RMS error of centres in diameters; particles not wholly inside count neither way."""
    if len(found) == 0:
        return 0.0, 0.0, 0.0
    distance = np.hypot(*(found[:, None] - truth[None]).transpose(2, 0, 1))
    free_picks, pairs = set(range(len(found))), {}
    for flat in np.argsort(distance, axis=None):
        i, j = divmod(int(flat), len(truth))
        if distance[i, j] > 0.35 * diameter_px:
            break
        if i in free_picks and j not in pairs:
            pairs[j] = i
            free_picks.discard(i)
    whole = ((truth > diameter_px / 2) & (truth < np.array(size) - diameter_px / 2)).all(axis=1)
    hits = sum(bool(whole[j]) for j in pairs)
    off = [distance[i, j] for j, i in pairs.items() if whole[j]] or [0.0]
    return (
        hits / max(1, hits + len(free_picks)),
        hits / max(1, int(whole.sum())),
        float(np.sqrt(np.mean(np.square(off)))) / diameter_px,
    )


def ctf_error(found: Ctf, truth: Ctf) -> float:
    """RMS error of the defocus over the field, Å."""
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 21), np.linspace(-0.5, 0.5, 21))
    wrong = found.mean_defocus_angstrom - truth.mean_defocus_angstrom + found.field.at(x, y) - truth.field.at(x, y)
    return float(np.sqrt(np.mean(np.square(wrong))))


def astigmatism_vector(ctf: Ctf) -> complex:
    """U - V at twice its angle."""
    return complex(ctf.astigmatism_angstrom * np.exp(2j * np.deg2rad(ctf.defocus_angle_degrees)))


def measure(condition: Condition, index: int, seed: int, ctf_only: bool = False) -> dict[str, float]:
    plain, weighted, movie, optics = micrographs(condition, index, seed)
    diameter = load_atoms(condition.particle).diameter_angstrom
    clock = [time.process_time()]
    ctf = estimate_ctf(plain, optics=optics, dose_weighted=weighted).ctf
    clock.append(time.process_time())
    fit = {
        "defocus_error": ctf_error(ctf, movie.ctf),
        "astigmatism_error": float(abs(astigmatism_vector(ctf) - astigmatism_vector(movie.ctf))),
        "fitted": float(ctf.fit_resolution_angstrom is not None),
    }
    if ctf_only:
        return fit | {"ctf_s": clock[1] - clock[0]}
    size = {"diameter_min_angstrom": diameter, "diameter_max_angstrom": diameter}
    picks = picked(blob.search(weighted, blob.BlobParameters(**size), optics=optics, seed=1), Limits())
    clock.append(time.process_time())
    matched = template.TemplateParameters(templates=templates(condition.particle), **size)
    fitted = None if ctf.fit_resolution_angstrom is None else ctf
    template_picks = picked(template.search(weighted, matched, optics=optics, ctf=fitted, seed=1), Limits())
    clock.append(time.process_time())
    box = advise_box(diameter, condition.pixel)
    extract(weighted, picks, box=box, pixel_size_angstrom=condition.pixel, particle_diameter_angstrom=diameter, seed=1)
    clock.append(time.process_time())
    places = {
        name: np.array([(p.x_px, p.y_px) for p in some]).reshape(-1, 2)
        for name, some in (("blob", picks), ("template", template_picks))
    }
    if shutil.which("relion_autopick"):
        places["relion_log"] = relion_log(weighted, condition.pixel, diameter)
    truth = np.stack([movie.particles["coordinate_x_px"], movie.particles["coordinate_y_px"]], axis=1)
    picking = {}
    for name, found in places.items():
        precision, recall, off = agreement(found, truth, diameter / condition.pixel, (condition.width, condition.height))
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        picking |= {f"{name}_precision": precision, f"{name}_recall": recall, f"{name}_f1": f1, f"{name}_off": off}
    return {
        **fit,
        **picking,
        **dict(zip(("ctf_s", "pick_s", "template_s", "extract_s"), np.diff(clock).tolist(), strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--movies", type=int, default=2)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--only", default="", help="conditions whose name holds this")
    parser.add_argument("--unseen", action="store_true", help="conditions that nothing was chosen by")
    parser.add_argument("--ctf-only", action="store_true", help="leave picking away")
    options = parser.parse_args()
    measure(Condition("cct", 3.0, 300.0, 30.0, 512, 512, 10), 0, options.seed)  # compile and warm up
    everything = []
    for name, condition in (UNSEEN if options.unseen else CONDITIONS).items():
        if options.only not in name:
            continue
        rows = [measure(condition, index, options.seed, options.ctf_only) for index in range(options.movies)]
        everything += rows
        print(f"{name:31} {line(average(rows))}", flush=True)
    found = {key: round(value, 4) for key, value in average(everything).items()}
    found["defocus_error_rms"] = round(float(np.sqrt(np.mean([row["defocus_error"] ** 2 for row in everything]))), 1)
    found["astigmatism_error_median"] = round(float(np.median([row["astigmatism_error"] for row in everything])), 1)
    print(json.dumps(found))


def line(mean: dict[str, float]) -> str:
    """What is printed of a condition."""
    pickers = (
        f"{name} F1 {mean[f'{name}_f1']:.2f} (p {mean[f'{name}_precision']:.2f}, r {mean[f'{name}_recall']:.2f}, "
        f"off {mean[f'{name}_off']:.3f} d)"
        for name in ("blob", "template", "relion_log")
        if f"{name}_f1" in mean
    )
    seconds = " + ".join(f"{mean[name]:.2f}" for name in ("ctf_s", "pick_s", "template_s", "extract_s") if name in mean)
    return (
        f"defocus {mean['defocus_error']:4.0f} Å  astigmatism {mean['astigmatism_error']:4.0f} Å  fitted {mean['fitted']:.2f}  "
        f"{'  '.join(pickers)}  CPU {seconds} s"
    )


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every figure."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


if __name__ == "__main__":
    main()
