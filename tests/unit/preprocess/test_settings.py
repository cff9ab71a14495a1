"""What a session's parameters mean for one movie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frazil.api.exposure.v1.exposure_pb2 import Exposure, MovieFile, MovieMetadata
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.movies import MovieInfo
from frazil.io.mrc import write_mrc
from frazil.model.errors import InputError
from frazil_preprocess.settings import MovieSettings, settings_of

FILE = MovieFile(relative_path="a.tif", frame_count=20, width_px=1920, height_px=1280)


INFO = MovieInfo(frame_count=20, height_px=1280, width_px=1920, dtype="uint8", pixel_size_angstrom=None, format="TIFF")


def settings(parameters: SessionParameters, one: Exposure, info: MovieInfo = INFO) -> MovieSettings:
    return settings_of(parameters, one, info)


def exposure(**metadata: object) -> Exposure:
    return Exposure(exposure_id="e", file=FILE, metadata=MovieMetadata(**metadata))


def test_what_a_person_says_goes_before_metadata_goes_before_defaults() -> None:
    parameters = SessionParameters(pixel_size_angstrom=2.0, particle_diameter_angstrom=150)
    found = settings(parameters, exposure(pixel_size_angstrom=1.0, voltage_kv=200.0, total_dose_e_per_angstrom2=40.0))
    assert (found.optics.pixel_size_angstrom, found.optics.voltage_kv, found.optics.amplitude_contrast) == (2.0, 200.0, 0.1)
    assert found.optics.dose_per_frame_e_per_angstrom2 == 2.0


def test_the_pixel_size_must_come_from_somewhere() -> None:
    with pytest.raises(InputError, match="pixel size"):
        settings(SessionParameters(particle_diameter_angstrom=150), exposure())


def test_boxes_are_even_hold_the_particle_and_obey_the_person() -> None:
    advised = settings(SessionParameters(pixel_size_angstrom=1.1, particle_diameter_angstrom=150), exposure()).box
    assert advised.box_size_px * 1.1 >= 1.5 * 150
    assert advised.box_size_px % 2 == advised.output_box_px % 2 == 0
    asked = SessionParameters(pixel_size_angstrom=1.1, particle_diameter_angstrom=150, box_size_px=256, output_box_px=128)
    found = settings(asked, exposure()).box
    assert (found.box_size_px, found.output_box_px) == (256, 128)
    asked.output_box_px = 300
    with pytest.raises(InputError, match="Boxes must be even"):
        settings(asked, exposure())


def test_a_gain_of_another_shape_is_refused_with_both_shapes(tmp_path: Path) -> None:
    write_mrc(tmp_path / "gain.mrc", np.ones((64, 64), dtype=np.float32), 1.0)
    parameters = SessionParameters(
        pixel_size_angstrom=1.1, particle_diameter_angstrom=150, gain_path=str(tmp_path / "gain.mrc")
    )
    with pytest.raises(InputError, match="64 x 64 px but the movies are 1,920 x 1,280 px"):
        settings(parameters, exposure())


def test_a_gain_only_the_camera_computer_knows_is_not_looked_for() -> None:
    found = settings(
        SessionParameters(pixel_size_angstrom=1.1, particle_diameter_angstrom=150), exposure(gain_path="X:/refs/gain.mrc")
    )
    assert found.gain is None


def test_an_output_box_larger_than_advised_widens_the_box() -> None:
    asked = SessionParameters(pixel_size_angstrom=1.1, particle_diameter_angstrom=150, output_box_px=900)
    found = settings(asked, exposure()).box
    assert (found.box_size_px, found.output_box_px) == (900, 900)


def test_each_movie_draws_its_own_numbers_the_same_in_every_session() -> None:
    parameters = SessionParameters(pixel_size_angstrom=1.1, particle_diameter_angstrom=150, seed=4)
    first, other = exposure(), Exposure(exposure_id="f", file=MovieFile(relative_path="b.tif", width_px=1920, height_px=1280))
    again = Exposure(exposure_id="in another session", file=FILE)
    assert settings(parameters, first).seed == settings(parameters, again).seed
    assert settings(parameters, first).seed != settings(parameters, other).seed


def test_the_picker_gets_what_the_session_says_to_it(tmp_path: Path) -> None:
    parameters = SessionParameters(pixel_size_angstrom=1.1, particle_diameter_angstrom=100, particle_diameter_max_angstrom=150)
    plain = settings(parameters, exposure())
    assert plain.picker.TITLE == "Blob picker"
    assert (plain.picking.diameter_min_angstrom, plain.picking.diameter_max_angstrom) == (100, 150)
    assert (plain.limits.max_picks, plain.limits.score_min) == (4000, None)
    parameters.picker_shapes.extend(["ellipse"])
    parameters.picker_score_min, parameters.picker_max_picks = 0.0, 7
    said = settings(parameters, exposure())
    assert said.picking.shapes == ("ellipse",)
    assert (said.limits.score_min, said.limits.max_picks, said.limits.power_min) == (0.0, 7, None)
    parameters.picker_lowpass_angstrom = 30.0
    with pytest.raises(InputError, match="'Blob picker' has no option picker_lowpass_angstrom"):
        settings(parameters, exposure())


def test_the_template_picker_reads_its_templates(tmp_path: Path) -> None:
    parameters = SessionParameters(pixel_size_angstrom=1.1, particle_diameter_angstrom=100, picker="template")
    with pytest.raises(InputError, match="needs templates"):
        settings(parameters, exposure())
    write_mrc(tmp_path / "a.mrcs", np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32), 4.0, image_stack=True)
    parameters.picker_templates_path, parameters.picker_angular_step_degrees = str(tmp_path / "a.mrcs"), 15.0
    found = settings(parameters, exposure()).picking
    assert (found.templates.images.shape, found.angular_step_degrees) == ((2, 32, 32), 15.0)
