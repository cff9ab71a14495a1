"""2D classification of a simulated stack: images per second, CPU seconds, and how well the classes part the views.

The stack holds projections of the built-in CCT complex (65 000 atoms) with what spoils picks: centre errors, half fragments,
pure noise, ice, neighbours. Run with --images, --classes, --seed, --stack; the last line is JSON. With --relion N the same
particles go through N iterations of `relion_refine` (RELION 3.1's 2D classification, on the PATH): `relion_ratio` is its CPU
seconds, extrapolated to its default of 25 iterations, to ours for the whole run.
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
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numba
import numpy as np
import scipy.fft

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.algorithms.class2d.parameters import Class2dParameters
from frazil.algorithms.class2d.stream import Streaming2d
from frazil.algorithms.ctf.model import ctf_at
from frazil.io.mrc import write_mrc
from frazil.io.star import read_star, write_star
from frazil.model.optics import Optics

BOX, PIXEL, DIAMETER = 64, 4.4, 185.0
OPTICS = Optics(pixel_size_angstrom=PIXEL)
GOOD, FRAGMENT, NOISE, ICE = range(4)
BLOCK = 50
RELION_ITERATIONS = 25  # its default


@dataclass
class Stack:
    images: np.ndarray[Any, Any]
    clean: np.ndarray[Any, Any]  # projections without CTF, noise, shift
    defocus: np.ndarray[Any, Any]  # U, V, angle
    kind: np.ndarray[Any, Any]
    view: np.ndarray[Any, Any]  # projection direction


@numba.njit
def splat(points, weights, rotation, out, scale):  # type: ignore[no-untyped-def]
    half = out.shape[0] // 2
    for i in range(points.shape[0]):
        x = scale * (rotation[0, 0] * points[i, 0] + rotation[0, 1] * points[i, 1] + rotation[0, 2] * points[i, 2]) + half
        y = scale * (rotation[1, 0] * points[i, 0] + rotation[1, 1] * points[i, 1] + rotation[1, 2] * points[i, 2]) + half
        ix, iy = int(np.floor(x)), int(np.floor(y))
        if ix < 0 or iy < 0 or ix + 1 >= out.shape[1] or iy + 1 >= out.shape[0]:
            continue
        fx, fy = x - ix, y - iy
        out[iy, ix] += weights[i] * (1 - fx) * (1 - fy)
        out[iy, ix + 1] += weights[i] * fx * (1 - fy)
        out[iy + 1, ix] += weights[i] * (1 - fx) * fy
        out[iy + 1, ix + 1] += weights[i] * fx * fy


def random_rotation(random: np.random.Generator) -> np.ndarray[Any, Any]:
    w, x, y, z = random.normal(size=4)
    n = np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / n, x / n, y / n, z / n
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def frequencies() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.fft.rfftfreq(BOX)[None, :], np.fft.fftfreq(BOX)[:, None]


def project(points: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], rotation: np.ndarray[Any, Any]) -> Any:
    """Half-plane transform, about the centre, of a projection at the box's sampling."""
    fine = np.zeros((2 * BOX, 2 * BOX))
    splat(points, weights, rotation, fine, 2 / PIXEL)
    spectrum = scipy.fft.rfft2(scipy.fft.ifftshift(fine))
    half = BOX // 2
    cropped = np.concatenate([spectrum[:half], spectrum[-half:]])[:, : half + 1]
    kx, ky = frequencies()
    return cropped * np.exp(-150 * (kx**2 + ky**2) / PIXEL**2 / 4)


