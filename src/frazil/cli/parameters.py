"""From flags to the parameters of a session, under the names that RELION and CryoSPARC users know.

`takes_session_parameters` gives a command all of these flags; it gets what was said as its first argument, `given`.
"""

from __future__ import annotations

import inspect
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frazil.cli.options import Given, takes
from frazil.model.errors import FrazilError

if TYPE_CHECKING:
    from frazil.api.session.v1.session_pb2 import SessionParameters


class Until(StrEnum):
    """The last stage to run."""

    PREPROCESS = "preprocess"
    CLASS2D = "class2d"
    REFINE3D = "refine3d"


class Flip(StrEnum):
    """Flip of the gain reference, after its rotation."""

    NONE = "none"
    X = "x"
    Y = "y"


class GainSense(StrEnum):
    """How a gain reference corrects a frame."""

    AUTO = "auto"
    MULTIPLY = "multiply"
    DIVIDE = "divide"


def _flag(name: str, help_text: str, panel: str, **more: Any) -> Any:
    return typer.Option(name, help=help_text, rich_help_panel=panel, **more)


_MOVIES, _OPTICS, _CAMERA, _PARTICLES = "Movies", "Optics (what the metadata say need not be said)", "Camera", "Particles"

# name of the parameter: its flag, its default
_FLAGS: dict[str, tuple[Any, Any]] = {
    "particle_diameter": (
        Annotated[float, _flag("--particle-diameter", "Å; the smallest, if they differ.", _PARTICLES)],
        inspect.Parameter.empty,
    ),
    "particle_diameter_max": (Annotated[float, _flag("--particle-diameter-max", "Å; the largest.", _PARTICLES)], 0.0),
    "picker": (Annotated[str, _flag("--picker", "blob or template.", _PARTICLES)], "blob"),
    "picker_shapes": (
        Annotated[str, _flag("--picker-shapes", "Of the blob picker, with commas: circle, ellipse, ring.", _PARTICLES)],
        "",
    ),
    "picker_templates": (
        Annotated[
            Path | None,
            _flag("--picker-templates", "Class averages (.mrcs, .star) or a volume (.mrc), protein white.", _PARTICLES),
        ],
        None,
    ),
    "picker_min_distance": (
        Annotated[float, _flag("--picker-min-distance", "Between picks, diameters (0: the picker's).", _PARTICLES)],
        0.0,
    ),
    "picker_max_picks": (Annotated[int, _flag("--picker-max-picks", "In a micrograph (0: 4000).", _PARTICLES)], 0),
    "picker_score_min": (
        Annotated[float | None, _flag("--picker-score-min", "Least NCC (default: found in each micrograph).", _PARTICLES)],
        None,
    ),
    "picker_power_min": (Annotated[float | None, _flag("--picker-power-min", "Least power score.", _PARTICLES)], None),
    "picker_power_max": (Annotated[float | None, _flag("--picker-power-max", "Greatest power score.", _PARTICLES)], None),
    "picker_lowpass": (Annotated[float, _flag("--picker-lowpass", "Of templates, Å (0: 20).", _PARTICLES)], 0.0),
    "picker_angular_step": (
        Annotated[float, _flag("--picker-angular-step", "Of templates, degrees (0: 10).", _PARTICLES)],
        0.0,
    ),
    "box": (Annotated[int, _flag("--box", "Box cut from the micrograph, px (0: advised).", _PARTICLES)], 0),
    "output_box": (Annotated[int, _flag("--output-box", "Box after Fourier cropping, px (0: advised).", _PARTICLES)], 0),
    "classes": (Annotated[int, _flag("--classes", "Number of 2D classes.", _PARTICLES)], 50),
    "class_max_resolution": (
        Annotated[float, _flag("--class-max-resolution", "Finest resolution used in 2D, Å (0: default).", _PARTICLES)],
        0.0,
    ),
    "class_mask_diameter": (
        Annotated[float, _flag("--class-mask-diameter", "Circular mask of 2D classes, Å (0: 1.1 diameters).", _PARTICLES)],
        0.0,
    ),
    "class_batch": (
        Annotated[int, _flag("--class-batch", "Particles that 2D classification takes in together (0: 200).", _PARTICLES)],
        0,
    ),
    "pixel_size": (Annotated[float | None, _flag("--pixel-size", "Å per pixel of the movies.", _OPTICS)], None),
    "voltage": (Annotated[float | None, _flag("--voltage", "kV.", _OPTICS)], None),
    "cs": (Annotated[float | None, _flag("--cs", "Spherical aberration, mm.", _OPTICS)], None),
    "amplitude_contrast": (Annotated[float | None, _flag("--amplitude-contrast", "0 to 1.", _OPTICS)], None),
    "phase_shift_min": (
        Annotated[
            float | None,
            _flag("--phase-shift-min", "Phase plate: degrees; searched for from here on (alone: it is known).", _OPTICS),
        ],
        None,
    ),
    "phase_shift_max": (
        Annotated[float | None, _flag("--phase-shift-max", "Phase plate: degrees; searched for up to here.", _OPTICS)],
        None,
    ),
    "dose_per_frame": (Annotated[float | None, _flag("--dose-per-frame", "e/Å².", _OPTICS)], None),
    "total_dose": (Annotated[float | None, _flag("--total-dose", "e/Å² of the whole movie.", _OPTICS)], None),
    "gain": (Annotated[Path | None, _flag("--gain", "Gain reference: MRC, TIFF, .gain or DM4.", _CAMERA)], None),
    "gain_sense": (
        Annotated[GainSense, _flag("--gain-sense", "Of the gain reference (auto: as its kind of file usually is).", _CAMERA)],
        GainSense.AUTO,
    ),
    "gain_flip": (Annotated[Flip, _flag("--gain-flip", "Applied after the rotation.", _CAMERA)], Flip.NONE),
    "gain_rotate": (
        Annotated[
            int, _flag("--gain-rotate", "Times 90 degrees clockwise, row 0 at the top (as RELION).", _CAMERA, min=0, max=3)
        ],
        0,
    ),
    "defects": (Annotated[Path | None, _flag("--defects", "Defect file or map.", _CAMERA)], None),
    "eer_fractions": (
        Annotated[int, _flag("--eer-fractions", "Frames that an EER movie is made into (0: 40).", _CAMERA, min=0, max=1000)],
        0,
    ),
    "eer_dose_per_fraction": (
        Annotated[float | None, _flag("--eer-dose-per-fraction", "e/Å² of one such frame, in place of their number.", _CAMERA)],
        None,
    ),
    "eer_upsampling": (
        Annotated[int, _flag("--eer-upsampling", "EER on a grid 1, 2 or 4 times finer than the sensor's (0: 1).", _CAMERA)],
        0,
    ),
    "load_crop": (
        Annotated[int, _flag("--load-crop", "Fourier-crop movies by 1, 2 or 4 (0: 2 for super-resolution, else 1).", _CAMERA)],
        0,
    ),
    "movies": (Annotated[str, _flag("--movies", "Which files: a glob relative to the folder.", _MOVIES)], ""),
    "metadata_folder": (Annotated[Path | None, _flag("--metadata-folder", "Where the XML or mdoc files are.", _MOVIES)], None),
    "camera": (
        Annotated[str, _flag("--camera", "k2, k3, falcon3, falcon4, falcon4-eer, or with -super-resolution.", _CAMERA)],
        "",
    ),
    "symmetry": (Annotated[str, _flag("--symmetry", "Point group, as RELION writes it: C1, D8, O …", _PARTICLES)], ""),
    "initial_volume": (
        Annotated[Path | None, _flag("--initial-volume", "Map that 3D refinement starts from (.mrc).", _PARTICLES)],
        None,
    ),
    "read_bzip2": (Annotated[bool, _flag("--read-bzip2", "Also read .mrc.bz2 movies.", _MOVIES)], False),
    "seed": (Annotated[int, typer.Option("--seed", help="Seed of every random choice.")], 1),
    "until": (Annotated[Until | None, typer.Option("--until", help="Last stage to run (default: all).")], None),
}


