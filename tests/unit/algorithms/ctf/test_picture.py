from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from frazil.algorithms.ctf.fit import CtfSearch, fit_spectrum
from frazil.algorithms.ctf.picture import spectrum_picture
from frazil.algorithms.ctf.spectrum import Spectrum
from frazil.algorithms.ctf.window import single_hann
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from simulated_micrograph import Scene, ctf

SCENE = Scene(defocus_u_angstrom=13_000.0, defocus_v_angstrom=10_500.0, angle_degrees=35.0)
OPTICS = Optics(pixel_size_angstrom=1.5)


def spectrum() -> Spectrum:
    step, m = 1 / 900.0, 220
    sx, sy = np.arange(m + 1)[None, :] * step, np.arange(-m, m + 1)[:, None] * step
    return Spectrum((1.0 + ctf(SCENE, sx, sy) ** 2).astype(np.float32), step, 4, 0, single_hann(1.0 / step))


def test_the_measured_half_continues_the_model_through_the_origin() -> None:
    found, diagnostics = fit_spectrum(spectrum(), optics=OPTICS, search=CtfSearch())
    picture = spectrum_picture(found, diagnostics, OPTICS, 256).astype(float)
    assert picture.shape == (256, 256)
    turned = picture[1:, 1:][::-1, ::-1]  # half a turn about zero frequency, which is at pixel 128
    y, x = np.mgrid[1:256, 1:256] - 128
    ring = (np.hypot(x, y) > 25) & (np.hypot(x, y) < 85) & (x > 2)
    assert np.corrcoef(picture[1:, 1:][ring], turned[ring])[0, 1] > 0.85


def test_without_a_fit_both_halves_are_measured() -> None:
    found, diagnostics = fit_spectrum(spectrum(), optics=OPTICS, search=CtfSearch())
    picture = spectrum_picture(replace(found, fit_resolution_angstrom=None), diagnostics, OPTICS, 128)
    np.testing.assert_allclose(picture[1:, 1:64].astype(float), picture[1:, 65:][::-1, ::-1].astype(float), atol=12)


def test_an_image_without_structure_has_a_picture_too() -> None:
    empty = Spectrum(np.zeros((41, 21), np.float32), 1 / 200.0, 0, 9, single_hann(200.0))
    found, diagnostics = fit_spectrum(empty, optics=OPTICS, search=CtfSearch())
    assert spectrum_picture(found, diagnostics, OPTICS, 64).dtype == np.uint8


@pytest.mark.parametrize("size", [10, 129])
def test_odd_and_tiny_pictures_are_refused(size: int) -> None:
    found, diagnostics = fit_spectrum(spectrum(), optics=OPTICS, search=CtfSearch())
    with pytest.raises(InputError, match="even size"):
        spectrum_picture(found, diagnostics, OPTICS, size)
