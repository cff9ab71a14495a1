"""Parameters: every fault is refused with one sentence that says what to do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import validation


def parameters(**values: object) -> session_pb2.SessionParameters:
    return session_pb2.SessionParameters(**({"particle_diameter_angstrom": 140.0} | values))


@pytest.mark.parametrize("name", ["a", "grid-1", "2026.11.24_A", "x" * 63])
def test_good_names(name: str) -> None:
    validation.check_name(name)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "ü", "x" * 64, "..", "a\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(FrazilError) as caught:
        validation.check_name(name)
    assert caught.value.reason == "NAME_INVALID"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"pixel_size_angstrom": 0.1, "voltage_kv": 300.0, "spherical_aberration_mm": 0.0, "amplitude_contrast": 0.1},
        {"pixel_size_angstrom": 20.0, "dose_per_frame_e_per_angstrom2": 0.0},
        {"particle_diameter_max_angstrom": 140.0},
        {"gain_flip": "x", "gain_rotate": 3, "until": "class2d", "box_size_px": 256, "output_box_px": 128, "class_count": 50},
        {"movie_glob": "**/*.eer"},
        {"eer_fractions": 60, "eer_upsampling": 4, "load_crop": 2, "gain_sense": "divide", "read_bzip2": True},
        {"picker": "template", "picker_templates_path": "/a.mrcs", "picker_score_min": -0.1, "picker_max_picks": 500},
        {"eer_dose_per_fraction_e_per_angstrom2": 0.8, "total_dose_e_per_angstrom2": 40.0},
    ],
)
def test_good_parameters(values: dict[str, object]) -> None:
    validation.check_parameters(parameters(**values))


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"pixel_size_angstrom": 0.05}, "pixel_size_angstrom is 0.05 Å; it must be 0.1 to 20 Å."),
        ({"picker": "../blob"}, "it is the name of a picker"),
        ({"picker": "template"}, "The template picker needs picker_templates_path"),
        ({"picker_score_min": 3.0}, "picker_score_min is 3; it must be -1 to 1."),
        ({"picker_angular_step_degrees": math.nan}, "0 to 360"),
        ({"pixel_size_angstrom": 21.0}, "0.1 to 20 Å"),
        ({"pixel_size_angstrom": math.nan}, "0.1 to 20 Å"),
        ({"voltage_kv": 300_000.0}, "40 to 1000 kV"),
        ({"spherical_aberration_mm": -1.0}, "0 to 20 mm"),
        ({"amplitude_contrast": 1.5}, "0 to 1."),
        ({"phase_shift_max_degrees": 200.0}, "0 to 180"),
        ({"phase_shift_min_degrees": 90.0, "phase_shift_max_degrees": 40.0}, "below the least"),
        ({"dose_per_frame_e_per_angstrom2": -0.1}, "0 to 1000 e/Å²"),
        ({"particle_diameter_angstrom": 0.0}, "Give the particle diameter"),
        ({"particle_diameter_angstrom": math.nan}, "Give the particle diameter"),
        ({"particle_diameter_angstrom": 5.0}, "10 to 5000 Å"),
        ({"particle_diameter_max_angstrom": 100.0}, "between the smallest, 140 Å"),
        ({"gain_flip": "z"}, "one of none, x, y"),
        ({"gain_rotate": 4}, "quarter turns, 0 to 3"),
        ({"gain_rotate": -1}, "quarter turns, 0 to 3"),
        ({"gain_sense": "both"}, "multiply, divide or empty"),
        ({"eer_fractions": -1}, "1 to 1,000, or 0 for 40"),
        ({"eer_fractions": 40, "eer_dose_per_fraction_e_per_angstrom2": 1.0}, "either eer_fractions or"),
        ({"eer_upsampling": 3}, "1, 2 or 4"),
        ({"load_crop": 8}, "1, 2 or 4"),
        ({"dose_per_frame_e_per_angstrom2": 1.0, "total_dose_e_per_angstrom2": 40.0}, "either the total dose or"),
        ({"until": "class3d"}, "preprocess, class2d, refine3d or empty"),
        ({"box_size_px": 255}, "must be even"),
        ({"output_box_px": 8}, "16 to 4096"),
        ({"box_size_px": 128, "output_box_px": 256}, "larger than box_size_px"),
        ({"class_count": 1}, "2 to 1000"),
        ({"class_max_resolution_angstrom": 0.2}, "1 to 100 Å"),
        ({"movie_glob": "../*.tiff"}, "relative to the movie folder"),
        ({"movie_glob": "/movies/*.tiff"}, "relative to the movie folder"),
    ],
)
def test_bad_parameters(values: dict[str, object], part: str) -> None:
    with pytest.raises(FrazilError) as caught:
        validation.check_parameters(parameters(**values))
    assert part in caught.value.sentence
    assert caught.value.sentence.endswith(".")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"movie_folder": ""}, "Give the movie folder"),
        ({"movie_folder": "movies"}, "must be an absolute path"),
        ({"movie_folder": "{tmp}/missing"}, "does not exist"),
        ({"movie_folder": "{tmp}/gain.mrc"}, "is not a folder"),
        ({"gain_path": "{tmp}/missing.mrc"}, "The gain reference {tmp}/missing.mrc does not exist"),
        ({"gain_path": "{tmp}/movies"}, "is not a file"),
        ({"defects_path": "defects.txt"}, "must be an absolute path"),
        ({"metadata_folder": "{tmp}/gain.mrc"}, "The metadata folder"),
    ],
)
def test_bad_paths(tmp_path: Path, values: dict[str, str], part: str) -> None:
    (tmp_path / "movies").mkdir()
    (tmp_path / "gain.mrc").write_bytes(b"gain")
    given = {"movie_folder": str(tmp_path / "movies")} | {k: v.format(tmp=tmp_path) for k, v in values.items()}
    with pytest.raises(FrazilError) as caught:
        validation.check_paths(parameters(**given), tmp_path / "data" / "s")
    assert part.format(tmp=tmp_path) in caught.value.sentence


def test_the_microscopes_folder_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "movies").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "movies")
    for inside in ("movies/frazil-data/s", "movies", "link/s"):
        with pytest.raises(FrazilError) as caught:
            validation.check_paths(parameters(movie_folder=str(tmp_path / "movies")), tmp_path / inside)
        assert caught.value.reason == "SESSION_INSIDE_MOVIES"
    validation.check_paths(parameters(movie_folder=str(tmp_path / "movies")), tmp_path / "data" / "s")


def test_lanes_and_workers() -> None:
    lanes = {"default": 1, "big": 2}
    validation.check_compute(session_pb2.ComputeResources(preprocessing_lane="big"), lanes, sorted(lanes))
    for bad, part in (
        (session_pb2.ComputeResources(reconstruction_lane="gone"), "There is no lane 'gone'; known are big, default."),
        (session_pb2.ComputeResources(preprocessing_workers=-1), "1 to 256"),
        (session_pb2.ComputeResources(preprocessing_workers=257), "1 to 256"),
    ):
        with pytest.raises(FrazilError) as caught:
            validation.check_compute(bad, lanes, sorted(lanes))
        assert part in caught.value.sentence
