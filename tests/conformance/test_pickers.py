"""Every file in the picking folder is a picker that keeps the contract; a new one is tested by being there."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

import array_api_strict
import numpy as np
import pytest

from frazil.algorithms import picking
from frazil.algorithms.detection.peaks import Limits
from frazil.algorithms.pick_thresholds import picked
from frazil.algorithms.templates import Templates, project
from frazil.model.errors import ErrorKind, FrazilError, InputError
from frazil.model.optics import Optics
from frazil.model.particles import Pick
from simulated_micrograph import Scene, particle_atoms, simulate

SCENE = Scene(shape=(768, 896), pixel_size_angstrom=2.0, particle_count=40, seed=4)


@pytest.fixture(params=picking.names())
def picker(request: pytest.FixtureRequest) -> picking.Picker:
    return picking.load(request.param)


@pytest.fixture(scope="module")
def truth() -> Any:
    return simulate(SCENE)


@functools.lru_cache
def templates() -> Templates:
    """The particle of the scene, projected from its atoms."""
    atoms, _ = particle_atoms(SCENE.particle)
    edges = np.arange(65) * 4.0 - 130.0
    volume, _ = np.histogramdd(atoms[:, ::-1], bins=[edges] * 3)
    return project(volume.astype(np.float32), 4.0)


def parameters(picker: picking.Picker, low: float, high: float | None = None) -> Any:
    """What a picker needs: diameters and, where it asks for them, templates."""
    asked = {field.name for field in dataclasses.fields(picker.Parameters)}
    more = {"templates": templates()} if "templates" in asked else {}
    return picker.Parameters(diameter_min_angstrom=low, diameter_max_angstrom=high or low, **more)


def pick(picker: picking.Picker, image: Any, chosen: Any, pixel: float = SCENE.pixel_size_angstrom) -> tuple[Pick, ...]:
    return picked(picker.search(image, chosen, optics=Optics(pixel_size_angstrom=pixel), seed=1), Limits())


def test_the_pickers_are_there() -> None:
    assert {"blob", "template"} <= set(picking.names())


def test_an_unknown_picker_is_refused_with_the_known_names() -> None:
    with pytest.raises(FrazilError) as caught:
        picking.load("blobs")
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert all(name in caught.value.sentence for name in picking.names())


def test_it_has_a_title_and_frozen_parameters(picker: picking.Picker) -> None:
    assert picker.TITLE
    assert inspect.getdoc(picker.search)
    assert dataclasses.is_dataclass(picker.Parameters)
    with pytest.raises(dataclasses.FrozenInstanceError):
        parameters(picker, 100.0).diameter_min_angstrom = 5.0


def test_senseless_diameters_are_refused(picker: picking.Picker) -> None:
    for low, high in ((0.0, 100.0), (200.0, 100.0), (float("nan"), float("nan"))):
        with pytest.raises(InputError):
            parameters(picker, low, high)


def test_it_finds_particles_in_px_of_the_micrograph(picker: picking.Picker, truth: Any) -> None:
    before = truth.image.copy()
    found = pick(picker, truth.image, parameters(picker, truth.diameter_angstrom))
    np.testing.assert_array_equal(truth.image, before)
    assert all(isinstance(p, Pick) for p in found)
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    places = np.array([(p.x_px, p.y_px) for p in found])
    assert (places >= 0).all()
    assert (places <= np.array(SCENE.shape[::-1]) - 1).all()
    near = np.hypot(*(places[:, None] - truth.centres[None]).transpose(2, 0, 1)) < 0.35 * truth.diameter_angstrom / 2.0
    assert near.any(axis=1).mean() > 0.75
    assert near.any(axis=0).mean() > 0.7


def test_equal_seeds_give_equal_picks(picker: picking.Picker, truth: Any) -> None:
    chosen = parameters(picker, truth.diameter_angstrom)
    first, second = (pick(picker, truth.image, chosen) for _ in range(2))
    assert first == second


def test_it_runs_on_any_backend(picker: picking.Picker, truth: Any) -> None:
    chosen = parameters(picker, truth.diameter_angstrom)
    plain = pick(picker, truth.image, chosen)
    strict = pick(picker, array_api_strict.asarray(truth.image), chosen)
    assert abs(len(strict) - len(plain)) <= 0.1 * len(plain)


def test_there_is_nothing_in_an_image_without_particles(picker: picking.Picker) -> None:
    noise = np.random.default_rng(0).poisson(30.0, (700, 700)).astype(np.float32)
    assert len(pick(picker, noise, parameters(picker, 150.0), pixel=1.5)) <= 6
    for value in (0.0, 7.0, np.nan):
        flat = np.full((400, 400), value, dtype=np.float32)
        assert picker.search(flat, parameters(picker, 100.0), optics=Optics(pixel_size_angstrom=1.5), seed=0).picks == ()
