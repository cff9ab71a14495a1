"""Movies: a scene seen by a camera, with everything that is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.model.ctf import Ctf
from frazil.model.motion import Motion
from frazil.simulator.atoms import Atoms, load_atoms
from frazil.simulator.camera import Camera, draw_camera
from frazil.simulator.parameters import SimulationParameters
from frazil.simulator.scene import Renderer, Scene, draw_scene

_EARLY_DOSE = 4.0


@dataclass(frozen=True, slots=True)
class SimulatedMovie:
    """A movie and its truth.

    `frames` are raw counts `(frame, y, x)` uint8 in MRC row order, not corrected for gain. `motion` holds the shifts to
    apply (whole frame; the local part is `local_shift_px`, (frame, particle, 2) as x, y). `particles` is structured, as in
    `Scene`; only particles whose centre is inside the frame are listed.
    """

    frames: npt.NDArray[np.uint8]
    ctf: Ctf
    motion: Motion
    particles: npt.NDArray[Any]
    local_shift_px: npt.NDArray[np.float64]


def simulate_movie(parameters: SimulationParameters, index: int) -> SimulatedMovie:
    """Simulate the movie number `index` (from 0) of a session: the same for equal parameters, whichever come before it."""
    scene = simulate_scene(parameters, index)
    camera = session_camera(parameters)
    rng = _generator(parameters, 2, index)
    renderer = Renderer(scene)
    frames = np.empty((parameters.frame_count, parameters.height_px, parameters.width_px), dtype=np.uint8)
    for frame in range(parameters.frame_count):
        frames[frame] = camera.expose(renderer.expected(frame), rng)
    places = scene.places()
    inside = (np.abs(places) < 0.5).all(axis=1)
    local = np.stack([scene.motion.local(places[inside], frame) for frame in range(parameters.frame_count)])
    return SimulatedMovie(frames, scene.ctf, _motion_record(scene), scene.particles[inside], -local)


def simulate_scene(parameters: SimulationParameters, index: int) -> Scene:
    """Return the scene of movie number `index`: what `simulate_movie` shows to the camera."""
    return draw_scene(parameters, _atoms(parameters.particle), _generator(parameters, 1, index))


def session_camera(parameters: SimulationParameters) -> Camera:
    """Return the camera of the session: gain reference and defects are the same for all its movies."""
    return _camera(parameters)


@lru_cache(maxsize=4)
def _camera(parameters: SimulationParameters) -> Camera:
    return draw_camera(parameters, _generator(parameters, 0, 0))


@lru_cache(maxsize=4)
def _atoms(particle: str) -> Atoms:
    return load_atoms(particle)


def _generator(parameters: SimulationParameters, stream: int, index: int) -> np.random.Generator:
    """Return the generator of one stream of random numbers (0 camera, 1 scenes, 2 counts) of one movie."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([parameters.seed, stream, index])))


def _motion_record(scene: Scene) -> Motion:
    """Return the shifts to apply and the accumulated path, split at 4 e/Å²."""
    p = scene.parameters
    drift = scene.motion.drift
    steps = np.hypot(*np.diff(drift, axis=0).T) * p.pixel_size_angstrom
    early = np.arange(1, p.frame_count) * p.dose_per_frame_e_per_angstrom2 <= _EARLY_DOSE
    shifts = -(drift - drift[0])
    return Motion(
        shift_x_px=tuple(shifts[:, 0].tolist()),
        shift_y_px=tuple(shifts[:, 1].tolist()),
        pixel_size_angstrom=p.pixel_size_angstrom,
        total_angstrom=float(steps.sum()),
        early_angstrom=float(steps[early].sum()),
        late_angstrom=float(steps[~early].sum()),
    )
