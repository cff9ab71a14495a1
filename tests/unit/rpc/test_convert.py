from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.api.worker.v1.worker_pb2 import FailExposureRequest
from frazil.model.ctf import Ctf, DefocusField
from frazil.model.errors import FailureClass, InputError
from frazil.model.motion import Motion
from frazil.model.optics import MovieMetadata, Optics
from frazil.rpc import convert

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
counts = st.none() | st.integers(1, 2**31 - 1)
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
metadata = st.builds(
    MovieMetadata,
    **{
        field.name: texts if "str" in str(field.type) else counts if "int" in str(field.type) else numbers
        for field in dataclasses.fields(MovieMetadata)
        if field.name != "provenance"
    },
    provenance=st.dictionaries(st.text("abc"), st.text("abc")).map(lambda d: tuple(sorted(d.items()))),
)


@given(metadata)
def test_metadata_comes_back_as_it_was(record: MovieMetadata) -> None:
    assert convert.metadata_from_message(convert.metadata_to_message(record)) == record


def test_zero_is_not_unset_and_nan_is() -> None:
    message = convert.metadata_to_message(MovieMetadata(beam_shift_x=0.0, beam_shift_y=math.nan))
    record = convert.metadata_from_message(message)
    assert (record.beam_shift_x, record.beam_shift_y) == (0.0, None)


def test_optics_take_the_person_before_the_metadata_before_the_defaults() -> None:
    parameters = SessionParameters(voltage_kv=200.0, amplitude_contrast=0.07)
    found = MovieMetadata(pixel_size_angstrom=0.83, voltage_kv=300.0, spherical_aberration_mm=0.01)
    assert convert.optics_of(parameters, found) == Optics(
        pixel_size_angstrom=0.83, voltage_kv=200.0, spherical_aberration_mm=0.01, amplitude_contrast=0.07
    )


def test_dose_of_a_frame_may_come_from_the_total() -> None:
    found = MovieMetadata(pixel_size_angstrom=1.0, total_dose_e_per_angstrom2=50.0)
    assert convert.optics_of(SessionParameters(), found, frame_count=40).dose_per_frame_e_per_angstrom2 == 1.25
    whole = SessionParameters(total_dose_e_per_angstrom2=60.0)
    assert convert.optics_of(whole, found, frame_count=40).dose_per_frame_e_per_angstrom2 == 1.5
    given_too = dataclasses.replace(found, dose_per_frame_e_per_angstrom2=1.1)
    assert convert.optics_of(SessionParameters(), given_too, frame_count=40).dose_per_frame_e_per_angstrom2 == 1.1
    assert convert.optics_of(SessionParameters(), found).dose_per_frame_e_per_angstrom2 == 1.0


def test_unknown_pixel_size_says_where_to_set_it() -> None:
    with pytest.raises(InputError, match="session's parameters"):
        convert.optics_of(SessionParameters(), MovieMetadata())


@pytest.mark.parametrize("resolution", [None, 3.5])
def test_ctf_comes_back_as_it_was(resolution: float | None) -> None:
    ctf = Ctf(
        defocus_u_angstrom=15000.0,
        defocus_v_angstrom=14000.0,
        defocus_angle_degrees=33.0,
        phase_shift_degrees=90.0,
        score=0.2,
        fit_resolution_angstrom=resolution,
    )
    result = ExposureResult()
    convert.set_ctf(result, ctf)
    assert convert.ctf_of(result) == ctf


def test_a_defocus_field_comes_back_and_leaves_no_trace_in_a_flat_fit() -> None:
    tilted = Ctf(
        defocus_u_angstrom=15000.0,
        defocus_v_angstrom=14000.0,
        defocus_angle_degrees=33.0,
        field=DefocusField((0.0, 1500.0, 0.0, 0.0, 0.0)),
    )
    result = ExposureResult(width_px=2000, height_px=1500, pixel_size_angstrom=2.0)
    convert.set_ctf(result, tilted)
    assert convert.ctf_of(result) == tilted
    assert result.defocus_range_angstrom == pytest.approx(1500.0)
    assert result.tilt_angle_degrees == pytest.approx(math.degrees(math.atan(0.5)))  # 1500 Å of defocus on 3000 Å in y
    assert result.tilt_axis_degrees == pytest.approx(0.0)
    convert.set_ctf(result, dataclasses.replace(tilted, field=DefocusField()))
    assert (result.defocus_range_angstrom, result.tilt_angle_degrees, len(result.defocus_field_angstrom)) == (0.0, 0.0, 0)
    assert not result.HasField("tilt_axis_degrees")


def test_motion_and_optics_of_a_result() -> None:
    result = ExposureResult()
    motion = Motion(
        shift_x_px=(0.0, 1.0),
        shift_y_px=(0.0, 0.0),
        pixel_size_angstrom=1.0,
        total_angstrom=5.0,
        early_angstrom=3.0,
        late_angstrom=2.0,
        local_angstrom=1.5,
        converged=False,
    )
    convert.set_motion(result, motion)
    convert.set_optics(result, Optics(pixel_size_angstrom=1.0, voltage_kv=200.0, amplitude_contrast=0.07))
    assert (result.motion_total_angstrom, result.motion_early_angstrom, result.motion_late_angstrom) == (5.0, 3.0, 2.0)
    assert not result.motion_converged
    assert result.motion_local_angstrom == 1.5
    assert not result.HasField("motion_sigma_px")
    convert.set_motion(result, dataclasses.replace(motion, sigma_px=0.2))
    assert result.motion_sigma_px == 0.2
    assert (result.voltage_kv, result.amplitude_contrast) == (200.0, 0.07)


@pytest.mark.parametrize("failure_class", list(FailureClass))
def test_failure_classes_keep_their_names(failure_class: FailureClass) -> None:
    number = convert.failure_class_to_message(failure_class)
    assert FailExposureRequest.FailureClass.Name(number) == f"FAILURE_CLASS_{failure_class.name}"
