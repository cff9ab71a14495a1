"""The STAR files of RELION 3.1 and later, built from our records: micrographs, particles, motion, picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.io.star import Block, Column, Scalar
from frazil.model.ctf import Ctf
from frazil.model.motion import Motion
from frazil.model.optics import Optics
from frazil.model.particles import Pick

LOCAL_COEFFICIENT_COUNT = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class OpticsGroup:
    """An optics group: micrographs that share microscope settings. `number` counts from 1."""

    name: str
    number: int
    optics: Optics
    micrograph_pixel_size_angstrom: float  # differs from the movie's after binning


@dataclass(frozen=True, slots=True, kw_only=True)
class MicrographRow:
    """One row of `micrographs.star`. Paths are written as they are given: relative to the output folder, by custom."""

    micrograph: str
    motion_star: str
    ctf: Ctf
    motion: Motion
    optics_group: int = 1
    power_spectrum: str | None = None
    tilt_angle_degrees: float = 0.0
    ice_ring: float | None = None  # power over its surroundings
    ice_thickness_relative: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Poses:
    """Alignments of particles, one value per particle; convention A = Rz(psi) Ry(tilt) Rz(rot) (docs/conventions.md)."""

    rot_degrees: npt.NDArray[Any]
    tilt_degrees: npt.NDArray[Any]
    psi_degrees: npt.NDArray[Any]
    origin_x_angstrom: npt.NDArray[Any]
    origin_y_angstrom: npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticleSource:
    """Where each particle comes from, one value per particle."""

    image_names: Sequence[str]  # "000001@particles/movie.mrcs": counted from 1
    micrograph_names: Sequence[str]
    optics_groups: npt.NDArray[Any] | None = None  # None: all 1


def micrographs_star(rows: Sequence[MicrographRow], optics: Sequence[OpticsGroup]) -> dict[str, Block]:
    """Return `data_optics` and `data_micrographs`: what RELION's CTF refinement, picking and extraction start from."""
    columns: dict[str, Column] = {
        "rlnMicrographName": [row.micrograph for row in rows],
        "rlnMicrographMetadata": [row.motion_star for row in rows],
        "rlnOpticsGroup": np.array([row.optics_group for row in rows], dtype=np.int64),
    }
    if any(row.power_spectrum is not None for row in rows):
        columns["rlnCtfImage"] = [row.power_spectrum or "None" for row in rows]
    numbers = {
        "rlnDefocusU": [row.ctf.defocus_u_angstrom for row in rows],
        "rlnDefocusV": [row.ctf.defocus_v_angstrom for row in rows],
        "rlnCtfAstigmatism": [row.ctf.astigmatism_angstrom for row in rows],
        "rlnDefocusAngle": [row.ctf.defocus_angle_degrees for row in rows],
        "rlnPhaseShift": [row.ctf.phase_shift_degrees for row in rows],
        "rlnCtfFigureOfMerit": [row.ctf.score for row in rows],
        # RELION's own value for "no fit": 999 Å sorts and thresholds as the worst
        "rlnCtfMaxResolution": [row.ctf.fit_resolution_angstrom or 999.0 for row in rows],
        "rlnAccumMotionTotal": [row.motion.total_angstrom for row in rows],
        "rlnAccumMotionEarly": [row.motion.early_angstrom for row in rows],
        "rlnAccumMotionLate": [row.motion.late_angstrom for row in rows],
    }
    # RELION keeps labels that it does not know.
    numbers |= {
        "frazilDefocusRange": [row.ctf.field.range_angstrom for row in rows],
        "frazilTiltAngle": [row.tilt_angle_degrees for row in rows],
    }
    ice = {
        "rlnCtfIceRingDensity": [row.ice_ring for row in rows],
        "frazilIceThickness": [row.ice_thickness_relative for row in rows],
    }
    numbers |= {
        name: [0.0 if value is None else value for value in values]
        for name, values in ice.items()
        if any(value is not None for value in values)
    }
    columns |= {name: np.array(values, dtype=np.float64) for name, values in numbers.items()}
    return {"optics": _optics_table(optics), "micrographs": columns}


def particles_star(
    table: npt.NDArray[Any],
    source: ParticleSource,
    optics: Sequence[OpticsGroup],
    *,
    box_size_px: int,
    poses: Poses | None = None,
    class_numbers: npt.NDArray[Any] | None = None,
) -> dict[str, Block]:
    """Return `data_optics` and `data_particles` for a table of `PARTICLE_DTYPE`.

    `class_numbers` count from 1, as RELION's do; `rlnRandomSubset` is the particle's half set. The image pixel size is
    that of the first particle: one extraction has one. Raises ValueError when the columns differ in length.
    """
    count = len(table)
    columns: dict[str, Column] = {
        "rlnCoordinateX": table["coordinate_x_px"],
        "rlnCoordinateY": table["coordinate_y_px"],
        "rlnImageName": list(source.image_names),
        "rlnMicrographName": list(source.micrograph_names),
        "rlnOpticsGroup": source.optics_groups if source.optics_groups is not None else np.ones(count, dtype=np.int64),
        "rlnDefocusU": table["defocus_u_angstrom"],
        "rlnDefocusV": table["defocus_v_angstrom"],
        "rlnDefocusAngle": table["defocus_angle_degrees"],
        "rlnPhaseShift": table["phase_shift_degrees"],
        "rlnAutopickFigureOfMerit": table["score"],
        "rlnRandomSubset": table["half_set"],
    }
    if poses is not None:
        columns |= {
            "rlnAngleRot": poses.rot_degrees,
            "rlnAngleTilt": poses.tilt_degrees,
            "rlnAnglePsi": poses.psi_degrees,
            "rlnOriginXAngst": poses.origin_x_angstrom,
            "rlnOriginYAngst": poses.origin_y_angstrom,
        }
    if class_numbers is not None:
        columns["rlnClassNumber"] = class_numbers
    if any(len(column) != count for column in columns.values()):
        raise ValueError(f"a column differs in length from the {count} particles")
    image_pixel_size = float(table["pixel_size_angstrom"][0]) if count else optics[0].micrograph_pixel_size_angstrom
    groups = _optics_table(optics) | {
        "rlnImagePixelSize": np.full(len(optics), image_pixel_size),
        "rlnImageSize": np.full(len(optics), box_size_px, dtype=np.int64),
        "rlnImageDimensionality": np.full(len(optics), 2, dtype=np.int64),
    }
    return {"optics": groups, "particles": columns}


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionSource:
    """The movie that a motion STAR file describes, as RELION's polishing must find it again.

    Sizes are those of the movie file, or of its frames as rendered from events (EER); `load_crop` is how many of their pixels
    make one of the movie that was aligned. `eer_grouping` is the number of raw frames to a frame; None for other movies.
    """

    movie: str
    frame_count: int
    height_px: int
    width_px: int
    gain_reference: str | None = None
    defects: str | None = None
    binning: float = 1.0
    first_frame: int = 1
    load_crop: int = 1
    eer_grouping: int | None = None
    eer_upsampling: int = 1


