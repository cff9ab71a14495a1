"""Homogeneous refinement and ab-initio of simulated stacks: CPU time, resolution, FSC to the truth, pose errors.

The stacks hold projections of the built-in CCT complex, whole or without one of its 16 subunits, of the chain, of made-up lobed
and random particles, all refined without symmetry, or of the made-up octahedron; noise is white, centres are off. The truth is
turned and moved into the frame of the poses found before maps are compared: images alone do not fix a frame. With --relion
the same particles go through `relion_refine_mpi --auto_refine` (RELION 3.1 or newer, PATH), and the ratio
of the CPU times is printed. `--noise` replaces every particle by noise: nothing finer than 35 Å may be claimed.
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
from frazil.algorithms.refine3d.sharpening import combined_weights
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
from frazil.simulator.atoms import Atoms, load_atoms
from frazil.simulator.potential import potential_volume, project

BLOCK = 50
TARGETS = {
    "cct": ("C1", 64, 4.4, 200.0),
    "octahedron": ("O", 64, 3.3, 151.0),
    "chain": ("C1", 48, 4.4, 150.0),
    "lobes": ("C1", 48, 5.0, 185.0),
    "random": ("C1", 48, 4.4, 150.0),
    "cct-less-one": ("C1", 48, 5.0, 200.0),
}
CCT_TWOFOLD = np.array([179.9, -6.0, 0.3])  # 4V8R is a C2 dimer; axis and angle as rotation vector, degrees, measured


def particle(target: str) -> Atoms:
    """The built-in particles, and made-up ones: unequal balls in two lobes or at random, CCT with a subunit cut away."""
    if target == "cct-less-one":
        whole = load_atoms("cct")
        x, y, z = whole.xyz_angstrom.T
        kept = ~((z > 0) & (np.arctan2(y, x) % (2 * np.pi) < np.pi / 4))
        return centred(whole.xyz_angstrom[kept], whole.atomic_number[kept], whole.b_factor_angstrom2)
    if target not in ("lobes", "random"):
        return load_atoms(target)
    random = np.random.default_rng(11)
    groups = {"lobes": (((0, 0, -25), 22, 55.0), ((15, 5, 50), 12, 38.0)), "random": (((0, 0, 0), 30, 65.0),)}
    xyz = []
    for centre, count, reach in groups[target]:
        for place in random.normal(size=(count, 3)):
            away = reach * random.uniform(0.1, 1) ** (1 / 3) * place / np.linalg.norm(place)
            radius = random.uniform(8, 16)
            filling = random.normal(size=(int(4.19 * radius**3 / 19), 3))
            filling *= radius * random.uniform(size=(len(filling), 1)) ** (1 / 3) / np.linalg.norm(filling, axis=1)[:, None]
            xyz.append(np.array(centre) + away + filling)
    return centred(np.concatenate(xyz), np.full(sum(map(len, xyz)), 6, np.uint8), 120.0)


def centred(xyz: np.ndarray[Any, Any], atomic_number: np.ndarray[Any, Any], b_factor: float) -> Atoms:
    middle = np.average(xyz, axis=0, weights=atomic_number)
    return Atoms((xyz - middle).astype(np.float32), atomic_number, b_factor)


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
    atoms = particle(target)
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


def common_frame(stack: Stack, poses: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the turn R from the truth's frame to that of the poses found, and what remains of each pose (particle, 3, 3).

    A_found R = A_true for most; mates of the symmetry are equal. The turn is that which most particles share within 6 degrees.
    """
    operators = symmetry(TARGETS[stack.target][0]).operators
    if stack.target == "cct":
        operators = np.stack([np.eye(3), from_rotation_vectors(np.deg2rad(CCT_TWOFOLD))])
    relative = np.einsum("nki,nkj->nij", poses, stack.poses)
    turn = max(relative[:200], key=lambda one: (angles_between(relative, one, operators) < 6).sum())
    for _ in range(4):
        mates = np.einsum("nij,gjk->ngik", relative, operators)
        nearest = np.einsum("ngik,ik->ng", mates, turn).argmax(axis=1)
        chosen = mates[np.arange(len(poses)), nearest]
        u, _, v = np.linalg.svd(chosen[angles_between(chosen, turn) < 8].mean(axis=0))
        turn = u @ v
    return turn, chosen @ turn.T


