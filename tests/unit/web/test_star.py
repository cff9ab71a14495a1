"""The tiny STAR reader agrees with the library's writer and shrugs at what it does not need."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from frazil.io.star import write_star
from frazil_web.star import read_loop, read_value

PICKS = ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit")


def test_what_the_library_writes_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    columns = {
        "rlnCoordinateX": rng.uniform(0, 5760, 40),
        "rlnCoordinateY": rng.uniform(0, 4092, 40),
        "rlnMicrographName": [f"m{k}.mrc" for k in range(40)],
        "rlnAutopickFigureOfMerit": rng.uniform(0, 1, 40),
    }
    path = tmp_path / "picks.star"
    write_star(path, {"": columns})
    found = read_loop(path.read_text(), "", PICKS)
    for name in PICKS:
        assert found[name] == pytest.approx(columns[name], abs=1e-6)


def test_a_named_loop_among_other_blocks(tmp_path: Path) -> None:
    path = tmp_path / "motion.star"
    shifts = {"rlnMicrographFrameNumber": np.arange(1, 4), "rlnMicrographShiftX": np.array([0.0, 1.5, -2.0])}
    pairs = {"rlnImageSizeX": 5760, "rlnMicrographOriginalPixelSize": 0.83, "rlnMicrographOriginalPixelSizeOther": 9.0}
    write_star(path, {"general": pairs, "global_shift": shifts, "local_motion_model": {"rlnMotionModelCoeff": np.ones(3)}})
    text = path.read_text()
    assert read_loop(text, "global_shift", ("rlnMicrographShiftX",)) == {"rlnMicrographShiftX": [0.0, 1.5, -2.0]}
    assert read_value(text, "general", "rlnMicrographOriginalPixelSize") == 0.83
    assert read_value(text, "global_shift", "rlnMicrographOriginalPixelSize") is None


def test_damage_costs_a_row_or_a_number_never_the_file() -> None:
    text = "data_\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n3\n# comment\nfour 5\n\n6 nan extra\n"
    found = read_loop(text, "", PICKS)
    assert set(found) == {"rlnCoordinateX", "rlnCoordinateY"}
    assert found["rlnCoordinateX"][0] == 1
    assert math.isnan(found["rlnCoordinateX"][1])
    assert found["rlnCoordinateX"][2] == 6
    assert math.isnan(found["rlnCoordinateY"][2])


@pytest.mark.parametrize("text", ["", "data_\n", "data_\nloop_\n", "\x00\xff", "data_x\nloop_\n_a\n1"])
def test_nothing_is_read_from_nothing(text: str) -> None:
    assert all(values == [] for values in read_loop(text, "", PICKS).values())
    assert (
        read_value("data_general\n_rlnMicrographOriginalPixelSize nan\n", "general", "rlnMicrographOriginalPixelSize") is None
    )