def motion_star(
    motion: Motion, source: MotionSource, optics: Optics, *, local_coefficients: Sequence[float] | None = None
) -> dict[str, Block]:
    """Return `data_general`, `data_global_shift` and, with coefficients, `data_local_motion_model`.

    Shifts are the translations to apply, in px of the movie that was aligned, as in our own records, and so are the optics;
    RELION gets px of the movie file. `local_coefficients` are 18 for x, then 18 for y, of RELION's third-order model, in px
    of the movie that was aligned. Raises ValueError for another number of them.
    """
    general: dict[str, Scalar] = {
        "rlnImageSizeX": source.width_px,
        "rlnImageSizeY": source.height_px,
        "rlnImageSizeZ": source.frame_count,
        "rlnMicrographMovieName": source.movie,
    }
    if source.gain_reference is not None:
        general["rlnMicrographGainName"] = source.gain_reference
    if source.defects is not None:
        general["rlnMicrographDefectFile"] = source.defects
    general |= {
        "rlnMicrographBinning": float(source.binning * source.load_crop),
        "rlnMicrographOriginalPixelSize": float(optics.pixel_size_angstrom) / source.load_crop,
        "rlnMicrographDoseRate": float(optics.dose_per_frame_e_per_angstrom2),
        "rlnMicrographPreExposure": float(optics.pre_exposure_e_per_angstrom2),
        "rlnVoltage": float(optics.voltage_kv),
        "rlnMicrographStartFrame": source.first_frame,
        "rlnMotionModelVersion": int(local_coefficients is not None),
    }
    if source.eer_grouping is not None:
        general |= {"rlnEERUpsampling": source.eer_upsampling, "rlnEERGrouping": source.eer_grouping}
    shifts: dict[str, Column] = {
        "rlnMicrographFrameNumber": source.first_frame + np.arange(len(motion.shift_x_px)),
        "rlnMicrographShiftX": source.load_crop * np.array(motion.shift_x_px, dtype=np.float64),
        "rlnMicrographShiftY": source.load_crop * np.array(motion.shift_y_px, dtype=np.float64),
    }
    tables: dict[str, Block] = {
        "general": general,
        "global_shift": shifts,
    }
    if local_coefficients is not None:
        if len(local_coefficients) != LOCAL_COEFFICIENT_COUNT:
            raise ValueError(f"RELION's motion model has 36 coefficients, not {len(local_coefficients)}")
        model: dict[str, Column] = {
            "rlnMotionModelCoeffsIdx": np.arange(LOCAL_COEFFICIENT_COUNT),
            "rlnMotionModelCoeff": source.load_crop * np.array(local_coefficients, dtype=np.float64),
        }
        tables["local_motion_model"] = model
    return tables


def picks_star(picks: Sequence[Pick]) -> dict[str, Block]:
    """Return the picks of one micrograph: coordinates in px of the full-size micrograph, 0-based, and their scores."""
    columns: dict[str, Column] = {
        "rlnCoordinateX": np.array([pick.x_px for pick in picks], dtype=np.float64),
        "rlnCoordinateY": np.array([pick.y_px for pick in picks], dtype=np.float64),
        "rlnAutopickFigureOfMerit": np.array([pick.score for pick in picks], dtype=np.float64),
    }
    return {"": columns}


def _optics_table(groups: Sequence[OpticsGroup]) -> dict[str, Column]:
    numbers = {
        "rlnMicrographOriginalPixelSize": [group.optics.pixel_size_angstrom for group in groups],
        "rlnMicrographPixelSize": [group.micrograph_pixel_size_angstrom for group in groups],
        "rlnVoltage": [group.optics.voltage_kv for group in groups],
        "rlnSphericalAberration": [group.optics.spherical_aberration_mm for group in groups],
        "rlnAmplitudeContrast": [group.optics.amplitude_contrast for group in groups],
    }
    columns: dict[str, Column] = {
        "rlnOpticsGroupName": [group.name for group in groups],
        "rlnOpticsGroup": np.array([group.number for group in groups], dtype=np.int64),
    }
    return columns | {name: np.array(values, dtype=np.float64) for name, values in numbers.items()}
