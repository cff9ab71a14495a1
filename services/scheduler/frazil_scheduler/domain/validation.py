"""What a session's parameters must be; each fault is one sentence that says what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable
from pathlib import Path

from frazil.api.session.v1 import session_pb2
from frazil.model.camera import read_camera
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import limits

_PICKER = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PICKER_RANGES = (
    ("picker_min_distance_diameters", 0.0, 10.0),
    ("picker_max_picks", 0, 1_000_000),
    ("picker_score_min", -1.0, 1.0),
    ("picker_lowpass_angstrom", 0.0, 200.0),
    ("picker_angular_step_degrees", 0.0, 360.0),
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SYMMETRY = re.compile(r"|[CD][1-9][0-9]{0,2}|T|O|I[1-4]?")  # RELION's names of the groups that `frazil.primitives` knows
GAIN_FLIPS = ("none", "x", "y")
GAIN_SENSES = ("", "multiply", "divide")
EER_FRACTIONS_MAX = 1000
UNTIL = ("", "preprocess", "class2d", "refine3d")
WORKERS_MAX = 256


def fill_defaults(parameters: session_pb2.SessionParameters, compute: session_pb2.ComputeResources) -> None:
    """Write out what an empty value means, so that every reader sees the same."""
    parameters.gain_flip = parameters.gain_flip or "none"
    fill_compute_defaults(compute)


def fill_compute_defaults(compute: session_pb2.ComputeResources) -> None:
    """Write out what an empty value of compute resources means."""
    compute.preprocessing_lane = compute.preprocessing_lane or "default"
    compute.reconstruction_lane = compute.reconstruction_lane or "default"
    compute.auxiliary_lane = compute.auxiliary_lane or "default"
    compute.preprocessing_workers = compute.preprocessing_workers or 1


def check_name(name: str, what: str = "session") -> None:
    """Raise FrazilError when a session, or a profile, cannot have this name."""
    if not _NAME.fullmatch(name):
        _fail(
            "NAME_INVALID",
            f"The {what}'s name {name!r} must be 1 to 63 letters, digits, dots, hyphens or underscores, and start with a "
            "letter or digit.",
        )


def check_parameters(parameters: session_pb2.SessionParameters, *, complete: bool = True) -> None:
    """Raise FrazilError for the first value that is out of its range. Nothing is read from disk.

    A profile's need not be `complete`: the diameter of the particle may be left to the session.
    """
    _check_ranges(parameters)
    if complete or parameters.particle_diameter_angstrom:
        _check_diameter(parameters)
    if parameters.gain_flip not in ("", *GAIN_FLIPS):
        _fail("GAIN_FLIP_INVALID", f"gain_flip is {parameters.gain_flip!r}; it must be one of {', '.join(GAIN_FLIPS)}.")
    if parameters.gain_rotate not in range(4):
        _fail("GAIN_ROTATE_INVALID", f"gain_rotate is {parameters.gain_rotate}; it counts quarter turns, 0 to 3.")
    _check_reading(parameters)
    if parameters.until not in UNTIL:
        _fail("UNTIL_INVALID", f"until is {parameters.until!r}; it must be preprocess, class2d, refine3d or empty.")
    read_camera(parameters.camera)
    if not _SYMMETRY.fullmatch(parameters.symmetry.strip().upper()):
        _fail("SYMMETRY_INVALID", f"symmetry is {parameters.symmetry!r}; it must be a point group such as C1, D8, T, O or I.")
    _check_boxes(parameters)
    _check_picker(parameters)
    _check_classes(parameters)
    glob = parameters.movie_glob
    if glob.startswith("/") or ".." in glob.split("/") or "\0" in glob:
        _fail("MOVIE_GLOB_INVALID", f"movie_glob {glob!r} must be relative to the movie folder, without '..'.")


def _check_classes(parameters: session_pb2.SessionParameters) -> None:
    if parameters.class_count and not 2 <= parameters.class_count <= 1000:
        _fail("CLASS_COUNT_INVALID", f"class_count is {parameters.class_count}; it must be 2 to 1000, or 0 for the default.")
    if parameters.class_max_resolution_angstrom:
        _require_range("class_max_resolution_angstrom", parameters.class_max_resolution_angstrom, 1, 100, "Å")
    if parameters.class_mask_diameter_angstrom:
        _require_range("class_mask_diameter_angstrom", parameters.class_mask_diameter_angstrom, 10, 10_000, "Å")
    if parameters.class_batch_particles:
        _require_range("class_batch_particles", parameters.class_batch_particles, 20, 100_000, "")


def _check_picker(parameters: session_pb2.SessionParameters) -> None:
    """Check what can be known of a picker without loading it; the worker knows its options."""
    if parameters.picker and not _PICKER.fullmatch(parameters.picker):
        _fail("PICKER_INVALID", f"picker is {parameters.picker!r}; it is the name of a picker, such as blob or template.")
    if parameters.picker == "template" and not parameters.picker_templates_path:
        _fail("TEMPLATES_MISSING", "The template picker needs picker_templates_path: class averages or a volume.")
    if parameters.picker_template_numbers and not parameters.picker_templates_path:
        _fail("TEMPLATES_MISSING", "picker_template_numbers names templates of picker_templates_path, which is not given.")
    if any(number < 1 for number in parameters.picker_template_numbers):
        _fail("TEMPLATE_INVALID", "picker_template_numbers counts templates from 1.")
    for name, low, high in _PICKER_RANGES:
        _require_range(name, getattr(parameters, name), low, high, "")


def _check_reading(parameters: session_pb2.SessionParameters) -> None:
    if parameters.gain_sense not in GAIN_SENSES:
        _fail("GAIN_SENSE_INVALID", f"gain_sense is {parameters.gain_sense!r}; it must be multiply, divide or empty.")
    if not 0 <= parameters.eer_fractions <= EER_FRACTIONS_MAX:
        _fail(
            "EER_FRACTIONS_INVALID",
            f"eer_fractions is {parameters.eer_fractions}; it must be 1 to {EER_FRACTIONS_MAX:,}, or 0 for 40.",
        )
    if parameters.eer_fractions and parameters.HasField("eer_dose_per_fraction_e_per_angstrom2"):
        _fail("EER_FRACTIONS_TWICE", "Give either eer_fractions or eer_dose_per_fraction_e_per_angstrom2, not both.")
    if parameters.eer_upsampling not in (0, 1, 2, 4):
        _fail("EER_UPSAMPLING_INVALID", f"eer_upsampling is {parameters.eer_upsampling}; it must be 1, 2 or 4, or 0 for 1.")
    if parameters.load_crop not in (0, 1, 2, 4):
        _fail("LOAD_CROP_INVALID", f"load_crop is {parameters.load_crop}; it must be 1, 2 or 4, or 0 for what fits the camera.")
    if parameters.HasField("total_dose_e_per_angstrom2") and parameters.HasField("dose_per_frame_e_per_angstrom2"):
        _fail("DOSE_TWICE", "Give either the total dose or the dose per frame, not both.")


def check_compute(compute: session_pb2.ComputeResources, lanes: Container[str], lane_names: Iterable[str]) -> None:
    """Raise FrazilError for an unknown lane or an impossible number of workers."""
    for lane in (compute.preprocessing_lane, compute.reconstruction_lane, compute.auxiliary_lane):
        lane = lane or "default"
        if lane not in lanes:
            _fail("LANE_UNKNOWN", f"There is no lane {lane!r}; known are {', '.join(lane_names)}.")
    if not 0 <= compute.preprocessing_workers <= WORKERS_MAX:
        _fail(
            "WORKERS_INVALID",
            f"preprocessing_workers is {compute.preprocessing_workers}; it must be 1 to {WORKERS_MAX}, or 0 for 1.",
        )
    if not 0 <= compute.priority <= limits.PRIORITY_MAX:
        _fail("PRIORITY_INVALID", f"The priority is {compute.priority}; it must be 0 to {limits.PRIORITY_MAX}.")
    for gpu in (*compute.preprocessing_gpus, *compute.reconstruction_gpus, *compute.auxiliary_gpus):
        if not gpu.strip() or "\n" in gpu:
            _fail("GPU_INVALID", f"{gpu!r} is no GPU: give its uuid or a slot key, as `frazil gpu list` shows them.")
    _check_timing(compute)


def _check_timing(compute: session_pb2.ComputeResources) -> None:
    if compute.auto_pause not in session_pb2.ComputeResources.AutoPause.values():
        _fail("AUTO_PAUSE_INVALID", f"auto_pause is {compute.auto_pause}, which this scheduler does not know.")
    if compute.streaming_start not in session_pb2.ComputeResources.StreamingStart.values():
        _fail("STREAMING_START_INVALID", f"streaming_start is {compute.streaming_start}, which this scheduler does not know.")
    alternation = compute.alternation
    for name, minutes in (
        ("auto_pause_idle_minutes", compute.auto_pause_idle_minutes),
        ("update_interval_minutes", alternation.update_interval_minutes),
        ("turn_minutes_min", alternation.turn_minutes_min),
    ):
        if not 0 <= minutes <= limits.MINUTES_MAX:
            _fail("MINUTES_INVALID", f"{name} is {minutes}; it must be 1 to {limits.MINUTES_MAX:,}, or 0 for the default.")


def check_paths(parameters: session_pb2.SessionParameters, session_folder: Path) -> None:
    """Raise FrazilError for the first path that cannot be used. Reads the file system, writes nothing."""
    movies = _absolute("movie folder", "movie_folder", parameters.movie_folder)
    _require_folder("movie folder", movies)
    if parameters.metadata_folder:
        _require_folder("metadata folder", _absolute("metadata folder", "metadata_folder", parameters.metadata_folder))
    if parameters.gain_path:
        _require_file("gain reference", _absolute("gain reference", "gain_path", parameters.gain_path))
    if parameters.defects_path:
        _require_file("defect file", _absolute("defect file", "defects_path", parameters.defects_path))
    if parameters.initial_volume_path:
        _require_file("initial volume", _absolute("initial volume", "initial_volume_path", parameters.initial_volume_path))
    if parameters.picker_templates_path:
        _require_file(
            "file of templates", _absolute("file of templates", "picker_templates_path", parameters.picker_templates_path)
        )
    if session_folder.resolve().is_relative_to(movies.resolve()):
        _fail(
            "SESSION_INSIDE_MOVIES",
            f"The session would write into {session_folder}, which is inside the movie folder {movies}; nothing is ever "
            "written there: give the scheduler another data_dir.",
        )


_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("pixel_size_angstrom", 0.1, 20.0, "Å"),
    ("voltage_kv", 40.0, 1000.0, "kV"),
    ("spherical_aberration_mm", 0.0, 20.0, "mm"),
    ("amplitude_contrast", 0.0, 1.0, ""),
    ("dose_per_frame_e_per_angstrom2", 0.0, 1000.0, "e/Å²"),
    ("total_dose_e_per_angstrom2", 0.0, 10_000.0, "e/Å²"),
    ("eer_dose_per_fraction_e_per_angstrom2", 0.001, 1000.0, "e/Å²"),
    ("phase_shift_min_degrees", 0.0, 180.0, "degrees"),
    ("phase_shift_max_degrees", 0.0, 180.0, "degrees"),
)


def _check_ranges(parameters: session_pb2.SessionParameters) -> None:
    for name, low, high, unit in _RANGES:
        if parameters.HasField(name):  # type: ignore[arg-type]
            _require_range(name, getattr(parameters, name), low, high, unit)
    least, greatest = parameters.phase_shift_min_degrees, parameters.phase_shift_max_degrees
    if parameters.HasField("phase_shift_max_degrees") and greatest < least:
        _fail("PHASE_SHIFT_RANGE", f"The greatest phase shift, {greatest:g}, is below the least, {least:g} degrees.")


def _check_diameter(parameters: session_pb2.SessionParameters) -> None:
    smallest, largest = parameters.particle_diameter_angstrom, parameters.particle_diameter_max_angstrom
    if not smallest > 0:
        _fail("DIAMETER_MISSING", "Give the particle diameter in Å (particle_diameter_angstrom), e.g. 140.")
    _require_range("particle_diameter_angstrom", smallest, 10, 5000, "Å")
    if largest and not smallest <= largest <= 5000:
        _fail("DIAMETER_INVALID", f"particle_diameter_max_angstrom is {largest:g} Å; it must lie between the smallest, "
              f"{smallest:g} Å, and 5000 Å.")  # fmt: skip


def _check_boxes(parameters: session_pb2.SessionParameters) -> None:
    for name in ("box_size_px", "output_box_px"):
        box = getattr(parameters, name)
        if box and (box < 16 or box > 4096 or box % 2):
            _fail("BOX_INVALID", f"{name} is {box} px; it must be even, 16 to 4096, or 0 to be advised.")
    if parameters.box_size_px and parameters.output_box_px > parameters.box_size_px:
        _fail(
            "BOX_INVALID",
            f"output_box_px ({parameters.output_box_px}) is larger than box_size_px ({parameters.box_size_px}); boxes are "
            "only made smaller.",
        )


def _require_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:  # not a number fails too
        _fail(
            "OUT_OF_RANGE", f"{name} is {value:g} {unit}".rstrip() + f"; it must be {low:g} to {high:g} {unit}".rstrip() + "."
        )


def _absolute(what: str, name: str, text: str) -> Path:
    if not text:
        _fail("PATH_MISSING", f"Give the {what} ({name}) as an absolute path.")
    if not text.startswith("/") or "\0" in text:
        _fail("PATH_NOT_ABSOLUTE", f"The {what} {text!r} must be an absolute path.")
    return Path(text)


def _require_folder(what: str, path: Path) -> None:
    if not path.is_dir():
        reason = "is not a folder" if path.exists() else "does not exist, or the scheduler cannot see it"
        _fail("PATH_UNUSABLE", f"The {what} {path} {reason}.")
    if not os.access(path, os.R_OK | os.X_OK):
        _fail("PATH_UNUSABLE", f"The {what} {path} cannot be read by the scheduler; change its permissions.")


def _require_file(what: str, path: Path) -> None:
    if not path.is_file():
        reason = "is not a file" if path.exists() else "does not exist, or the scheduler cannot see it"
        _fail("PATH_UNUSABLE", f"The {what} {path} {reason}.")
    if not os.access(path, os.R_OK):
        _fail("PATH_UNUSABLE", f"The {what} {path} cannot be read by the scheduler; change its permissions.")


def _fail(reason: str, sentence: str) -> None:
    raise FrazilError(reason, sentence)
