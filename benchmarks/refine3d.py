"""Homogeneous refinement and ab-initio of simulated stacks: CPU time, resolution, FSC to the truth, pose errors.

The stacks hold projections of the built-in CCT complex, refined without symmetry, or of the made-up octahedron; noise is white,
centres are off. With --relion the same particles go through `relion_refine_mpi --auto_refine` (RELION 3.1 or newer, PATH),
and the ratio of the CPU times is printed. `--noise` replaces every particle by noise: nothing finer than 35 Å may be claimed.
The last line is JSON.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("FRAZIL_THREADS", "1")

import numpy as np

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.algorithms.ctf.model import ctf_at
from frazil.algorithms.refine3d.fsc import fourier_shell_correlation
from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.results import Refined, publish
from frazil.algorithms.refine3d.stream import StreamingRefinement
from frazil.io.mrc import read_mrc, write_mrc
from frazil.model.optics import Optics
from frazil.primitives.rotations import (
    angles_between,
    euler_to_matrix,
    from_rotation_vectors,
    random_matrices,
)
from frazil.primitives.symmetry import symmetry
from frazil.primitives.volumes import soft_sphere
from frazil.simulator.atoms import load_atoms
from frazil.simulator.potential import potential_volume, project

BLOCK = 50
TARGETS = {"cct": ("C1", 64, 4.4, 200.0), "octahedron": ("O", 64, 3.3, 151.0)}
CCT_TWOFOLD = np.array([179.9, -6.0, 0.3])  # 4V8R is a C2 dimer; axis and angle as rotation vector, degrees, measured


@dataclass
class Stack:
    target: str
    images: np.ndarray[Any, Any]
    defocus: np.ndarray[Any, Any]  # U, V, angle
    poses: np.ndarray[Any, Any]
    shifts: np.ndarray[Any, Any]  # x, y in Å: where the particle sits
    truth: np.ndarray[Any, Any]

    @property
    def pixel(self) -> float:
        return TARGETS[self.target][2]


def make_stack(target: str, count: int, snr: float, seed: int, *, noise_only: bool = False) -> Stack:
    """SNR: median variance of the particles over the whole box, CTF applied, by that of the noise."""
    _, box, pixel, _ = TARGETS[target]
    random = np.random.default_rng(seed)
    atoms = load_atoms(target)
    kx, ky = np.fft.rfftfreq(box)[None, :], np.fft.fftfreq(box)[:, None]
    poses, shifts = random_matrices(count, random), random.normal(0, 1.5 * pixel, (count, 2))
    low = random.uniform(9_000, 22_000, count)
    defocus = np.stack([low + random.uniform(0, 800, count), low, random.uniform(0, 180, count)], axis=1)
    images = np.zeros((count, box, box), np.float32)
    for i in range(0 if noise_only else count):
        centre = box // 2 + shifts[i] / pixel
        image = project(atoms, poses[i], (centre[0], centre[1]), box, pixel)
        ctf = ctf_at(kx / pixel, ky / pixel, defocus_u_angstrom=defocus[i, 0], defocus_v_angstrom=defocus[i, 1],
                     defocus_angle_degrees=defocus[i, 2], optics=Optics(pixel_size_angstrom=pixel))  # fmt: skip
        images[i] = np.fft.irfft2(np.fft.rfft2(image) * ctf)
    if not noise_only:
        images *= np.sqrt(snr / np.median(images.var(axis=(1, 2))))
    images += random.normal(size=images.shape).astype(np.float32)
    return Stack(target, images, defocus, poses, shifts, potential_volume(atoms, box, pixel))


def blocks(stack: Stack) -> list[ParticleBlock]:
    count = len(stack.images)
    uid = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return [
        ParticleBlock(
            sequence=number + 1,
            uid=uid[rows],
            images=stack.images[rows],
            defocus_u_angstrom=stack.defocus[rows, 0],
            defocus_v_angstrom=stack.defocus[rows, 1],
            defocus_angle_degrees=stack.defocus[rows, 2],
            phase_shift_degrees=np.zeros(len(uid[rows])),
            optics=Optics(pixel_size_angstrom=stack.pixel),
        )
        for number, rows in enumerate(slice(a, a + BLOCK) for a in range(0, count, BLOCK))
    ]


def pose_errors(stack: Stack, poses: np.ndarray[Any, Any]) -> dict[str, float]:
    """Errors after the common turn between the map's frame and the truth's is taken off; mates of the symmetry are equal."""
    operators = symmetry(TARGETS[stack.target][0]).operators
    if stack.target == "cct":
        operators = np.stack([np.eye(3), from_rotation_vectors(np.deg2rad(CCT_TWOFOLD))])
    relative = np.einsum("nki,nkj->nij", poses, stack.poses)  # A_found^T A: the turn of the frame
    mates = np.einsum("nij,gkj->ngik", relative, operators)
    nearest = np.einsum("ngii->ng", mates).argmax(axis=1)
    turn = mates[np.arange(len(poses)), nearest]
    for _ in range(3):
        vector = np.stack([turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], 1) / 2
        close = angles_between(turn, np.eye(3)) < 8
        turn = from_rotation_vectors(-vector[close].mean(axis=0)) @ turn if close.any() else turn
    error = angles_between(turn, np.eye(3))
    return {
        "pose_error_median_degrees": float(np.median(error)),
        "pose_error_p90_degrees": float(np.quantile(error, 0.9)),
        "poses_within_2_degrees": float((error < 2).mean()),
        "poses_within_5_degrees": float((error < 5).mean()),
    }


def fsc_to_truth(stack: Stack, volume: np.ndarray[Any, Any]) -> dict[str, Any]:
    box, pixel, diameter = TARGETS[stack.target][1:]
    mask = soft_sphere(box, 0.55 * diameter / pixel, 4, np)
    curve = fourier_shell_correlation(volume * mask, stack.truth * mask)
    below = np.flatnonzero(curve[1:] < 0.5)
    last = int(below[0]) if below.size else len(curve) - 1
    return {"fsc_to_truth_half_angstrom": box * pixel / max(last, 1), "fsc_to_truth": np.round(curve, 3).tolist()}


def refine(stack: Stack, start: np.ndarray[Any, Any], seed: int, *, streaming: bool = False) -> tuple[Refined, dict[str, Any]]:
    group, box, pixel, diameter = TARGETS[stack.target]
    parts = blocks(stack)
    count = len(stack.images)
    parameters = Refine3dParameters(particle_diameter_angstrom=diameter, symmetry=group, seed=seed,
                                    first_images=max(count // 4, 100) if streaming else count)  # fmt: skip
    started = time.process_time()
    run = StreamingRefinement(parameters, box_size_px=box, pixel_size_angstrom=pixel, start=start)
    for block in parts:
        run.add_block(block)
        while streaming and run.advance():
            report(run)
    run.request_finalise()
    while run.advance():
        report(run)
    cpu = time.process_time() - started
    published = publish(run)
    figures: dict[str, Any] = {
        "cpu_seconds": cpu,
        "resolution_angstrom": published.resolution_angstrom,
        "passes": run.state.counters.generation,
    }
    figures |= pose_errors(stack, run.state.particles.pose.astype(np.float64))
    return published, figures


_shown: dict[int, int] = {}


def report(run: StreamingRefinement) -> None:
    rows = run.state.history
    if len(rows) and _shown.get(id(run)) != len(rows):
        _shown[id(run)] = len(rows)
        particles, kind, radius, resolved, jumped, probability, generation, update = rows[-1]
        name = ("dense", "global", "local")[int(kind)] + (" update" if update else "")
        line = f"  {generation:3.0f} {name:13s} N {particles:6.0f}  r {radius:5.1f}  FSC to {resolved:5.1f}"
        line += f"  jumped {jumped:6.1%}  P {probability:.2f}  {time.process_time():.1f} s"
        print(line, file=sys.stderr, flush=True)


def relion(stack: Stack, start: np.ndarray[Any, Any]) -> tuple[dict[str, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Run RELION's auto-refine with two half sets on one process each; its CPU time includes start, reading and writing."""
    group, _, pixel, diameter = TARGETS[stack.target]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mrc(folder / "particles.mrcs", stack.images, pixel, image_stack=True)
        write_mrc(folder / "start.mrc", start.astype(np.float32), pixel)
        (folder / "particles.star").write_text(relion_star(stack))
        (folder / "out").mkdir()
        command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "relion_refine_mpi", "--o", "out/run",
                   "--i", "particles.star", "--ref", "start.mrc", "--auto_refine", "--split_random_halves", "--ini_high", "40",
                   "--firstiter_cc", "--ctf", "--sym", group, "--particle_diameter", str(diameter), "--flatten_solvent",
                   "--zero_mask", "--healpix_order", "2", "--offset_range", "5", "--offset_step", "2", "--oversampling", "1",
                   "--auto_local_healpix_order", "4", "--low_resol_join_halves", "40", "--norm", "--scale", "--j", "1",
                   "--pad", "1", "--dont_combine_weights_via_disc", "--random_seed", "1"]  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        volume, _ = read_mrc(folder / "out" / "run_class001.mrc")
        rows = star_rows(folder / "out" / "run_data.star", ("ImageName", "AngleRot", "AngleTilt", "AnglePsi"))
        order = np.array([int(r[0].split("@")[0]) - 1 for r in rows])
        poses = np.empty((len(rows), 3, 3))
        poses[order] = euler_to_matrix(*np.deg2rad(np.array([r[1:] for r in rows], float)).T)
        model = (folder / "out" / "run_model.star").read_text()
        found = float(model.split("_rlnCurrentResolution")[1].split()[0])
    return {"cpu_seconds": cpu, "resolution_angstrom": found}, volume, poses