takes_session_parameters = takes(_FLAGS, "given")


def session_parameters(folder: Path, given: Given) -> SessionParameters:
    """Return the parameters that the flags say; raises FrazilError with one sentence for a value that cannot be."""
    from frazil.api.session.v1.session_pb2 import SessionParameters

    _check_numbers(given)
    return SessionParameters(
        movie_folder=str(folder.resolve()),
        movie_glob=given["movies"],
        metadata_folder=_absolute(given["metadata_folder"]),
        pixel_size_angstrom=given["pixel_size"],
        voltage_kv=given["voltage"],
        spherical_aberration_mm=given["cs"],
        amplitude_contrast=given["amplitude_contrast"],
        phase_shift_min_degrees=given["phase_shift_min"],
        phase_shift_max_degrees=given["phase_shift_max"],
        dose_per_frame_e_per_angstrom2=given["dose_per_frame"],
        total_dose_e_per_angstrom2=given["total_dose"],
        gain_path=_absolute(given["gain"]),
        gain_flip=given["gain_flip"].value,
        gain_rotate=given["gain_rotate"],
        gain_sense="" if given["gain_sense"] is GainSense.AUTO else given["gain_sense"].value,
        defects_path=_absolute(given["defects"]),
        eer_fractions=given["eer_fractions"],
        eer_dose_per_fraction_e_per_angstrom2=given["eer_dose_per_fraction"],
        eer_upsampling=given["eer_upsampling"],
        load_crop=given["load_crop"],
        read_bzip2=given["read_bzip2"],
        particle_diameter_angstrom=given["particle_diameter"],
        particle_diameter_max_angstrom=given["particle_diameter_max"],
        picker="" if given["picker"] == "blob" else given["picker"],
        picker_shapes=[shape.strip() for shape in given["picker_shapes"].split(",") if shape.strip()],
        picker_templates_path=_absolute(given["picker_templates"]),
        picker_min_distance_diameters=given["picker_min_distance"],
        picker_max_picks=given["picker_max_picks"],
        picker_score_min=given["picker_score_min"],
        picker_power_min=given["picker_power_min"],
        picker_power_max=given["picker_power_max"],
        picker_lowpass_angstrom=given["picker_lowpass"],
        picker_angular_step_degrees=given["picker_angular_step"],
        box_size_px=given["box"],
        output_box_px=given["output_box"],
        class_count=given["classes"],
        class_max_resolution_angstrom=given["class_max_resolution"],
        class_mask_diameter_angstrom=given["class_mask_diameter"],
        class_batch_particles=given["class_batch"],
        camera=given["camera"],
        symmetry=given["symmetry"],
        initial_volume_path=_absolute(given["initial_volume"]),
        seed=given["seed"],
        until=given["until"].value if given["until"] else "",
    )


