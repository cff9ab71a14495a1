"""One exposure before the camera: particles, ice, contaminants, CTF and motion, as expected electrons without noise.

The physics of a weak phase object (docs/conventions.md): expected / mean = 1 - 2 CTF * phase, protein dark under focus.
The scene is computed on a canvas larger than the frame, so that drift and CTF fringes bring in what lies outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from frazil.algorithms.motion.field import terms
from frazil.kernels.gain import uncorrected
from frazil.kernels.warp import APRON_PX, add_warped_raw, sharpened
from frazil.model.ctf import Ctf, DefocusField
from frazil.simulator.atoms import Atoms
from frazil.simulator.motion import SpecimenMotion, draw_motion
from frazil.simulator.parameters import SimulationParameters
from frazil.simulator.potential import electron_wavelength, interaction_constant, orientation_matrix, project

_MARGIN_PX = 40
_LAYER_ANGSTROM = 120.0
_ICE_SPACING_ANGSTROM, _ICE_RING_WIDTH = 3.67, 0.004  # Å, 1/Å
_TRUTH = [
    ("coordinate_x_px", "f8"),
    ("coordinate_y_px", "f8"),
    ("rot_degrees", "f8"),
    ("tilt_degrees", "f8"),
    ("psi_degrees", "f8"),
    ("fragment", "?"),
]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is true of one exposure.

    `particles` is structured: coordinates in px of the frame (frame 0, 0-based; some lie outside the frame), angles, whether
    broken. `projections` (particle, y, x) are phases in rad, each particle's centre at its box's centre plus the
    fraction of its coordinate. `ice` is the transform of the phases of everything else.
    """

    parameters: SimulationParameters
    ctf: Ctf
    motion: SpecimenMotion
    particles: npt.NDArray[Any]
    projections: npt.NDArray[np.float32]
    ice: npt.NDArray[np.complex64]
    illumination: npt.NDArray[np.float32]

    def places(self) -> npt.NDArray[np.float64]:
        """Return the particles' places (n, 2), x and y in [-1/2, 1/2] where inside the frame."""
        size = np.array([self.parameters.width_px, self.parameters.height_px])
        xy = np.stack([self.particles["coordinate_x_px"], self.particles["coordinate_y_px"]], axis=1)
        return np.asarray(xy / size - 0.5)


def draw_scene(parameters: SimulationParameters, atoms: Atoms, rng: np.random.Generator) -> Scene:
    """Draw one exposure of a session."""
    ctf = _draw_ctf(parameters, rng)
    motion = draw_motion(parameters, rng)
    particles = _draw_particles(parameters, atoms.diameter_angstrom, rng)
    return Scene(
        parameters,
        ctf,
        motion,
        particles,
        _project_all(parameters, atoms, particles, rng),
        _draw_ice(parameters, rng),
        _draw_illumination(parameters, rng),
    )


