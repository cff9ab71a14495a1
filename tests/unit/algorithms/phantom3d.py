"""Particles of Gaussian blobs: analytic volumes and projections, CTF, noise, shifts, from docs/conventions.md alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.io.particles import PARTICLE_DTYPE, write_particles
from frazil.model.optics import Optics
from frazil.model.particles import half_set

BOX, PIXEL, DIAMETER = 32, 6.0, 115.0
SIGMA = 8.0  # of a blob, Å


@dataclass
class Phantom:
    """Images with their truth: pose A (3, 3), shift (x, y) in Å, and the volume they show, in their units."""

    images: np.ndarray
    pose: np.ndarray
    shift: np.ndarray
    defocus: np.ndarray
    volume: np.ndarray

    def blocks(self, size: int, first_sequence: int = 1) -> list[ParticleBlock]:
        uid = np.arange(len(self.images), dtype=np.uint64) * np.uint64(7919)
        return [
            ParticleBlock(
                sequence=number,
                uid=uid[rows],
                images=self.images[rows],
                defocus_u_angstrom=self.defocus[rows] + 300,
                defocus_v_angstrom=self.defocus[rows],
                defocus_angle_degrees=np.full(len(uid[rows]), 30.0),
                phase_shift_degrees=np.zeros(len(uid[rows])),
                optics=Optics(pixel_size_angstrom=PIXEL),
            )
            for number, rows in enumerate((slice(a, a + size) for a in range(0, len(self.images), size)), start=first_sequence)
        ]


def blobs(seed: int = 3, count: int = 14, radius: float = 42.0) -> np.ndarray:
    """Rows x, y, z in Å and weight; without symmetry, the mass in the middle."""
    random = np.random.default_rng(seed)
    places = random.normal(size=(count, 3))
    places *= radius * random.uniform(0.1, 1, (count, 1)) ** (1 / 3) / np.linalg.norm(places, axis=1, keepdims=True)
    weight = random.uniform(0.5, 1.5, count)
    return np.column_stack([places - np.average(places, axis=0, weights=weight), weight])


def symmetric_blobs(operators: np.ndarray, seed: int = 3, count: int = 3) -> np.ndarray:
    """Blobs repeated by every operator of a group."""
    unit = blobs(seed, count)
    places = np.einsum("gij,pj->gpi", operators, unit[:, :3] + [10.0, 4.0, 18.0]).reshape(-1, 3)
    return np.column_stack([places, np.tile(unit[:, 3], len(operators))])


def in_found_frame(particle: np.ndarray, phantom: Phantom, pose: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The particle turned and moved by what found poses have in common: images alone do not fix a map's frame.

    pose, shift: found, near the truth for most: A_found R = A_true, and shift_found = shift_true - (A_found t)_xy.
    """
    relative = np.swapaxes(pose, 1, 2) @ phantom.pose
    near = np.trace(relative, axis1=1, axis2=2) > 1 + 2 * np.cos(np.deg2rad(10))
    u, _, v = np.linalg.svd(relative[near].mean(axis=0))
    away = (phantom.shift - shift)[near].ravel()
    move = np.linalg.lstsq(pose[near, :2].reshape(-1, 3), away, rcond=None)[0]
    return np.column_stack([particle[:, :3] @ (u @ v).T + move, particle[:, 3]])


def volume_of(particle: np.ndarray) -> np.ndarray:
    """(z, y, x), a Gaussian of unit height per blob."""
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    factors = [np.exp(-((axis[None, :] - particle[:, i, None]) ** 2) / (2 * SIGMA**2)) for i in range(3)]
    return np.einsum("p,pz,py,px->zyx", particle[:, 3], factors[2], factors[1], factors[0]).astype(np.float32)


def transform(particle: np.ndarray, pose: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Half transform of a projection about the box centre, divided by the box: blobs at the first two components of A r."""
    kx, ky = np.fft.rfftfreq(BOX)[None, :] / PIXEL, np.fft.fftfreq(BOX)[:, None] / PIXEL
    places = particle[:, :3] @ pose[:2].T + shift
    phase = np.exp(-2j * np.pi * (kx * places[:, 0, None, None] + ky * places[:, 1, None, None]))
    height = (np.sqrt(2 * np.pi) * SIGMA / PIXEL) ** 3
    envelope = height * np.exp(-2 * np.pi**2 * SIGMA**2 * (kx**2 + ky**2))
    return (particle[:, 3, None, None] * phase).sum(axis=0) * envelope


def ctf(defocus: float) -> np.ndarray:
    """300 kV, Cs 2.7 mm, 10 %, 300 Å of astigmatism at 30 degrees."""
    x, y = np.fft.rfftfreq(BOX)[None, :] / PIXEL, np.fft.fftfreq(BOX)[:, None] / PIXEL
    wavelength, s2 = 0.0196876, x**2 + y**2
    local = defocus + 150 + 150 * np.cos(2 * (np.arctan2(y, x) - np.deg2rad(30)))
    return np.sin(np.pi * wavelength * s2 * (local - 0.5 * wavelength**2 * s2 * 2.7e7) + np.arcsin(0.1))


def simulate(particle: np.ndarray | None, count: int, *, snr: float = 0.3, spread: float = 6.0, seed: int = 0) -> Phantom:
    """`snr`: variance of particles over the box by that of the noise; `spread`: sigma of the shifts, Å; None: noise alone."""
    random = np.random.default_rng(seed)
    quaternion = random.normal(size=(count, 4))
    w, x, y, z = (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).T
    pose = np.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
         2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
         2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1).reshape(-1, 3, 3)  # fmt: skip
    shift, defocus = random.normal(0, spread, (count, 2)), random.uniform(10_000, 20_000, count)
    images = np.zeros((count, BOX, BOX))
    scale = 1.0
    if particle is not None:
        for i in range(count):
            spectrum = transform(particle, pose[i], shift[i]) * ctf(defocus[i])
            images[i] = np.fft.fftshift(np.fft.irfft2(spectrum, s=(BOX, BOX)))
        scale = np.sqrt(snr / np.median(images.var(axis=(1, 2))))
    images = scale * images + random.normal(size=images.shape)
    volume = np.zeros((BOX,) * 3, np.float32) if particle is None else scale * volume_of(particle)
    return Phantom(images.astype(np.float32), pose, shift, defocus, volume)


def write_shards(phantom: Phantom, folder: Path, size: int) -> list[tuple[str, int]]:
    """Write the particles as preprocessing leaves them, a shard per micrograph; returns the shards' folders and counts."""
    shards = []
    for block in phantom.blocks(size):
        table = np.zeros(len(block.uid), dtype=PARTICLE_DTYPE)
        table["uid"], table["pixel_size_angstrom"] = block.uid, PIXEL
        for name in ("defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_degrees"):
            table[name] = getattr(block, name)
        table["voltage_kv"], table["spherical_aberration_mm"], table["amplitude_contrast"] = 300.0, 2.7, 0.1
        table["half_set"] = [half_set(int(uid)) for uid in block.uid]
        write_particles(folder / f"shard{block.sequence}", block.images, table)
        shards.append((f"shard{block.sequence}", len(table)))
    return shards