def pose_errors(stack: Stack, poses: np.ndarray[Any, Any]) -> dict[str, float]:
    error = angles_between(common_frame(stack, poses)[1], np.eye(3))
    return {
        "pose_error_median_degrees": float(np.median(error)),
        "pose_error_p90_degrees": float(np.quantile(error, 0.9)),
        "poses_within_2_degrees": float((error < 2).mean()),
        "poses_within_5_degrees": float((error < 5).mean()),
        "poses_beyond_10_degrees": float((error > 10).mean()),
    }


def truth_in_frame(stack: Stack, poses: np.ndarray[Any, Any], shifts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the truth's density in the frame of the poses and shifts found: shift_found = shift_true - (A_found t)_xy."""
    _, box, pixel, _ = TARGETS[stack.target]
    turn, rest = common_frame(stack, poses)
    near = angles_between(rest, np.eye(3)) < 10
    away = (stack.shifts - shifts)[near].ravel()
    move = np.linalg.lstsq(poses[near, :2].reshape(-1, 3), away, rcond=None)[0]
    atoms = particle(stack.target)
    moved = atoms.xyz_angstrom @ turn.T + move
    return potential_volume(Atoms(moved.astype(np.float32), atoms.atomic_number, atoms.b_factor_angstrom2), box, pixel)


def fsc_to_truth(
    stack: Stack, volume: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], mask: np.ndarray[Any, Any] | None = None
) -> dict[str, Any]:
    box, pixel, diameter = TARGETS[stack.target][1:]
    mask = soft_sphere(box, 0.55 * diameter / pixel, 4, np) if mask is None else mask
    curve = fourier_shell_correlation(volume * mask, truth * mask)
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
    poses, shifts = run.state.particles.pose.astype(np.float64), run.state.particles.shift.astype(np.float64)
    figures |= pose_errors(stack, poses)
    figures["fsc_corrected"] = np.round(published.curves.corrected, 3).tolist()
    figures["supported"] = published.supported
    average = (published.half_maps[0] + published.half_maps[1]) / 2
    figures |= fsc_to_truth(stack, average, truth_in_frame(stack, poses, shifts), published.mask)
    promised = combined_weights(published.curves.corrected)
    last = max(int(box * pixel / published.resolution_angstrom), 2)
    figures["promised_beyond_truth_max"] = float((promised - figures["fsc_to_truth"])[1:last].max())
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


def relion(
    stack: Stack, start: np.ndarray[Any, Any]
) -> tuple[dict[str, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
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
        columns = ("ImageName", "AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst")
        rows = star_rows(folder / "out" / "run_data.star", columns)
        order = np.array([int(r[0].split("@")[0]) - 1 for r in rows])
        poses = np.empty((len(rows), 3, 3))
        poses[order] = euler_to_matrix(*np.deg2rad(np.array([r[1:4] for r in rows], float)).T)
        shifts = np.empty((len(rows), 2))
        shifts[order] = -np.array([r[4:] for r in rows], float)
        model = (folder / "out" / "run_model.star").read_text()
        found = float(model.split("_rlnCurrentResolution")[1].split()[0])
    return {"cpu_seconds": cpu, "resolution_angstrom": found}, volume, poses, shifts


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
    _, figures = refine(stack, stack.truth, given.seed, streaming=given.streaming)
    figures["images_per_cpu_second_and_pass"] = len(stack.images) * figures["passes"] / figures["cpu_seconds"]
    if given.relion and shutil.which("relion_refine_mpi"):
        theirs, volume, poses, shifts = relion(stack, stack.truth)
        theirs |= pose_errors(stack, poses) | fsc_to_truth(stack, volume, truth_in_frame(stack, poses, shifts))
        figures["relion"] = theirs
        figures["cpu_ratio"] = theirs["cpu_seconds"] / figures["cpu_seconds"]
    for name, value in figures.items():
        print(f"{name:34s} {value:10.3f}" if isinstance(value, float) else f"{name:34s} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
