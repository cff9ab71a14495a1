"""The template picker on scenes of its own; what every picker must do is in tests/conformance."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from frazil.algorithms.pick_thresholds import picked
from frazil.algorithms.picking import template as picker
from frazil.algorithms.picking.template import TemplateParameters
from frazil.algorithms.templates import Templates, project
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.optics import Optics

Image = np.ndarray[Any, Any]
PIXEL = 2.5
OPTICS = Optics(pixel_size_angstrom=PIXEL)
CTF = Ctf(defocus_u_angstrom=15_500.0, defocus_v_angstrom=14_500.0, defocus_angle_degrees=20.0)


@lru_cache
def letters(mirrored: bool = False) -> Templates:
    """A letter F, 120 Å high, in two grey levels: no rotation of it is its mirror image."""
    image = np.zeros((64, 64), dtype=np.float32)
    image[17:47, 24:30] = 1.0
    image[17:23, 24:44] = 1.0
    image[29:34, 24:38] = 0.7
    return Templates((image[:, ::-1] if mirrored else image)[None].copy(), 4.0)


def planted(templates: Templates, ctf: Ctf | None, noise: float, seed: int = 0) -> tuple[Image, Image]:
    """Letters at places and in turns of all kinds, dark, through the CTF, in white noise; and their centres (n, 2) as x, y."""
    rng = np.random.default_rng(seed)
    side = 640
    y, x = np.mgrid[:side, :side].astype(np.float64)
    image = np.zeros((side, side))
    centres = np.array([(90.0 + 92.0 * i, 90.0 + 92.0 * j) for i in range(6) for j in range(6)])
    centres += rng.uniform(-12, 12, centres.shape)
    template, scale, middle = templates.images[0], PIXEL / templates.pixel_size_angstrom, templates.images.shape[1] // 2
    for (cx, cy), turn in zip(centres, rng.uniform(0, 2 * np.pi, len(centres)), strict=True):
        u = np.round(middle + scale * ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn))).astype(int)
        v = np.round(middle + scale * ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn))).astype(int)
        inside = (u >= 0) & (v >= 0) & (u < template.shape[1]) & (v < template.shape[0])
        image[inside] += template[v[inside], u[inside]]
    if ctf is not None:
        sy, sx = np.fft.fftfreq(side)[:, None] / PIXEL, np.fft.rfftfreq(side)[None, :] / PIXEL
        azimuth, s2 = np.arctan2(sy, sx), sx**2 + sy**2
        defocus = ctf.mean_defocus_angstrom + 0.5 * ctf.astigmatism_angstrom * np.cos(
            2 * (azimuth - np.deg2rad(ctf.defocus_angle_degrees))
        )
        chi = np.pi * 0.0196876 * s2 * (defocus - 0.0196876**2 * s2 * 2.7e7 / 2) + np.arcsin(0.1)
        image = np.fft.irfft2(np.fft.rfft2(image) * np.sin(chi))
    return (100.0 - image + noise * rng.normal(size=image.shape)).astype(np.float32), centres


def search(image: Image, templates: Templates, ctf: Ctf | None, **more: Any) -> Any:
    parameters = TemplateParameters(templates=templates, diameter_min_angstrom=130.0, diameter_max_angstrom=130.0, **more)
    return picked(picker.search(image, parameters, optics=OPTICS, ctf=ctf, seed=1), parameters)


def hits(picks: Any, centres: Image, within_px: float) -> tuple[int, int]:
    """How many picks are true, and how many particles are found."""
    places = np.array([(p.x_px, p.y_px) for p in picks]).reshape(-1, 2)
    near = np.hypot(*(places[:, None] - centres[None]).transpose(2, 0, 1)) < within_px
    return int(near.any(axis=1).sum()), int(near.any(axis=0).sum())


@pytest.mark.parametrize(("ctf", "noise"), [(None, 1.0), (CTF, 0.5)])
def test_planted_letters_are_found_in_any_turn_at_their_places(ctf: Ctf | None, noise: float) -> None:
    image, centres = planted(letters(), ctf, noise)
    found = search(image, letters(), ctf)
    true, recalled = hits(found, centres, 0.05 * 130.0 / PIXEL)
    assert recalled >= 0.95 * len(centres)
    assert true >= 0.95 * len(found)


def test_the_ctf_and_the_hand_matter() -> None:
    image, _ = planted(letters(), CTF, 0.5)
    right = np.median([p.score for p in search(image, letters(), CTF)][:30])
    without = np.median([p.score for p in search(image, letters(), None)][:30] or [0.0])
    mirrored = np.median([p.score for p in search(image, letters(mirrored=True), CTF)][:30] or [0.0])
    assert right > 1.15 * without
    assert right > 1.02 * mirrored


def test_thresholds_and_limits_hold() -> None:
    image, _ = planted(letters(), None, 1.0)
    plain = search(image, letters(), None)
    middle = float(np.median([p.score for p in plain]))
    assert {p.score for p in search(image, letters(), None, score_min=middle)} == {p.score for p in plain if p.score >= middle}
    assert search(image, letters(), None, max_picks=5) == plain[:5]


def test_a_volume_is_projected_along_every_direction() -> None:
    z, y, x = np.mgrid[:48, :48, :48] - 24
    disc = ((np.hypot(y, x) < 14) & (np.abs(z) < 3)).astype(np.float32)  # thin along z
    found = project(disc, 4.0, views=60)
    assert found.images.shape == (60, 48, 48)
    np.testing.assert_allclose(found.images.sum(axis=(1, 2)), disc.sum(), rtol=0.05)  # what trilinear reading leaves
    for view in (found.images[0], found.images[-1]):  # along z, all but 10 degrees, from either side
        assert np.corrcoef(view.ravel(), disc.sum(axis=0).ravel())[0, 1] > 0.95
    highest = found.images.max(axis=(1, 2))
    assert highest[len(highest) // 2] > 3.0 * highest[0]  # from the side it is thick


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8)), np.ones((8, 8)), np.ones((2, 8, 9)), np.full((1, 8, 8), np.nan), np.zeros((0, 8, 8))]
)
def test_templates_without_images_are_refused(images: Image) -> None:
    with pytest.raises(InputError):
        Templates(images.astype(np.float32), 1.0)
    with pytest.raises(InputError, match="pixel size"):
        Templates(np.eye(8, dtype=np.float32)[None], 0.0)
