"""A small simulator of micrographs for tests, on its own feet: no code shared with `frazil.simulator` or `frazil.algorithms`.

Particles are clouds of point atoms in random orientations; the image is a weak phase object under a CTF, with structured ice
and Poisson counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_PHASE_PER_ATOM_RAD_ANGSTROM2 = 0.038  # 58 V Å3 of a protein atom above ice, times 6.5e-4 rad/(V Å)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is imaged, and how."""

    shape: tuple[int, int] = (1024, 1024)
    pixel_size_angstrom: float = 1.5
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    defocus_u_angstrom: float = 15_000.0
    defocus_v_angstrom: float = 14_800.0
    angle_degrees: float = 30.0
    dose_e_per_angstrom2: float = 30.0
    contrast: float = 0.5
    b_factor_angstrom2: float = 90.0
    ice_noise: float = 0.3  # variance of the ice's phase grain, relative to what shot noise would need
    gradient: float = 0.05
    particle: str = "lumps"
    particle_count: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Truth:
    """A micrograph `(y, x)` of counts, and the particles' centres `(n, 2)` as x, y."""

    image: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float64]
    diameter_angstrom: float


def particle_atoms(name: str) -> tuple[npt.NDArray[np.float64], float]:
    """Return atoms (n, 3) of a made-up particle and its diameter in Å."""
    rng = np.random.default_rng(11)
    if name == "lumps":  # compact, asymmetric, some 400 kDa
        lobes = rng.normal(0.0, 25.0, (12, 3))
        atoms = lobes[rng.integers(0, 12, 28_000)] + rng.normal(0.0, 13.0, (28_000, 3))
    elif name == "double ring":  # a barrel with a channel, some 900 kDa
        turn = rng.uniform(0, 2 * np.pi, 60_000)
        offset = rng.normal(0.0, 1.0, (60_000, 2)) * [13.0, 14.0]
        radius = 48.0 + offset[:, 0]
        height = np.where(rng.random(60_000) < 0.5, 33.0, -33.0) + offset[:, 1]
        atoms = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
    elif name == "shell":  # a hollow sphere, some 480 kDa
        direction = rng.normal(size=(34_000, 3))
        atoms = direction / np.linalg.norm(direction, axis=1, keepdims=True) * rng.uniform(40.0, 62.0, (34_000, 1))
    elif name == "rod":  # 230 Å long, 70 Å thick, some 700 kDa: a barrel
        axis = rng.uniform(-100.0, 100.0, 50_000)
        turn, radius = rng.uniform(0, 2 * np.pi, 50_000), 45.0 * np.sqrt(rng.random(50_000))
        atoms = np.stack([radius * np.cos(turn), radius * np.sin(turn), axis], axis=1)
    elif name == "membrane":  # a protein in a disc of detergent, some 250 kDa
        turn, radius = rng.uniform(0, 2 * np.pi, 9_000), 52.0 * np.sqrt(rng.random(9_000))
        disc = np.stack([radius * np.cos(turn), radius * np.sin(turn), rng.uniform(-20, 20, 9_000)], axis=1)
        atoms = np.concatenate([disc, rng.normal(0.0, 1.0, (9_000, 3)) * [20.0, 17.0, 32.0] + [0, 0, 15.0]])
    else:
        raise ValueError(name)
    atoms -= atoms.mean(axis=0)
    return atoms, float(2.0 * np.quantile(np.linalg.norm(atoms, axis=1), 0.99))


def simulate(scene: Scene) -> Truth:
    """Return a micrograph and its truth."""
    rng = np.random.default_rng(scene.seed)
    atoms, diameter = particle_atoms(scene.particle)
    centres = _place(scene, diameter, rng)
    phase = np.zeros(scene.shape[0] * scene.shape[1])
    for centre in centres:
        turned = (atoms @ _orientation(rng).T)[:, :2] / scene.pixel_size_angstrom + centre
        _splat(phase, turned, scene.shape)
    phase *= _PHASE_PER_ATOM_RAD_ANGSTROM2 / scene.pixel_size_angstrom**2
    expected = scene.dose_e_per_angstrom2 * scene.pixel_size_angstrom**2
    phase += rng.normal(0.0, np.sqrt(scene.ice_noise / expected) / scene.contrast / np.sqrt(2.0), phase.size)
    ky, kx = np.fft.fftfreq(scene.shape[0])[:, None], np.fft.rfftfreq(scene.shape[1])[None, :]
    sy, sx = ky / scene.pixel_size_angstrom, kx / scene.pixel_size_angstrom
    transfer = -2.0 * scene.contrast * ctf(scene, sx, sy) * np.exp(-scene.b_factor_angstrom2 / 4 * (sx**2 + sy**2))
    change = np.fft.irfft2(np.fft.rfft2(phase.reshape(scene.shape)) * transfer, s=scene.shape)
    slope = scene.gradient * np.linspace(-0.5, 0.5, scene.shape[1])
    counts = rng.poisson(np.maximum(expected * (1.0 + slope) * (1.0 + change), 0.0))
    return Truth(counts.astype(np.float32), centres, diameter)


def ctf(scene: Scene, sx: npt.NDArray[Any], sy: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The CTF by the formula of the conventions."""
    volts = scene.voltage_kv * 1e3
    wavelength = 12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts))
    s2, azimuth = sx**2 + sy**2, np.arctan2(sy, sx)
    u, v = scene.defocus_u_angstrom, scene.defocus_v_angstrom
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (azimuth - np.deg2rad(scene.angle_degrees)))
    chi = np.pi * wavelength * s2 * (defocus - wavelength**2 * s2 * scene.spherical_aberration_mm * 1e7 / 2)
    return np.asarray(np.sin(chi + np.arcsin(scene.amplitude_contrast)))


def _place(scene: Scene, diameter: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    apart, size = diameter / scene.pixel_size_angstrom, np.array(scene.shape[::-1])
    placed: list[npt.NDArray[np.float64]] = []
    for _ in range(100 * scene.particle_count):
        if len(placed) == scene.particle_count:
            break
        place = rng.uniform(0, size - 1)
        if all(np.hypot(*(place - other)) > 1.05 * apart for other in placed):
            placed.append(place)
    return np.array(placed).reshape(-1, 2)


def _orientation(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    q = rng.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _splat(canvas: npt.NDArray[np.float64], points: npt.NDArray[np.float64], shape: tuple[int, int]) -> None:
    """Add points (n, 2) as x, y bilinearly to a flat periodic canvas."""
    corner = np.floor(points).astype(np.int64)
    part = points - corner
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            index = ((corner[:, 1] + dy) % shape[0]) * shape[1] + (corner[:, 0] + dx) % shape[1]
            np.add.at(canvas, index, weight)