def differences(first: SessionParameters, now: SessionParameters) -> list[str]:
    """Return what differs between the parameters of a first run and those of now, in words."""
    words = []
    for field in first.DESCRIPTOR.fields:
        before, after = (_said(parameters, field.name) for parameters in (first, now))
        if before != after:
            words.append(f"{field.name.replace('_', ' ')} was {before or 'not given'}, is {after or 'not given'}")
    return words


def _said(parameters: SessionParameters, name: str) -> str:
    if parameters.DESCRIPTOR.fields_by_name[name].has_presence and not parameters.HasField(name):  # type: ignore[arg-type]
        return ""
    value = getattr(parameters, name)
    if parameters.DESCRIPTOR.fields_by_name[name].is_repeated:
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _absolute(path: Path | None) -> str:
    return "" if path is None else str(path.resolve())


def _check_numbers(given: Given) -> None:
    diameter, largest = given["particle_diameter"], given["particle_diameter_max"]
    _check("--particle-diameter", diameter, 10.0, 5000.0, "Å")
    if largest:
        _check("--particle-diameter-max", largest, diameter, 5000.0, "Å")
    _check("--pixel-size", given["pixel_size"], 0.05, 20.0, "Å per pixel")
    _check("--voltage", given["voltage"], 20.0, 3000.0, "kV (300, not 300000)")
    _check("--cs", given["cs"], 0.0, 20.0, "mm")
    _check("--amplitude-contrast", given["amplitude_contrast"], 0.0, 1.0, "(a fraction: 0.1, not 10)")
    least = given["phase_shift_min"]
    _check("--phase-shift-min", least, 0.0, 180.0, "degrees")
    _check("--phase-shift-max", given["phase_shift_max"], least or 0.0, 180.0, "degrees")
    _check("--dose-per-frame", given["dose_per_frame"], 1e-4, 200.0, "e/Å²")
    _check("--total-dose", given["total_dose"], 1e-3, 10_000.0, "e/Å²")
    _check("--eer-dose-per-fraction", given["eer_dose_per_fraction"], 1e-3, 200.0, "e/Å²")
    for flag, factor in (("--eer-upsampling", given["eer_upsampling"]), ("--load-crop", given["load_crop"])):
        if factor not in (0, 1, 2, 4):
            raise FrazilError("PARAMETER_OUT_OF_RANGE", f"{flag} is {factor}: it must be 1, 2 or 4, or 0 for the default.")
    for one, other in (("dose_per_frame", "total_dose"), ("eer_fractions", "eer_dose_per_fraction")):
        if given[one] and given[other]:
            flags = (f"--{name.replace('_', '-')}" for name in (one, other))
            raise FrazilError("PARAMETER_TWICE", f"Give {' or '.join(flags)}, not both.")
    _check("--picker-min-distance", given["picker_min_distance"], 0.0, 10.0, "diameters")
    _check("--picker-max-picks", given["picker_max_picks"], 0, 1_000_000, "")
    _check("--picker-score-min", given["picker_score_min"], -1.0, 1.0, "")
    _check("--picker-lowpass", given["picker_lowpass"], 0.0, 200.0, "Å")
    _check("--picker-angular-step", given["picker_angular_step"], 0.0, 360.0, "degrees")
    _check("--classes", given["classes"], 1, 1000, "")
    _check("--class-max-resolution", given["class_max_resolution"] or None, 1.0, 100.0, "Å")
    _check("--class-mask-diameter", given["class_mask_diameter"] or None, 10.0, 10_000.0, "Å")
    _check("--class-batch", given["class_batch"] or None, 20, 100_000, "")
    for flag, value in (("--box", given["box"]), ("--output-box", given["output_box"])):
        _check(flag, value or None, 16, 4096, "px")
        if value % 2:
            raise FrazilError("PARAMETER_ODD_BOX", f"{flag} is {value}: boxes are even; use {value + 1}.")
    if given["box"] and given["output_box"] > given["box"]:
        raise FrazilError("PARAMETER_OUT_OF_RANGE", "--output-box is larger than --box: images are only ever made smaller.")


def _check(flag: str, value: float | None, low: float, high: float, unit: str) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise FrazilError(
            "PARAMETER_OUT_OF_RANGE", f"{flag} is {value:g}: it must be between {low:g} and {high:g} {unit}".rstrip() + "."
        )
