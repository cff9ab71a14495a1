"""Parameters and thresholds as they are typed: names may be shortened, every mistake gets one sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from frazil.api.exposure.v1.exposure_pb2 import Exposure, MovieFile
from frazil.api.session.v1.session_pb2 import AttributeThreshold, SessionParameters
from frazil.cli.assignments import assigned, parameter_lines
from frazil.cli.exposure import changed_thresholds, chosen
from frazil.model.errors import FrazilError

OWN = SessionParameters(movie_folder="/data", picker_score_min=0.2, particle_diameter_angstrom=140, picker_shapes=["ring"])


def test_what_is_typed_is_set_and_nothing_after_the_sign_unsets() -> None:
    found = assigned(OWN, ["picker-shapes=circle, ellipse", "box_size=256", "read_bzip2=yes", "picker_score_min=", "seed=7"])
    assert list(found.picker_shapes) == ["circle", "ellipse"]
    assert (found.box_size_px, found.read_bzip2, found.seed, found.movie_folder) == (256, True, 7, "/data")
    assert not found.HasField("picker_score_min")
    assert OWN.picker_score_min == 0.2
    assert assigned(SessionParameters(), list(parameter_lines(OWN))) == OWN  # what is shown can be typed


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("box_size_px", "says no value"),
        ("beauty=1", "no one parameter 'beauty'"),
        ("picker=blob", None),
        ("picker_power=1", "picker_power_min, picker_power_max"),
        ("box_size_px=large", "whole number"),
        ("pixel_size=wide", "must be a number"),
        ("pixel_size=inf", "too large"),
        ("read_bzip2=perhaps", "yes or no"),
    ],
)
def test_a_mistake_is_named(text: str, sentence: str | None) -> None:
    if sentence is None:
        assert assigned(OWN, [text]).picker == "blob"  # a whole name goes before those that begin with it
        return
    with pytest.raises(FrazilError, match=sentence):
        assigned(OWN, [text])


def test_intervals_are_set_replaced_and_taken_away() -> None:
    now = [AttributeThreshold(attribute="ctf_score", minimum=0.1), AttributeThreshold(attribute="pick_count", minimum=5)]
    found = changed_thresholds(now, ["ctf_score=:0.9", "pick_count=", "particle_count=10:200"])
    assert found == [
        AttributeThreshold(attribute="ctf_score", maximum=0.9),
        AttributeThreshold(attribute="particle_count", minimum=10, maximum=200),
    ]
    for wrong in ("ctf_score=0.1", "ctf_score", "ctf_score=:", "ctf_score=a:b"):
        with pytest.raises(FrazilError, match="no interval"):
            changed_thresholds(now, [wrong])


def test_exposures_are_named_by_number_range_identity_or_file() -> None:
    every = [Exposure(exposure_id=f"s-{n}", number=n, file=MovieFile(relative_path=f"sq/{n}.tif")) for n in range(1, 6)]
    client: Any = SimpleNamespace(exposures=lambda _: iter(every))
    assert [one.number for one in chosen(client, "s", ["2-3", "s-5", "sq/1.tif", "3"])] == [2, 3, 5, 1]
    for wrong in ("6", "4-6", "sq/9.tif", "3-2"):
        with pytest.raises(FrazilError, match="no exposure"):
            chosen(client, "s", [wrong])
