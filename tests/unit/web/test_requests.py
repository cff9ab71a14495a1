"""What the page sends is read strictly, and each wrong field gets a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from frazil.model.errors import FrazilError
from frazil_web.requests import field_of, read_request_id, read_session

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


@pytest.mark.parametrize(
    ("reason", "sentence", "field"),
    [
        ("NAME_INVALID", "The session's name 'a b' must be letters.", "name"),
        ("SESSION_EXISTS", "There is already a session.", "name"),
        ("OUT_OF_RANGE", "pixel_size_angstrom is 30 Å; it must be 0.1 to 20 Å.", "pixel_size_angstrom"),
        ("DIAMETER_MISSING", "Give the diameter in Å (particle_diameter_angstrom), e.g. 140.", "particle_diameter_angstrom"),
        ("WORKERS_INVALID", "preprocessing_workers is 999; it must be 1 to 256.", "preprocessing_workers"),
        ("PATH_UNUSABLE", "The movie folder /nope does not exist, or the scheduler cannot see it.", "movie_folder"),
        ("PATH_UNUSABLE", "The gain reference /g.mrc is not a file.", "gain_path"),
        ("SCHEDULER_STOPPING", "The scheduler is stopping; dial in again in a moment.", ""),
    ],
)
def test_a_refusal_is_shown_at_the_field_it_is_about(reason: str, sentence: str, field: str) -> None:
    assert field_of(reason, sentence) == field
