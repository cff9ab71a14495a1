"""Declarations of job types: our own, those of other distributions, and their parameters."""

from __future__ import annotations

import pytest

from frazil import jobs
from frazil.model.errors import FrazilError


def test_another_distribution_adds_a_job_type_by_an_entry_point(more_jobs: None) -> None:
    assert {"count", "preprocess"} <= set(jobs.names())
    assert jobs.load("count").title == "Counting job"


def test_an_unknown_job_type_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(FrazilError) as caught:
        jobs.load("count")
    assert caught.value.reason == "JOB_TYPE_UNKNOWN"
    assert "preprocess" in caught.value.sentence


def test_parameters_are_read_by_the_type_of_their_default(more_jobs: None) -> None:
    count = jobs.load("count")
    assert count.read({}) == {"classes": 3, "resolution_angstrom": 12.0, "symmetry": "C1", "mask": True}
    given = {"classes": "7", "resolution_angstrom": "8.5", "symmetry": "O", "mask": "no"}
    assert count.read(given) == {"classes": 7, "resolution_angstrom": 8.5, "symmetry": "O", "mask": False}


@pytest.mark.parametrize(
    ("given", "reason", "sentence"),
    [
        ({"clases": "3"}, "PARAMETER_UNKNOWN", "does not know clases; it knows classes"),
        ({"classes": "three"}, "PARAMETER_INVALID", "classes is 'three'; it must be a whole number."),
        ({"classes": "51"}, "PARAMETER_INVALID", "must be between 1 and 50"),
        ({"resolution_angstrom": "nan"}, "PARAMETER_INVALID", "must be between 1 and 100"),
        ({"symmetry": "C0"}, "PARAMETER_INVALID", "must be one of C1, D7, O"),
        ({"mask": "perhaps"}, "PARAMETER_INVALID", "must be true or false"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(more_jobs: None, given: dict[str, str], reason: str, sentence: str) -> None:
    with pytest.raises(FrazilError) as caught:
        jobs.load("count").read(given)
    assert caught.value.reason == reason
    assert sentence in caught.value.sentence