def relion_star(stack: Stack) -> str:
    _, box, pixel, _ = TARGETS[stack.target]
    optics = ("OpticsGroup", "OpticsGroupName", "Voltage", "SphericalAberration", "AmplitudeContrast", "ImagePixelSize",
              "ImageSize", "ImageDimensionality")  # fmt: skip
    columns = ("ImageName", "DefocusU", "DefocusV", "DefocusAngle", "OpticsGroup", "MicrographName", "GroupNumber")
    rows = [
        f"{i + 1:06d}@particles.mrcs {u:.2f} {v:.2f} {angle:.3f} 1 m{i // BLOCK:04d}.mrc {1 + i // 500}"
        for i, (u, v, angle) in enumerate(stack.defocus)
    ]
    tables = (("optics", optics, [f"1 opticsGroup1 300 2.7 0.1 {pixel} {box} 2"]), ("particles", columns, rows))
    return "".join(
        f"\n# version 30001\n\ndata_{name}\n\nloop_\n" + "".join(f"_rln{c}\n" for c in names) + "\n".join(lines) + "\n\n"
        for name, names, lines in tables
    )


def star_rows(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    table = path.read_text().split("data_particles")[1].splitlines()
    names = [line.split()[0] for line in table if line.startswith("_rln")]
    chosen = [names.index(f"_rln{c}") for c in columns]
    return [[line.split()[i] for i in chosen] for line in table if len(line.split()) == len(names)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="octahedron")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--streaming", action="store_true", help="blocks arrive while the run goes on")
    parser.add_argument("--noise", action="store_true", help="noise in place of every particle")
    parser.add_argument("--relion", action="store_true", help="run RELION's auto-refine as well: about 20 minutes")
    given = parser.parse_args()
    stack = make_stack(given.target, given.images, given.snr, 7, noise_only=given.noise)
    refine(make_stack(given.target, 60, 0.3, 99), stack.truth, 1)  # compiles
    published, figures = refine(stack, stack.truth, given.seed, streaming=given.streaming)
    _describe(stack, published, figures)
    if given.relion and shutil.which("relion_refine_mpi"):
        theirs, volume, poses = relion(stack, stack.truth)
        theirs |= pose_errors(stack, poses) | fsc_to_truth(stack, volume)
        figures["relion"] = theirs
        figures["cpu_ratio"] = theirs["cpu_seconds"] / figures["cpu_seconds"]
    for name, value in figures.items():
        print(f"{name:34s} {value:10.3f}" if isinstance(value, float) else f"{name:34s} {value}")
    print(json.dumps(figures))


def _describe(stack: Stack, published: Refined, figures: dict[str, Any]) -> None:
    figures["images_per_cpu_second_and_pass"] = len(stack.images) * figures["passes"] / figures["cpu_seconds"]
    figures["fsc_corrected"] = np.round(published.curves.corrected, 3).tolist()
    figures["supported"] = published.supported
    figures |= fsc_to_truth(stack, (published.half_maps[0] + published.half_maps[1]) / 2)


if __name__ == "__main__":
    main()
