"""A little microscope for these tests alone: pseudo-atoms in vitreous ice, weak-phase imaging, a specimen that flows, Poisson.

Nothing here is shared with the product: truth and estimate have no code in common but numpy's FFT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

Images = np.ndarray[Any, Any]
Particle = Literal["globule", "barrel"]
MARGIN_PX = 48
ICE_DIFFUSION = 0.5  # Å² per e/Å² and axis: water wanders under the beam (McMullan et al., Ultramicroscopy 2015)
PHASE_PER_ATOM = 0.027  # rad Å² at 300 kV, protein minus the water it displaces


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is in the field and how it is recorded."""

    shape: tuple[int, int] = (512, 640)  # y, x
    frame_count: int = 24
    pixel_size_angstrom: float = 1.06
    dose_per_px: float = 1.0  # electrons per pixel and frame
    particle: Particle = "globule"
    mass_kda: float = 450.0
    spacing_angstrom: float = 190.0
    ice: float = 1.0  # strength of the ice's own structure
    defocus_angstrom: float = 15_000.0
    voltage_kv: float = 300.0
    seed: int = 0

    @property
    def dose_per_frame_e_per_angstrom2(self) -> float:
        return self.dose_per_px / self.pixel_size_angstrom**2


def beam_induced_drift(frame_count: int, seed: int, scale_px: float = 4.0) -> Images:
    """A fast exponential start, slow drift and jitter: displacement `(frame, 2)` in px as (y, x), 0 at frame 0."""
    rng = np.random.default_rng(seed)
    t = np.arange(frame_count)
    early = rng.normal(size=2) * scale_px * (1 - np.exp(-t / rng.uniform(2, 6)))[:, None]
    late = rng.normal(size=2) * 0.05 * scale_px / 4 * t[:, None]
    jitter = np.cumsum(rng.normal(0, 0.1, (frame_count, 2)), axis=0)
    path = early + late + jitter
    return np.asarray(path - path[0])


def local_flow(scene: Scene, seed: int, across_px: float, steady: float = 0.3) -> Images:
    """How much further than the middle every place moves: `(frame, term, 2)` in px (y, x), 0 in frame 0, for `flow_at`.

    Each term has a time course of its own, an exponential start and a steady rest, unlike any polynomial in time; the
    displacement at the corners differs from that of the middle by about `across_px`.
    """
    rng = np.random.default_rng(seed + 500)
    t = np.arange(scene.frame_count)[:, None]
    sizes = rng.normal(size=(6, 2)) * np.array([1.4, 1.4, 1, 1, 1, 0.4])[:, None] * across_px / 1.5
    settled = 1 - np.exp(-t / rng.uniform(3, 12, 6))
    course = (1 - steady) * settled + steady * t / max(scene.frame_count - 1, 1)
    return np.asarray(course[:, :, None] * sizes)


def flow_at(flow: Images, places: Images) -> Images:
    """Return the displacement beyond the middle's, (frame, place, 2), at places (place, 2) in [-1/2, 1/2] as (y, x)."""
    y, x = places[:, 0], places[:, 1]
    shapes = np.stack([x, y, 2 * x * y, x * x, y * y, 4 * np.sin(2 * x + y) ** 3], axis=1)
    return np.einsum("pb,tba->tpa", shapes, flow)


