"""What the page sends is read strictly, and each wrong field gets a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from frazil_web.requests import read_request_id, read_session

from frazil.model.errors import FrazilError

GOOD: dict[str, Any] = {"movie_folder": "/movies/grid7", "particle_diameter_angstrom": 140}


def test_what_is_sent_is_what_is_set() -> None:
    session = read_session(
        {
            "name": " grid7 ",
            "parameters": {
                **GOOD,
                "pixel_size_angstrom": 0.83,
                "gain_rotate": 1,
                "gain_flip": "y",
                "voltage_kv": None,
                "until": "",
            },
            "compute": {"preprocessing_lane": "gpu", "preprocessing_workers": 2},
            "labels": {"proposal": "p1"},
        }
    )
    assert (session.name, session.labels["proposal"], session.compute.preprocessing_workers) == ("grid7", "p1", 2)
    assert session.parameters.pixel_size_angstrom == 0.83
    assert not session.parameters.HasField("voltage_kv")
    assert not session.parameters.HasField("spherical_aberration_mm")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("movie_folder", "grid7"),
        ("movie_folder", 7),
        ("movie_folder", "/a\0b"),
        ("movie_folder", ""),
        ("movie_folder", "/" + "x" * 5000),
        ("particle_diameter_angstrom", 0),
        ("particle_diameter_angstrom", -5),
        ("particle_diameter_angstrom", "140"),
        ("particle_diameter_angstrom", float("nan")),
        ("particle_diameter_angstrom", True),
        ("particle_diameter_max_angstrom", 100),
        ("pixel_size_angstrom", -0.8),
        ("voltage_kv", 0),
        ("amplitude_contrast", 1.5),
        ("class_count", 2.5),
        ("class_count", -1),
        ("class_count", 1e12),
        ("gain_rotate", 4),
        ("gain_flip", "z"),
        ("gain_path", "gain.mrc"),
        ("until", "refine"),
        ("nonsense", 1),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(FrazilError) as caught:
        read_session({"name": "grid7", "parameters": {**GOOD, field: value}})
    assert caught.value.reason == "FIELDS_INVALID"
    assert list(caught.value.metadata) == [field]
    assert caught.value.metadata[field].endswith(".")


@pytest.mark.parametrize("body", [None, [], "x", {"name": "a", "parameters": [1]}, {"name": "a", "compute": "x"}])
def test_another_shape_is_refused(body: object) -> None:
    with pytest.raises(FrazilError):
        read_session(body)


def test_labels_are_texts() -> None:
    with pytest.raises(FrazilError) as caught:
        read_session({"name": "a", "parameters": GOOD, "labels": {"x": 1}})
    assert list(caught.value.metadata) == ["labels"]


@pytest.mark.parametrize("body", [None, {}, {"request_id": ""}, {"request_id": 7}, {"request_id": "x" * 101}])
def test_a_request_id_is_demanded(body: object) -> None:
    with pytest.raises(FrazilError, match="request_id"):
        read_request_id(body)
