"""The rules of waiting, and the selection by name."""

from __future__ import annotations

import pytest

from frazil_ingest.selection import is_candidate, is_foreign
from frazil_ingest.settling import FrameExpectation, Look, Patience, Sighting, Signature, Verdict, judge

PATIENCE = Patience(settle_seconds=3, defect_after_seconds=20, companion_seconds=15)


def test_one_look_proves_nothing_however_long_ago() -> None:
    sighting = Sighting(Signature(10, 1), since=0.0)
    assert sighting.stable_seconds(100.0) == 0.0
    assert not sighting.see(Signature(10, 1), 100.0)
    assert sighting.stable_seconds(100.0) == 100.0
    assert sighting.see(Signature(10, 2), 101.0)
    assert sighting.stable_seconds(200.0) == 0.0


@pytest.mark.parametrize(
    ("look", "seconds", "verdict"),
    [
        (Look(complete=True, frame_count=40), 2.9, Verdict.WAIT),
        (Look(complete=True, frame_count=40), 3.0, Verdict.REGISTER),
        (Look(complete=True, frame_count=40, companion_missing=True), 14.0, Verdict.WAIT),
        (Look(complete=True, frame_count=40, companion_missing=True), 15.0, Verdict.REGISTER),
        (Look(complete=False, frame_count=40), 19.9, Verdict.WAIT),
        (Look(complete=False, frame_count=40), 20.0, Verdict.REGISTER_DEFECTIVE),
        (Look(complete=False, frame_count=None), 20.0, Verdict.REGISTER_DEFECTIVE),
        (Look(complete=False, frame_count=1), 20.0, Verdict.IGNORE),
        (Look(complete=False, frame_count=1, chosen_by_glob=True), 20.0, Verdict.REGISTER_DEFECTIVE),
        (Look(complete=True, frame_count=1), 3.0, Verdict.IGNORE),
        (Look(complete=True, frame_count=1, chosen_by_glob=True), 3.0, Verdict.REGISTER_DEFECTIVE),
    ],
)
def test_verdicts(look: Look, seconds: float, verdict: Verdict) -> None:
    assert judge(look, seconds, PATIENCE, FrameExpectation()) is verdict


def test_frames_are_expected_once_five_movies_agree() -> None:
    expected = FrameExpectation()
    for _ in range(4):
        expected.learn(50)
    assert not expected.misses(10)
    expected.learn(50)
    assert expected.misses(49)
    assert not expected.misses(50)
    assert not expected.misses(60)
    assert judge(Look(complete=True, frame_count=10), 19.0, PATIENCE, expected) is Verdict.WAIT
    assert judge(Look(complete=True, frame_count=10), 20.0, PATIENCE, expected) is Verdict.REGISTER


@pytest.mark.parametrize(
    ("path", "glob", "wanted"),
    [
        ("a.mrc", "", True),
        ("deep/er/a.TIFF", "", True),
        ("a.jpg", "", False),
        ("a.tiff.part", "", False),
        ("a.part.tiff", "", False),
        (".a.tiff", "", False),
        ("a_downloading.mrc", "", False),
        ("tmp/a.mrc", "", True),
        ("part1.mrc", "", True),
        ("a_Fractions.tiff", "*_Fractions.tiff", True),
        ("GridSquare_1/Data/a_Fractions.tiff", "*_Fractions.tiff", True),
        ("GridSquare_1/Data/a_Fractions.tiff", "GridSquare_*/Data/*.tiff", True),
        ("GridSquare_1/Data/a.tiff", "GridSquare_*/*.tiff", False),
        ("GridSquare_1/Data/a.tiff", "**/*.tiff", True),
        ("a.tiff", "**/*.tiff", True),
        ("x/y/a.tiff", "x/**", True),
        ("a1.mrc", "a[0-9].mrc", True),
        ("ab.mrc", "a[!0-9].mrc", True),
        ("a1.mrc", "a[!0-9].mrc", False),
        ("a.mrc", "a?mrc", True),
        ("abmrc.mrc", "a.mrc", False),
        ("a+b(1).mrc", "a+b(1).mrc", True),
        ("x[.mrc", "x[.mrc", True),
        ("a.txt", "*.txt", False),
    ],
)
def test_candidates(path: str, glob: str, wanted: bool) -> None:
    assert is_candidate(path, glob) is wanted


def test_foreign_formats_are_known_by_name() -> None:
    assert is_foreign("a.dm4")
    assert is_foreign("a.mrc.bz2")
    assert not is_foreign("a.mrc")
    assert not is_foreign("a.xml")