def make_stack(count: int, snr: float, seed: int) -> Stack:
    random = np.random.default_rng(seed)
    atoms = np.load(files("frazil.simulator").joinpath("data/cct_4v8r.npz"))
    points = atoms["xyz_centi_angstrom"] / 100.0
    points = points - points.mean(axis=0)
    weights = atoms["atomic_number"].astype(float)
    upper = points[:, 2] > 0
    kx, ky = frequencies()
    kinds = random.choice(4, count, p=[0.918, 0.04, 0.025, 0.017])
    low = random.uniform(10_000, 22_000, count)
    defocus = np.stack([low + random.uniform(0, 800, count), low, random.uniform(0, 180, count)], axis=1)
    images = np.zeros((count, BOX, BOX), np.float32)
    clean = np.zeros_like(images)
    view = np.zeros((count, 3))
    for i in range(count):
        rotation = random_rotation(random)
        view[i] = rotation[2]
        keep = upper if kinds[i] == FRAGMENT else slice(None)
        spectrum = project(points[keep], weights[keep], rotation) * (kinds[i] in (GOOD, FRAGMENT))
        clean[i] = scipy.fft.fftshift(scipy.fft.irfft2(spectrum))
        shift = random.normal(0, 2.7, 2)
        spectrum = spectrum * np.exp(-2j * np.pi * (kx * shift[0] + ky * shift[1]))
        if random.random() < 0.35:
            angle, far = random.uniform(0, 2 * np.pi), random.uniform(1.0, 1.3) * DIAMETER / PIXEL
            neighbour = project(points, weights, random_rotation(random))
            spectrum = spectrum + neighbour * np.exp(-2j * np.pi * far * (kx * np.cos(angle) + ky * np.sin(angle)))
        ctf = ctf_at(
            kx / PIXEL,
            ky / PIXEL,
            defocus_u_angstrom=defocus[i, 0],
            defocus_v_angstrom=defocus[i, 1],
            defocus_angle_degrees=defocus[i, 2],
            optics=OPTICS,
        )
        images[i] = scipy.fft.fftshift(scipy.fft.irfft2(spectrum * ctf))
        if kinds[i] == ICE:
            y, x = np.mgrid[:BOX, :BOX] - BOX / 2 - random.normal(0, 3, (2, 1, 1))
            images[i] += np.exp(-(x**2 + y**2) / (2 * random.uniform(4, 9) ** 2))
    good = kinds == GOOD
    amplitude = np.sqrt(snr / np.median(images[good].var(axis=(1, 2))))
    ice = kinds == ICE
    images[~ice] *= amplitude
    images[ice] *= 1.5
    images += random.normal(size=images.shape).astype(np.float32)
    return Stack(images, clean, defocus, kinds, view)


def blocks(stack: Stack) -> list[ParticleBlock]:
    parts = []
    for number, start in enumerate(range(0, len(stack.images), BLOCK)):
        rows = slice(start, start + BLOCK)
        parts.append(
            ParticleBlock(
                sequence=number + 1,
                uid=np.arange(len(stack.images), dtype=np.uint64)[rows] * np.uint64(0x9E3779B97F4A7C15),
                images=stack.images[rows],
                defocus_u_angstrom=stack.defocus[rows, 0],
                defocus_v_angstrom=stack.defocus[rows, 1],
                defocus_angle_degrees=stack.defocus[rows, 2],
                phase_shift_degrees=np.zeros(len(stack.images[rows])),
                optics=OPTICS,
            )
        )
    return parts


def view_spread(classes: np.ndarray[Any, Any], view: np.ndarray[Any, Any]) -> float:
    """Size-weighted median angle, degrees, of members to the member that has the smallest; views are equal under D2."""
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    total = 0.0
    for k in np.unique(classes):
        members = view[classes == k]
        cosine = np.max([members @ (members * s).T for s in signs], axis=0)
        total += len(members) * np.median(np.degrees(np.arccos(np.clip(cosine, -1, 1))), axis=1).min()
    return total / len(classes)


def measures(stack: Stack, classes: np.ndarray[Any, Any], rejected: np.ndarray[Any, Any]) -> dict[str, float]:
    """How well classes part views and junk: see each key."""
    share = np.bincount(classes) / len(classes)
    good = stack.kind == GOOD
    shuffled = np.random.default_rng(0).permutation(classes[good])
    junk_share = np.bincount(classes[~good], minlength=len(share)) / np.maximum(np.bincount(classes), 1)
    return {
        "effective_classes": float(1 / (share**2).sum()),
        "view_spread_degrees": view_spread(classes[good], stack.view[good]),
        "view_spread_random_degrees": view_spread(shuffled, stack.view[good]),
        "junk_in_junk_classes": float((junk_share[classes[~good]] > 0.5).mean()),
        "junk_rejected": float(rejected[~good].mean()),
        "good_rejected": float(rejected[good].mean()),
    }