class Renderer:
    """Renders the frames of a scene in order; the shared transforms and filters are computed once."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        p = scene.parameters
        self._shape = canvas_shape(p)
        self._ky = scipy.fft.fftfreq(self._shape[0]).astype(np.float32)
        self._kx = scipy.fft.rfftfreq(self._shape[1]).astype(np.float32)
        sy, sx = self._ky[:, None] / p.pixel_size_angstrom, self._kx / p.pixel_size_angstrom
        s2 = sx**2 + sy**2
        envelope = p.contrast * np.exp(-0.25 * p.envelope_b_angstrom2 * s2)
        self._layers = [(-2.0 * contrast_transfer(ctf, p, sx, sy) * envelope, weight) for ctf, weight in _layers(scene.ctf, p)]
        self._decay = 0.5 / critical_exposure(np.sqrt(s2), p.voltage_kv)  # amplitude falls as exp(-dose x decay)
        moving = bool(scene.motion.field.any())
        self._ice = scipy.fft.irfft2(scene.ice, s=self._shape).astype(np.float32) if moving else None
        self._still = None if moving else self._specimen(0)

    def expected(self, frame: int, *, damaged: bool = True) -> npt.NDArray[np.float32]:
        """Return the expected electrons per pixel `(y, x)` of one frame; the frame's dose is counted to its middle."""
        p = self._scene.parameters
        specimen = self._still if self._still is not None else self._specimen(frame)
        damage = np.exp(np.float32(-(frame + 0.5) * p.dose_per_frame_e_per_angstrom2) * self._decay)
        dx, dy = self._scene.motion.drift[frame]
        inside = (slice(_MARGIN_PX, _MARGIN_PX + p.height_px), slice(_MARGIN_PX, _MARGIN_PX + p.width_px))
        change = np.zeros((p.height_px, p.width_px), dtype=np.float32)
        for transfer, weight in self._layers:
            filtered = specimen * transfer
            if damaged:
                filtered *= damage
            filtered *= np.exp(-2j * np.pi * dy * self._ky).astype(np.complex64)[:, None]
            filtered *= np.exp(-2j * np.pi * dx * self._kx).astype(np.complex64)
            change += weight * scipy.fft.irfft2(filtered, s=self._shape)[inside]
        expected = p.electrons_per_px * self._scene.illumination * (1.0 + change)
        return np.asarray(np.maximum(expected, 0.0, dtype=np.float32))

    def _specimen(self, frame: int) -> npt.NDArray[np.complex64]:
        """Return the transform of the phases of the whole canvas, the local motion of this frame applied to all of it."""
        scene = self._scene
        images, ice = scene.projections, scene.ice
        canvas = np.zeros(self._shape, dtype=np.float32)
        if self._ice is not None and frame:
            images = _shifted(images, scene.motion.local(scene.places(), frame))
            canvas, ice = _flowed(self._ice, scene, frame), np.zeros_like(ice)
        half = images.shape[1] // 2
        for image, particle in zip(images, scene.particles, strict=True):
            x = int(np.floor(particle["coordinate_x_px"])) + _MARGIN_PX - half
            y = int(np.floor(particle["coordinate_y_px"])) + _MARGIN_PX - half
            _add(canvas, image, y, x)
        spectrum = scipy.fft.rfft2(canvas) + ice
        spectrum[self._shape[0] // 2 :: self._shape[0], :] = 0.0  # Nyquist lines cannot be shifted by fractions
        spectrum[:, self._shape[1] // 2] = 0.0
        return spectrum


def canvas_shape(parameters: SimulationParameters) -> tuple[int, int]:
    """Return the canvas `(y, x)`: the frame and a margin on all sides, rounded up to a good even FFT length."""

    def good(size: int) -> int:
        return 2 * int(scipy.fft.next_fast_len((size + 2 * _MARGIN_PX + 1) // 2, real=True))

    return good(parameters.height_px), good(parameters.width_px)


def contrast_transfer(ctf: Ctf, parameters: SimulationParameters, sx: Any, sy: Any) -> npt.NDArray[np.float32]:
    """Return +sin chi at frequencies `sx`, `sy` in 1/Å, which broadcast together (docs/conventions.md)."""
    wavelength = electron_wavelength(parameters.voltage_kv)
    spherical = parameters.spherical_aberration_mm * 1e7
    s2 = sx**2 + sy**2
    angle = np.arctan2(sy, sx) - np.deg2rad(ctf.defocus_angle_degrees)
    defocus = ctf.mean_defocus_angstrom + 0.5 * ctf.astigmatism_angstrom * np.cos(2.0 * angle)
    chi = np.pi * wavelength * s2 * (defocus - 0.5 * wavelength**2 * s2 * spherical)
    offset = np.deg2rad(ctf.phase_shift_degrees) + np.arcsin(parameters.amplitude_contrast)
    return np.asarray(np.sin(chi + offset), dtype=np.float32)


def critical_exposure(s: npt.NDArray[Any], voltage_kv: float) -> npt.NDArray[np.float32]:
    """Return N_e(s) in e/Å² (Grant & Grigorieff 2015, eLife 06980): 0.245 s^-1.665 + 2.81 at 300 kV, 0.8 of it at 200 kV."""
    scale = float(np.interp(voltage_kv, [100.0, 200.0, 300.0], [0.64, 0.8, 1.0]))
    return np.asarray(scale * (0.245 * np.maximum(s, 1e-6) ** -1.665 + 2.81), dtype=np.float32)


def _draw_ctf(parameters: SimulationParameters, rng: np.random.Generator) -> Ctf:
    mean = rng.uniform(parameters.defocus_min_angstrom, parameters.defocus_max_angstrom)
    half = 0.5 * rng.uniform(0.0, parameters.astigmatism_max_angstrom)
    return Ctf(
        defocus_u_angstrom=mean + half,
        defocus_v_angstrom=mean - half,
        defocus_angle_degrees=rng.uniform(0.0, 180.0),
        phase_shift_degrees=parameters.phase_shift_degrees,
        field=_defocus_field(parameters),
    )


def _defocus_field(parameters: SimulationParameters) -> DefocusField:
    uphill = np.deg2rad(parameters.tilt_axis_degrees - 90.0)
    slope = np.tan(np.deg2rad(parameters.tilt_degrees)) * parameters.pixel_size_angstrom
    across = (slope * np.cos(uphill) * parameters.width_px, slope * np.sin(uphill) * parameters.height_px)
    curvature = -4.0 * parameters.doming_angstrom
    return DefocusField((float(across[0]), float(across[1]), curvature, 0.0, curvature))


def _layers(ctf: Ctf, parameters: SimulationParameters) -> Iterator[tuple[Ctf, npt.NDArray[np.float32]]]:
    """Yield CTFs of layers of defocus that are close to each other, and the share (y, x), or 1, that each has of a pixel."""
    if ctf.field.flat:
        yield ctf, np.ones((1, 1), dtype=np.float32)
        return
    y = (np.arange(parameters.height_px)[:, None] + 0.5) / parameters.height_px - 0.5
    x = (np.arange(parameters.width_px) + 0.5) / parameters.width_px - 0.5
    offset = ctf.field.at(x + 0.0 * y, y + 0.0 * x)
    depths = np.linspace(offset.min(), offset.max(), 2 + int(np.ptp(offset) // _LAYER_ANGSTROM))
    for depth in depths:
        u, v = ctf.defocus_u_angstrom + depth, ctf.defocus_v_angstrom + depth
        share = np.maximum(0.0, 1.0 - np.abs(offset - depth) / (depths[1] - depths[0]))
        yield replace(ctf, defocus_u_angstrom=u, defocus_v_angstrom=v, field=DefocusField()), share.astype(np.float32)


def _draw_particles(parameters: SimulationParameters, diameter_angstrom: float, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Place particles one after the other, apart by their diameter but for a few, a few cut by the frame's edge."""
    diameter = diameter_angstrom / parameters.pixel_size_angstrom
    size = np.array([parameters.width_px, parameters.height_px], dtype=np.float64)
    wanted = max(0, round(parameters.particles_per_movie * rng.uniform(0.85, 1.15)))
    placed: list[npt.NDArray[np.float64]] = []
    for _ in range(200 * wanted):
        if len(placed) == wanted:
            break
        place = rng.uniform(-0.25 * diameter, size + 0.25 * diameter)
        free = all(np.hypot(*(place - other)) > 1.03 * diameter for other in placed)
        if free or rng.random() < parameters.overlap_fraction / 20.0:
            placed.append(place)
    particles = np.zeros(len(placed), dtype=_TRUTH)
    if placed:
        particles["coordinate_x_px"], particles["coordinate_y_px"] = np.array(placed).T
    particles["rot_degrees"] = rng.uniform(-180.0, 180.0, len(placed))
    particles["tilt_degrees"] = np.rad2deg(np.arccos(rng.uniform(-1.0, 1.0, len(placed))))
    particles["psi_degrees"] = rng.uniform(-180.0, 180.0, len(placed))
    particles["fragment"] = rng.random(len(placed)) < parameters.fragment_fraction
    return particles


def _project_all(
    parameters: SimulationParameters, atoms: Atoms, particles: npt.NDArray[Any], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Project every particle in its orientation; the fraction of its coordinate is in the image already."""
    reach = atoms.diameter_angstrom / parameters.pixel_size_angstrom * 1.1 + 12.0
    box = 2 * int(scipy.fft.next_fast_len(int(np.ceil(reach / 2)), real=True))
    sigma = np.float32(interaction_constant(parameters.voltage_kv))
    images = np.zeros((len(particles), box, box), dtype=np.float32)
    for image, particle in zip(images, particles, strict=True):
        orientation = orientation_matrix(*(float(particle[f"{a}_degrees"]) for a in ("rot", "tilt", "psi")))
        shown = atoms.fragment(rng.standard_normal(3)) if particle["fragment"] else atoms
        centre = (box // 2 + float(particle["coordinate_x_px"] % 1.0), box // 2 + float(particle["coordinate_y_px"] % 1.0))
        image[:] = sigma * project(shown, orientation, centre, box, parameters.pixel_size_angstrom)
    return images


def _draw_ice(parameters: SimulationParameters, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """Return the transform of the phases of the ice: a grain that rises with frequency, and contaminants."""
    shape = canvas_shape(parameters)
    s = np.hypot(scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])) / parameters.pixel_size_angstrom
    total_dose = parameters.dose_per_frame_e_per_angstrom2 * parameters.frame_count
    # Shot noise of the whole exposure has variance 1 / electrons per pixel; a phase enters with 2 x contrast x sin chi.
    shot = 1.0 / (total_dose * parameters.pixel_size_angstrom**2)
    amplitude = np.sqrt(parameters.ice_noise * shot / (2.0 * max(parameters.contrast, 1e-3) ** 2))
    grain = rng.standard_normal(shape, dtype=np.float32) * np.float32(amplitude)
    spectrum = scipy.fft.rfft2(grain) * np.sqrt(0.3 + 0.7 * np.minimum(s * 3.7, 1.0) ** 2).astype(np.float32)
    if parameters.crystalline_ice:
        crystals = np.sqrt(parameters.crystalline_ice * shot / 2.0) / max(parameters.contrast, 1e-3)
        ring = np.abs(s - 1.0 / _ICE_SPACING_ANGSTROM) < _ICE_RING_WIDTH
        spectrum += scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32) * np.float32(crystals)) * ring
    blobs = np.zeros(shape, dtype=np.float32)
    for _ in range(rng.poisson(parameters.contaminants_per_movie)):
        _add_contaminant(blobs, parameters.pixel_size_angstrom, rng)
    return np.asarray(spectrum + scipy.fft.rfft2(blobs), dtype=np.complex64)


def _add_contaminant(canvas: npt.NDArray[np.float32], pixel_size_angstrom: float, rng: np.random.Generator) -> None:
    """Add one ice blob: a few overlapping Gaussians, some 100 to 300 Å wide, far stronger than a particle."""
    centre = rng.uniform(0.0, canvas.shape)
    y, x = np.arange(canvas.shape[0], dtype=np.float32), np.arange(canvas.shape[1], dtype=np.float32)
    for _ in range(4):
        width = rng.uniform(30.0, 75.0) / pixel_size_angstrom
        cy, cx = centre + rng.normal(0.0, 0.8 * width, 2)
        bump = np.outer(np.exp(-0.5 * ((y - cy) / width) ** 2), np.exp(-0.5 * ((x - cx) / width) ** 2))
        canvas += np.float32(rng.uniform(0.3, 0.7)) * bump.astype(np.float32)


def _draw_illumination(parameters: SimulationParameters, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return the brightness `(y, x)` about 1: a wedge of ice thickness in a random direction."""
    angle, size = rng.uniform(0.0, 2.0 * np.pi), parameters.ice_gradient * rng.uniform(0.2, 1.0)
    y = np.linspace(-0.5, 0.5, parameters.height_px, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, parameters.width_px, dtype=np.float32)
    return np.asarray(1.0 + size * (np.cos(angle) * x + np.sin(angle) * y), dtype=np.float32)


def _shifted(images: npt.NDArray[np.float32], by_px: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Move each image by its own (x, y); projections are written without Nyquist lines, so this is exact."""
    side = images.shape[1]
    ramp_y = np.exp(-2j * np.pi * by_px[:, 1:] * scipy.fft.fftfreq(side)).astype(np.complex64)
    ramp_x = np.exp(-2j * np.pi * by_px[:, :1] * scipy.fft.rfftfreq(side)).astype(np.complex64)
    spectra = scipy.fft.rfft2(images) * ramp_y[:, :, None] * ramp_x[:, None, :]
    return np.asarray(scipy.fft.irfft2(spectra, s=(side, side)), dtype=np.float32)


def _flowed(image: npt.NDArray[np.float32], scene: Scene, frame: int) -> npt.NDArray[np.float32]:
    """Let an image of the canvas flow by the local motion of a frame, by cubic splines.

    What comes to a place started elsewhere, where it moved a little differently; that is neglected: the motion's slope, some
    thousandths, times the motion.
    """
    p = scene.parameters
    size = np.array([p.width_px, p.height_px])
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 5)] * 2), axis=-1).reshape(-1, 2)  # of the canvas, x and y
    px = (grid + 0.5) * image.shape[::-1] - _MARGIN_PX
    flow = scene.motion.local(px / size - 0.5, frame)[:, ::-1]
    warp = np.linalg.lstsq(terms(grid[:, ::-1]), flow, rcond=None)[0]
    margin = int(np.abs(flow).max()) + APRON_PX + 4
    sums = np.zeros((1, image.shape[0] + 2 * APRON_PX, image.shape[1] + 2 * APRON_PX), dtype=np.float32)
    add_warped_raw(sums, uncorrected(image[None]), warp[None], np.ones((1, 1)), (margin, margin))
    return np.asarray(sharpened(sums[0]))


def _add(canvas: npt.NDArray[np.float32], image: npt.NDArray[np.float32], y: int, x: int) -> None:
    """Add an image with its corner at (y, x); what hangs over the edge is cut."""
    side_y, side_x = image.shape
    y0, x0 = max(y, 0), max(x, 0)
    y1, x1 = min(y + side_y, canvas.shape[0]), min(x + side_x, canvas.shape[1])
    if y1 > y0 and x1 > x0:
        canvas[y0:y1, x0:x1] += image[y0 - y : y1 - y, x0 - x : x1 - x]
