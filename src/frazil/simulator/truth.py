"""The truth as STAR files, in a folder that is not the microscope's: what was put into the movies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from frazil.io.relion import MotionSource, motion_star
from frazil.io.star import Block, Column, write_star
from frazil.model.optics import Optics
from frazil.simulator.movie import SimulatedMovie
from frazil.simulator.parameters import SimulationParameters


class TruthWriter:
    """Keeps the truth of a growing session; after each movie the files are whole.

    `micrographs.star`: defocus and motion of each movie; `particles.star`: coordinates in px of the frame (0-based) and
    angles; `motion/<movie>.star`: shifts to apply per frame, and, as `data_local_shift`, those of each particle.
    """

    def __init__(self, folder: Path, parameters: SimulationParameters) -> None:
        self._folder, self._parameters = folder, parameters
        self._names: list[str] = []
        self._movies: list[SimulatedMovie] = []
        self._bad: list[tuple[str, str]] = []
        (folder / "motion").mkdir(parents=True, exist_ok=True)

    def add(self, name: str, movie: SimulatedMovie, gain: str) -> None:
        """Add the truth of one movie; `name` is its path below the session's folder. The frames are not kept."""
        stem = Path(name).stem
        shape = movie.frames.shape
        source = MotionSource(movie=name, frame_count=shape[0], height_px=shape[1], width_px=shape[2], gain_reference=gain)
        tables = motion_star(movie.motion, source, simulated_optics(self._parameters))
        write_star(self._folder / "motion" / f"{stem}.star", tables | {"local_shift": _local_shifts(movie)})
        self._names.append(name)
        without = np.zeros((0, 0, 0), dtype=np.uint8)
        self._movies.append(SimulatedMovie(without, movie.ctf, movie.motion, movie.particles, movie.local_shift_px[:0]))
        write_star(self._folder / "micrographs.star", {"micrographs": self._micrographs()})
        write_star(self._folder / "particles.star", {"particles": self._particles()})

    def add_bad(self, name: str, kind: str) -> None:
        """Note a movie that was delivered spoilt: `bad_movies.star`."""
        self._bad.append((name, kind))
        names, kinds = (list(column) for column in zip(*self._bad, strict=True))
        write_star(self._folder / "bad_movies.star", {"bad_movies": {"rlnMicrographMovieName": names, "frazilKind": kinds}})

    def _micrographs(self) -> Block:
        def of_ctf(field: str) -> npt.NDArray[np.float64]:
            return np.array([getattr(movie.ctf, field) for movie in self._movies], dtype=np.float64)

        columns: dict[str, Column] = {
            "rlnMicrographName": list(self._names),
            "rlnDefocusU": of_ctf("defocus_u_angstrom"),
            "rlnDefocusV": of_ctf("defocus_v_angstrom"),
            "rlnDefocusAngle": of_ctf("defocus_angle_degrees"),
            "rlnPhaseShift": of_ctf("phase_shift_degrees"),
            "frazilDefocusRange": np.array([movie.ctf.field.range_angstrom for movie in self._movies]),
            "rlnAccumMotionTotal": np.array([movie.motion.total_angstrom for movie in self._movies]),
            "rlnAccumMotionEarly": np.array([movie.motion.early_angstrom for movie in self._movies]),
            "rlnAccumMotionLate": np.array([movie.motion.late_angstrom for movie in self._movies]),
            "frazilParticleCount": np.array([len(movie.particles) for movie in self._movies], dtype=np.int64),
        }
        return columns

    def _particles(self) -> Block:
        table = np.concatenate([movie.particles for movie in self._movies])
        columns: dict[str, Column] = {
            "rlnMicrographName": [n for n, m in zip(self._names, self._movies, strict=True) for _ in m.particles],
            "rlnCoordinateX": table["coordinate_x_px"],
            "rlnCoordinateY": table["coordinate_y_px"],
            "rlnAngleRot": table["rot_degrees"],
            "rlnAngleTilt": table["tilt_degrees"],
            "rlnAnglePsi": table["psi_degrees"],
            "frazilFragment": table["fragment"].astype(np.int64),
        }
        return columns


def simulated_optics(parameters: SimulationParameters) -> Optics:
    """Return the optics of a simulated session, as a user would have to type them."""
    return Optics(
        pixel_size_angstrom=parameters.pixel_size_angstrom,
        voltage_kv=parameters.voltage_kv,
        spherical_aberration_mm=parameters.spherical_aberration_mm,
        amplitude_contrast=parameters.amplitude_contrast,
        dose_per_frame_e_per_angstrom2=parameters.dose_per_frame_e_per_angstrom2,
    )


def _local_shifts(movie: SimulatedMovie) -> Block:
    """Return one row per frame and particle: the shift to apply at the particle beyond the whole frame's."""
    frames, count = movie.local_shift_px.shape[:2]
    columns: dict[str, Column] = {
        "rlnMicrographFrameNumber": np.repeat(np.arange(1, frames + 1), count),
        "rlnCoordinateX": np.tile(movie.particles["coordinate_x_px"], frames),
        "rlnCoordinateY": np.tile(movie.particles["coordinate_y_px"], frames),
        "rlnMicrographShiftX": movie.local_shift_px[..., 0].reshape(-1),
        "rlnMicrographShiftY": movie.local_shift_px[..., 1].reshape(-1),
    }
    return columns