def relion(stack: Stack, class_count: int, iterations: int) -> tuple[np.ndarray[Any, Any], float]:
    """Classify by RELION on one thread; return the classes, from 0, and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        write_mrc(Path(folder) / "particles.mrcs", stack.images, PIXEL, image_stack=True)
        count = len(stack.images)
        optics = {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["one"],
            "rlnVoltage": [OPTICS.voltage_kv],
            "rlnSphericalAberration": [OPTICS.spherical_aberration_mm],
            "rlnAmplitudeContrast": [OPTICS.amplitude_contrast],
            "rlnImagePixelSize": [PIXEL],
            "rlnImageSize": [BOX],
            "rlnImageDimensionality": [2],
        }
        particles = {
            "rlnImageName": [f"{number:06d}@particles.mrcs" for number in range(1, count + 1)],
            "rlnDefocusU": stack.defocus[:, 0],
            "rlnDefocusV": stack.defocus[:, 1],
            "rlnDefocusAngle": stack.defocus[:, 2],
            "rlnOpticsGroup": np.ones(count, dtype=int),
        }
        write_star(Path(folder) / "particles.star", {"optics": optics, "particles": particles})
        (Path(folder) / "out").mkdir()
        command = [
            "relion_refine",
            "--i",
            "particles.star",
            "--o",
            "out/run",
            "--iter",
            str(iterations),
            "--K",
            str(class_count),
        ]
        command += ["--ctf", "--tau2_fudge", "2", "--particle_diameter", str(DIAMETER), "--flatten_solvent", "--zero_mask"]
        command += ["--oversampling", "1", "--psi_step", "12", "--offset_range", "5", "--offset_step", "2", "--norm", "--scale"]
        command += ["--pad", "2", "--pool", "3", "--dont_combine_weights_via_disc", "--random_seed", "1", "--j", "1"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = read_star(Path(folder) / f"out/run_it{iterations:03d}_data.star")["particles"]
        order = np.array([int(str(name).partition("@")[0]) for name in found["rlnImageName"]]) - 1
        classes = np.zeros(count, dtype=int)
        classes[order] = np.asarray(found["rlnClassNumber"], dtype=int) - 1
        return classes, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snr", type=float, default=0.06)
    parser.add_argument("--stack", type=int, default=7, help="seed of the particles")
    parser.add_argument("--relion", type=int, default=0, metavar="N", help="run N iterations of RELION as well")
    given = parser.parse_args()
    warm_up = Streaming2d(parameters(8, given.seed), box_size_px=BOX, pixel_size_angstrom=PIXEL)
    for block in blocks(make_stack(300, given.snr, 99)):
        warm_up.add_block(block)
    warm_up.finalise()  # compiles

    stack = make_stack(given.images, given.snr, given.stack)
    started, wall = time.process_time(), time.perf_counter()
    run = Streaming2d(parameters(given.classes, given.seed), box_size_px=BOX, pixel_size_angstrom=PIXEL)
    for block in blocks(stack):
        run.add_block(block)
        while run.advance():
            pass
    live = time.process_time() - started
    run.finalise()
    cpu, wall = time.process_time() - started, time.perf_counter() - wall
    found, summaries = run.assignments(), run.class_summaries()
    selected = np.array([s.selected for s in summaries])
    resolutions = [s.resolution_angstrom for s in summaries if s.selected and s.resolution_angstrom]
    figures = {
        "images": given.images,
        "classes": given.classes,
        "cpu_seconds": cpu,
        "cpu_seconds_before_final_passes": live,
        "wall_seconds": wall,
        "images_per_cpu_second": given.images / cpu,
        "image_visits": run.work.images,
        "image_visits_per_cpu_second": run.work.images / cpu,
        "gflop": run.work.flop / 1e9,
        "gflop_per_cpu_second": run.work.flop / 1e9 / cpu,
        **measures(stack, found.class_index, ~selected[found.class_index]),
        "median_resolution_of_good_classes_angstrom": float(np.median(resolutions)),
    }
    if given.relion and shutil.which("relion_refine"):
        classes, spent = relion(stack, given.classes, given.relion)
        kept = {"effective_classes", "view_spread_degrees", "junk_in_junk_classes"}
        theirs = measures(stack, classes, np.zeros(len(classes), dtype=bool))
        figures |= {f"relion_{name}": value for name, value in theirs.items() if name in kept}
        figures |= {"relion_iterations": given.relion, "relion_cpu_seconds": spent}
        figures["relion_ratio"] = spent / given.relion * RELION_ITERATIONS / cpu
    for name, value in figures.items():
        print(f"{name:45s} {value:10.3f}" if isinstance(value, float) else f"{name:45s} {value:10d}")
    print(json.dumps(figures))


def parameters(class_count: int, seed: int) -> Class2dParameters:
    return Class2dParameters(particle_diameter_angstrom=DIAMETER, class_count=class_count, seed=seed)


if __name__ == "__main__":
    main()
