"""A movie without an image is refused with a sentence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from frazil.api.exposure.v1.exposure_pb2 import Exposure, MovieFile
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.movies import MovieInfo
from frazil.model.errors import InputError
from frazil_preprocess.pipeline import preprocess
from frazil_preprocess.settings import settings_of
from frazil_preprocess.stages import Stages


@pytest.mark.parametrize(
    "movie",
    [
        np.full((6, 256, 256), 3, dtype=np.uint8),
        np.zeros((6, 256, 256), dtype=np.uint8),
        np.full((6, 256, 256), np.nan, dtype=np.float32),
    ],
    ids=["constant", "zero", "not a number"],
)
def test_a_movie_without_an_image_is_refused(movie: npt.NDArray[np.generic]) -> None:
    exposure = Exposure(exposure_id="e", file=MovieFile(relative_path="a.mrc", frame_count=6, width_px=256, height_px=256))
    info = MovieInfo(frame_count=6, height_px=256, width_px=256, dtype=movie.dtype.name, pixel_size_angstrom=None, format="MRC")
    parameters = SessionParameters(pixel_size_angstrom=2.0, particle_diameter_angstrom=150)
    with pytest.raises(InputError, match="holds no image"):
        preprocess(movie, settings_of(parameters, exposure, info), Stages(), np)
