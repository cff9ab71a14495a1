"""A simulator of its own for 2D classification: Gaussian chains, analytic transforms, CTF, noise, off-centre particles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.model.optics import Optics

PIXEL = 4.0


@dataclass
class Stack:
    """Images with their truth: `kind` is the view a particle shows, -1 for junk; psi in radians, shift in Å."""

    box: int
    images: np.ndarray
    kind: np.ndarray
    psi: np.ndarray
    shift: np.ndarray
    clean: np.ndarray  # (view, box, box), centred, psi 0
    defocus: np.ndarray

    def blocks(self, size: int) -> list[ParticleBlock]:
        uids = np.arange(len(self.images), dtype=np.uint64) * np.uint64(7919)
        return [
            ParticleBlock(
                sequence=number + 1,
                uid=uids[rows],
                images=self.images[rows],
                defocus_u_angstrom=self.defocus[rows] + 300,
                defocus_v_angstrom=self.defocus[rows],
                defocus_angle_degrees=np.full(len(uids[rows]), 30.0),
                phase_shift_degrees=np.zeros(len(uids[rows])),
                optics=Optics(pixel_size_angstrom=PIXEL),
            )
            for number, rows in enumerate(slice(start, start + size) for start in range(0, len(self.images), size))
        ]


def ctf(frequency: tuple[np.ndarray, np.ndarray], defocus: float) -> np.ndarray:
    """300 kV, Cs 2.7 mm, 10 %, 300 Å of astigmatism at 30 degrees: written out again, from the page of conventions."""
    x, y = (f / PIXEL for f in frequency)
    wavelength, s2 = 0.0196876, x**2 + y**2
    local = defocus + 150 + 150 * np.cos(2 * (np.arctan2(y, x) - np.deg2rad(30)))
    return np.sin(np.pi * wavelength * s2 * (local - 0.5 * wavelength**2 * s2 * 2.7e7) + np.arcsin(0.1))


def make_stack(
    box: int, count: int, views: list[np.ndarray], *, snr: float, junk: float = 0.0, spread: float = 4.0, seed: int = 0
) -> Stack:
    """Each view is (blob, 3): x, y in Å and weight; blobs have a sigma of 9 Å. `spread`: sigma of the shifts in Å."""
    random = np.random.default_rng(seed)
    frequency = (np.fft.rfftfreq(box)[None, :], np.fft.fftfreq(box)[:, None])

    def transform(view: np.ndarray, psi: float, shift: np.ndarray) -> np.ndarray:
        rotation = np.array([[np.cos(psi), np.sin(psi)], [-np.sin(psi), np.cos(psi)]])
        places = (view[:, :2] @ rotation.T + shift) / PIXEL
        phase = np.exp(-2j * np.pi * (frequency[0] * places[:, 0, None, None] + frequency[1] * places[:, 1, None, None]))
        envelope = np.exp(-2 * np.pi**2 * (9.0 / PIXEL) ** 2 * (frequency[0] ** 2 + frequency[1] ** 2))
        return (view[:, 2, None, None] * phase).sum(axis=0) * envelope

    def image(spectrum: np.ndarray) -> np.ndarray:
        return np.fft.fftshift(np.fft.irfft2(spectrum, s=(box, box)), axes=(-2, -1))

    kind = random.integers(0, len(views), count)
    kind[random.random(count) < junk] = -1
    psi, shift = random.uniform(0, 2 * np.pi, count), random.normal(0, spread, (count, 2))
    defocus = random.uniform(10_000, 20_000, count)
    images = np.zeros((count, box, box))
    for i in np.flatnonzero(kind >= 0):
        images[i] = image(transform(views[kind[i]], psi[i], shift[i]) * ctf(frequency, defocus[i]))
    images *= np.sqrt(snr / np.median(images[kind >= 0].var(axis=(1, 2))))
    images += random.normal(size=images.shape)
    clean = np.array([image(transform(view, 0.0, np.zeros(2))) for view in views])
    return Stack(box, images.astype(np.float32), kind, psi, shift, clean, defocus)


def chain(seed: int, length: int, radius: float) -> np.ndarray:
    """A random chain of blobs within a radius in Å, its mass in the middle."""
    random = np.random.default_rng(seed)
    angle = np.cumsum(random.uniform(0.4, 1.6, length))
    distance = radius * np.sqrt(random.uniform(0.05, 1, length))
    weight = random.uniform(0.5, 1.5, length)
    places = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)
    return np.column_stack([places - np.average(places, axis=0, weights=weight), weight])


@pytest.fixture(scope="session")
def simulate() -> Callable[..., Stack]:
    return make_stack


@pytest.fixture(scope="session")
def blob_chain() -> Callable[..., np.ndarray]:
    return chain


@pytest.fixture(scope="session")
def tiny_stack() -> Stack:
    """120 images of three views in 32 px: enough to go through every phase in a second."""
    return make_stack(32, 120, [chain(s, 9, 35.0) for s in (1, 2, 3)], snr=0.3, seed=5)


def tiny_arguments() -> dict[str, Any]:
    return {"box_size_px": 32, "pixel_size_angstrom": PIXEL}
