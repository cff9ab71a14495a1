"""Beside RELION's own motion correction, where it is installed: the same signs, axes and units, and a smaller error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile

from frazil.algorithms.motion.correct import correct_movie
from frazil.algorithms.motion.relion import relion_shifts
from frazil.io.relion import MotionSource, motion_star
from frazil.io.star import write_star
from frazil.model.optics import Optics
from frazil.simulator.encoding import encode_tiff
from unit.algorithms.motion.beads import GRID, Beads, field_error

OPTICS = Optics(pixel_size_angstrom=1.1, dose_per_frame_e_per_angstrom2=1.0)
MOVIES = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName
_rlnOpticsGroup
_rlnMicrographOriginalPixelSize
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
g1 1 1.1 300 2.7 0.1

# version 30001

data_movies

loop_
_rlnMicrographMovieName
_rlnOpticsGroup
movie.tiff 1
"""


def shifts_read(path: Path) -> np.ndarray[Any, Any]:
    """Return the shifts at `GRID`, (frame, place, 2) as (y, x), that a motion STAR file tells, ours or RELION's."""
    tables = starfile.read(path)
    whole = tables["global_shift"][["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy()
    return relion_shifts(whole, tables["local_motion_model"]["rlnMotionModelCoeff"].to_numpy(), GRID)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_run_motioncorr") is None, reason="RELION is not installed")
def test_relion_finds_the_same_motion_less_well(tmp_path: Path) -> None:
    beads = Beads(shape=(640, 896), across_px=4.0, frame_count=20, contrast=0.5, seed=2)
    movie, truth = beads.movie(), beads.displacement(GRID)
    (tmp_path / "movie.tiff").write_bytes(encode_tiff(movie))
    (tmp_path / "movies.star").write_text(MOVIES)
    command = "relion_run_motioncorr --i movies.star --o out/ --use_own --j 1 --patch_x 3 --patch_y 3 --dose_per_frame 1.0"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    motion = correct_movie(movie, None, None, OPTICS).motion
    source = MotionSource(movie="movie.tiff", frame_count=20, height_px=640, width_px=896)
    write_star(tmp_path / "ours.star", motion_star(motion, source, OPTICS, local_coefficients=motion.local_coefficients))
    ours, theirs = shifts_read(tmp_path / "ours.star"), shifts_read(tmp_path / "out" / "movie.star")
    spread = float(np.sqrt(((truth - truth.mean(axis=(0, 1))) ** 2).sum(axis=2).mean()))
    assert field_error(theirs, truth) < 0.3 * spread
    assert field_error(ours, truth) < 0.6 * field_error(theirs, truth)