def expose(scene: Scene, displacement: Images, gain: Images | None = None, flow: Images | None = None) -> Images:
    """Record a movie, uint8 `(frame, y, x)`; `displacement` is where the specimen has gone, px (y, x) per frame.

    With a gain reference the counts are divided by it before they are drawn, as an uneven detector does. With a flow, places
    move beyond the displacement, ice and particles alike.
    """
    rng = np.random.default_rng(scene.seed)
    canvas = tuple(n + 2 * MARGIN_PX for n in scene.shape)
    ky = np.fft.fftfreq(canvas[0])[:, None]
    kx = np.fft.rfftfreq(canvas[1])[None]
    s = np.hypot(ky, kx) / scene.pixel_size_angstrom
    optics = 2 * np.sin(_chi(s, scene)) * np.exp(-40.0 * s**2 / 4)
    protein = np.fft.rfft2(_specimen(canvas, scene, rng)) / scene.pixel_size_angstrom**2
    critical = 0.245 * np.maximum(s, 1e-4) ** -1.665 + 2.81
    ice_shape = scene.ice * 0.3 / scene.pixel_size_angstrom * np.sqrt(0.06 + np.exp(-((s - 1 / 3.7) ** 2) / (2 * 0.04**2)))
    ice = np.fft.rfft2(rng.normal(size=canvas))
    stay = np.exp(-2 * np.pi**2 * s**2 * ICE_DIFFUSION * scene.dose_per_frame_e_per_angstrom2)
    sensitivity = scene.dose_per_px if gain is None else scene.dose_per_px / gain
    movie = np.empty((scene.frame_count, *scene.shape), np.uint8)
    for t in range(scene.frame_count):
        if t:
            ice = stay * ice + np.sqrt(1 - stay**2) * np.fft.rfft2(rng.normal(size=canvas))
        damage = np.exp(-scene.dose_per_frame_e_per_angstrom2 * (t + 0.5) / (2 * critical))
        phase = np.exp(-2j * np.pi * (ky * displacement[t, 0] + kx * displacement[t, 1]))
        wave = -(protein * damage + ice * ice_shape) * optics * phase
        image = np.fft.irfft2(wave, s=canvas)
        if flow is not None:
            image = _carried(image, displacement[t], flow[t], scene.shape)
        intensity = 1 + image[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
        movie[t] = np.minimum(rng.poisson(np.maximum(intensity, 0.02) * sensitivity), 255)
    return movie


def _carried(image: Images, displacement: Images, flow: Images, shape: tuple[int, int]) -> Images:
    """Let an image that has moved by `displacement` flow: what started at p, now at p + displacement, moves by flow(p)."""
    here = np.stack(np.mgrid[: image.shape[0], : image.shape[1]], axis=-1).reshape(-1, 2).astype(float)
    origin = here.copy()
    for _ in range(3):  # where it came from: p + displacement + flow(p) = here
        relative = (origin - displacement - MARGIN_PX) / np.array(shape) - 0.5
        origin = here - flow_at(flow[None], relative)[0]
    return ndimage.map_coordinates(image, origin.T.reshape(2, *image.shape), order=3, mode="grid-wrap").astype(image.dtype)


def rms_error(shift_applied: Images, displacement: Images) -> float:
    """Two-dimensional RMS distance in px between an estimate and the truth, one constant removed."""
    error = np.asarray(shift_applied) + displacement
    error = error - error.mean(axis=0)
    return float(np.sqrt((error**2).sum(axis=1).mean()))


def _chi(s: Images, scene: Scene) -> Images:
    volts = scene.voltage_kv * 1e3
    wavelength = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    spherical = 2.7e7
    return np.asarray(np.pi * wavelength * s**2 * (scene.defocus_angstrom - wavelength**2 * s**2 * spherical / 2) + 0.1)


def _specimen(canvas: tuple[int, ...], scene: Scene, rng: np.random.Generator) -> Images:
    """Projected phase of all particles, rad Å² per pixel; each is one fixed molecule in a random orientation."""
    atoms = _molecule(scene)
    side = np.array(canvas) * scene.pixel_size_angstrom
    count = max(3, int(np.prod(side) / scene.spacing_angstrom**2))
    field = np.zeros(canvas)
    weight = PHASE_PER_ATOM * scene.mass_kda * 71 / len(atoms)
    for _ in range(count):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        y, x = ((atoms @ turn)[:, :2] + rng.uniform(0, side)).T / scene.pixel_size_angstrom
        np.add.at(field, (np.round(y).astype(int) % canvas[0], np.round(x).astype(int) % canvas[1]), weight)
    return field


def _molecule(scene: Scene) -> Images:
    """Pseudo-atoms `(atom, 3)` in Å: chains of random walks inside a ball or inside the wall of a barrel."""
    rng = np.random.default_rng(99 if scene.particle == "globule" else 77)
    count, atoms = 2500, []
    radius = (3 / (4 * np.pi) * scene.mass_kda * 1210) ** (1 / 3)
    here = np.zeros(3) if scene.particle == "globule" else np.array([radius, 0, 0.0])
    while len(atoms) < count:
        step = rng.normal(size=3) * 3.8
        there = here + step
        if scene.particle == "globule":
            inside = np.linalg.norm(there) < radius
        else:
            inside = 0.65 * radius < np.hypot(there[0], there[1]) < 1.1 * radius and abs(there[2]) < radius
        if inside:
            here = there
            atoms.append(here)
    return np.array(atoms)
