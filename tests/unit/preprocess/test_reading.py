"""How a session wants its movies read: EER by number or dose, the pixel size and dose that follow, cropping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frazil.api.exposure.v1.exposure_pb2 import Exposure, MovieFile, MovieMetadata
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.movies import MovieInfo
from frazil.model.errors import InputError
from frazil.simulator.eer import encode_eer
from frazil_preprocess.reading import load_crop, open_exposure, optics_as_read

RAW_FRAMES = 103
EMPTY = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    (tmp_path / "movie.eer").write_bytes(encode_eer([EMPTY] * RAW_FRAMES, (32, 48)))
    return tmp_path / "movie.eer"


def exposure(**metadata: float) -> Exposure:
    file = MovieFile(relative_path="movie.eer", frame_count=RAW_FRAMES, height_px=32, width_px=48)
    return Exposure(exposure_id="e", file=file, metadata=MovieMetadata(pixel_size_angstrom=0.8, **metadata))


@pytest.mark.parametrize(
    ("given", "frames", "group"),
    [
        ({}, 40, 2),  # the 23 raw frames left over are dropped
        ({"eer_fractions": 10}, 10, 10),
        ({"eer_fractions": 500}, 103, 1),
        ({"eer_dose_per_fraction_e_per_angstrom2": 2.05}, 25, 4),  # 51.5 e/Å² in 103 raw frames
    ],
)
def test_fractions_by_number_or_dose(movie: Path, given: dict[str, float], frames: int, group: int) -> None:
    parameters = SessionParameters(**given)  # type: ignore[arg-type]
    opened = open_exposure(parameters, exposure(total_dose_e_per_angstrom2=51.5), movie)
    assert opened.info.frame_count == frames
    assert opened.info.rendering is not None
    assert opened.info.rendering.frames_per_fraction == group
    optics = optics_as_read(parameters, exposure(total_dose_e_per_angstrom2=51.5), opened.info)
    assert optics.dose_per_frame_e_per_angstrom2 == pytest.approx(0.5 * group)
    assert opened.read().shape == (frames, 32, 48)


def test_what_a_person_says_of_the_dose_holds_for_the_fraction_or_the_movie(movie: Path) -> None:
    for given, dose in (({"dose_per_frame_e_per_angstrom2": 1.25}, 1.25), ({"total_dose_e_per_angstrom2": 20.6}, 2.0)):
        parameters = SessionParameters(eer_fractions=10, **given)  # type: ignore[arg-type]
        info = open_exposure(parameters, exposure(total_dose_e_per_angstrom2=51.5), movie).info
        found = optics_as_read(parameters, exposure(total_dose_e_per_angstrom2=51.5), info)
        assert found.dose_per_frame_e_per_angstrom2 == pytest.approx(dose)


def test_fractions_by_dose_need_a_dose(movie: Path) -> None:
    parameters = SessionParameters(eer_dose_per_fraction_e_per_angstrom2=1.0)
    with pytest.raises(InputError, match="give it, or a number of EER fractions"):
        open_exposure(parameters, exposure(), movie)


def test_the_pixel_size_follows_the_grid(movie: Path) -> None:
    parameters = SessionParameters(eer_upsampling=2)
    info = open_exposure(parameters, exposure(), movie).info
    assert (info.height_px, info.width_px) == (64, 96)
    assert optics_as_read(parameters, exposure(), info).pixel_size_angstrom == pytest.approx(0.4)
    parameters.load_crop = 2
    assert optics_as_read(parameters, exposure(), info).pixel_size_angstrom == pytest.approx(0.8)


@pytest.mark.parametrize(("side", "crop"), [((8184, 11520), 2), ((7676, 7420), 2), ((4092, 5760), 1), ((8192, 8192), 1)])
def test_super_resolution_is_cropped_unless_told(side: tuple[int, int], crop: int) -> None:
    info = MovieInfo(frame_count=5, height_px=side[0], width_px=side[1], dtype="uint8", pixel_size_angstrom=None, format="TIFF")
    assert load_crop(SessionParameters(), info) == crop
    assert load_crop(SessionParameters(load_crop=1), info) == 1
    if info.height_px == 4092:
        assert load_crop(SessionParameters(camera="k3-super-resolution"), info) == 2  # trimmed frames
