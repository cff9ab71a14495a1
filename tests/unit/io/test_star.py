"""STAR files: what we write `starfile` reads, what it writes we read; RELION's tables have their columns."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile

from frazil.io.particles import PARTICLE_DTYPE
from frazil.io.relion import (
    MicrographRow,
    MotionSource,
    OpticsGroup,
    ParticleSource,
    Poses,
    micrographs_star,
    motion_star,
    particles_star,
    picks_star,
)
from frazil.io.star import read_star, write_star
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.motion import Motion
from frazil.model.optics import Optics
from frazil.model.particles import Pick

OPTICS = Optics(pixel_size_angstrom=0.85, voltage_kv=300.0)
GROUP = OpticsGroup(name="opticsGroup1", number=1, optics=OPTICS, micrograph_pixel_size_angstrom=1.7)
MOTION = Motion(
    shift_x_px=(0.0, -1.25, 2.5), shift_y_px=(0.0, 0.5, -0.75), pixel_size_angstrom=0.85,
    total_angstrom=9.0, early_angstrom=6.0, late_angstrom=3.0,
)  # fmt: skip


def test_starfile_reads_what_we_write(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "rlnCoordinateX": rng.uniform(0, 4000, 100),
        "rlnTiny": rng.uniform(1e-7, 1e-5, 100),
        "rlnClassNumber": rng.integers(-3, 50, 100),
        "rlnMicrographName": [f"a folder/movie {i}.mrc" if i % 7 else f"movie_{i}.mrc" for i in range(100)],
    }
    general: dict[str, str | int | float] = {"rlnImageSizeX": 4096, "rlnMovie": "a b", "rlnDose": 1.25}
    write_star(tmp_path / "a.star", {"general": general, "rows": columns})
    read = starfile.read(tmp_path / "a.star", always_dict=True)
    assert read["general"] == {"rlnImageSizeX": 4096, "rlnMovie": "a b", "rlnDose": 1.25}
    np.testing.assert_allclose(read["rows"]["rlnCoordinateX"], columns["rlnCoordinateX"], atol=1e-6)
    np.testing.assert_allclose(read["rows"]["rlnTiny"], columns["rlnTiny"], rtol=1e-8)
    assert read["rows"]["rlnClassNumber"].tolist() == columns["rlnClassNumber"].tolist()
    assert read["rows"]["rlnMicrographName"].tolist() == columns["rlnMicrographName"]


def test_we_read_what_starfile_writes(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"rlnA": [1.5, -2.25, 1e-3], "rlnB": [1, 2, 3], "rlnC": ["x", "two words", "20240101_123"], "rlnD": ["1_0", "2_0", "3"]}
    )
    starfile.write({"particles": frame, "general": {"rlnX": 3, "rlnName": "abc"}}, tmp_path / "b.star")
    read = read_star(tmp_path / "b.star")
    assert read["general"] == {"rlnX": 3, "rlnName": "abc"}
    table: Any = read["particles"]
    np.testing.assert_allclose(table["rlnA"], [1.5, -2.25, 1e-3])
    assert table["rlnB"].dtype == np.int64
    assert table["rlnC"] == ["x", "two words", "20240101_123"]
    assert table["rlnD"] == ["1_0", "2_0", "3"]  # an underscore makes no number


def test_round_trip_of_awkward_text_and_empty_tables(tmp_path: Path) -> None:
    words = ["", "_name", "data_x", "loop_", "#5", "it's", 'say "x"', "a\tb", "µ", "nan_movie", "000001@a.mrcs"]
    words_and_numbers: dict[str, Any] = {"rlnText": words, "rlnN": list(range(len(words)))}
    tables: dict[str, Any] = {"w": words_and_numbers, "empty": {"rlnX": []}, "": {"a": 1}}
    write_star(tmp_path / "a.star", tables)
    read: Any = read_star(tmp_path / "a.star")
    assert read["w"]["rlnText"] == words
    assert len(read["empty"]["rlnX"]) == 0
    assert read[""] == {"a": 1}


def test_line_breaks_cannot_be_smuggled_in(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot hold"):
        write_star(tmp_path / "a.star", {"x": {"rlnMicrographName": ["a.mrc\n\ndata_evil"]}})
    assert not list(tmp_path.iterdir())


def test_broken_rows_are_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text("data_x\n\nloop_\n_rlnA #1\n_rlnB #2\n1 2\n3\n")
    with pytest.raises(InputError, match=r"Line 7 of a\.star has 1 values for 2 columns"):
        read_star(tmp_path / "a.star")


def test_hundred_thousand_rows_take_no_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"rln{i}": rng.normal(size=100_000) for i in range(9)}
    columns["rlnImageName"] = [f"{i:06d}@particles/a.mrcs" for i in range(100_000)]
    began = time.process_time()
    write_star(tmp_path / "a.star", {"particles": columns})
    read: Any = read_star(tmp_path / "a.star")
    assert time.process_time() - began < 10.0
    np.testing.assert_allclose(read["particles"]["rln3"], columns["rln3"], atol=1e-6)
    assert read["particles"]["rlnImageName"][-1] == "099999@particles/a.mrcs"


def test_micrographs_have_relions_columns(tmp_path: Path) -> None:
    fitted = Ctf(defocus_u_angstrom=12_300.0, defocus_v_angstrom=12_000.0, defocus_angle_degrees=33.0, score=0.2,
                 fit_resolution_angstrom=4.1)  # fmt: skip
    unfitted = Ctf(defocus_u_angstrom=9_000.0, defocus_v_angstrom=9_000.0, defocus_angle_degrees=0.0)
    rows = [
        MicrographRow(micrograph="micrographs/a.mrc", motion_star="motion/a.star", ctf=fitted, motion=MOTION),
        MicrographRow(micrograph="micrographs/b.mrc", motion_star="motion/b.star", ctf=unfitted, motion=MOTION),
    ]
    write_star(tmp_path / "micrographs.star", micrographs_star(rows, [GROUP]))
    read = starfile.read(tmp_path / "micrographs.star", always_dict=True)
    assert read["optics"]["rlnMicrographOriginalPixelSize"].tolist() == [0.85]
    assert read["optics"]["rlnMicrographPixelSize"].tolist() == [1.7]
    table = read["micrographs"]
    assert table["rlnMicrographName"].tolist() == ["micrographs/a.mrc", "micrographs/b.mrc"]
    assert table["rlnCtfAstigmatism"].tolist() == [300.0, 0.0]
    assert table["rlnCtfMaxResolution"].tolist() == [4.1, 999.0]
    assert table["rlnAccumMotionEarly"].tolist() == [6.0, 6.0]


def test_particles_have_relions_columns(tmp_path: Path) -> None:
    table = np.zeros(2, dtype=PARTICLE_DTYPE)
    table["coordinate_x_px"], table["half_set"], table["pixel_size_angstrom"] = [10.5, 20.25], [1, 2], 3.4
    names = ParticleSource(image_names=["000001@p/a.mrcs", "000002@p/a.mrcs"], micrograph_names=["m/a.mrc"] * 2)
    angle = np.array([10.0, 20.0])
    poses = Poses(rot_degrees=angle, tilt_degrees=angle, psi_degrees=angle, origin_x_angstrom=angle, origin_y_angstrom=-angle)
    tables = particles_star(table, names, [GROUP], box_size_px=64, poses=poses, class_numbers=np.array([3, 1]))
    write_star(tmp_path / "particles.star", tables)
    read = starfile.read(tmp_path / "particles.star", always_dict=True)
    assert read["optics"]["rlnImagePixelSize"].tolist() == pytest.approx([3.4])
    assert read["optics"]["rlnImageSize"].tolist() == [64]
    assert read["particles"]["rlnCoordinateX"].tolist() == [10.5, 20.25]
    assert read["particles"]["rlnImageName"].tolist() == names.image_names
    assert read["particles"]["rlnRandomSubset"].tolist() == [1, 2]
    assert read["particles"]["rlnClassNumber"].tolist() == [3, 1]
    assert read["particles"]["rlnOriginYAngst"].tolist() == [-10.0, -20.0]
    with pytest.raises(ValueError, match="differs in length"):
        particles_star(table[:1], names, [GROUP], box_size_px=64)


def test_motion_has_relions_tables(tmp_path: Path) -> None:
    source = MotionSource(movie="a.tiff", frame_count=3, height_px=100, width_px=200, gain_reference="gain.mrc")
    write_star(tmp_path / "m.star", motion_star(MOTION, source, OPTICS, local_coefficients=[0.5] * 36))
    read = starfile.read(tmp_path / "m.star", always_dict=True)
    assert (read["general"]["rlnImageSizeX"], read["general"]["rlnImageSizeY"]) == (200, 100)
    assert read["general"]["rlnMotionModelVersion"] == 1
    assert read["global_shift"]["rlnMicrographFrameNumber"].tolist() == [1, 2, 3]
    assert read["global_shift"]["rlnMicrographShiftX"].tolist() == [0.0, -1.25, 2.5]
    assert read["local_motion_model"]["rlnMotionModelCoeffsIdx"].tolist() == list(range(36))
    assert motion_star(MOTION, source, OPTICS)["general"]["rlnMotionModelVersion"] == 0
    cropped = MotionSource(
        movie="a.eer", frame_count=3, height_px=200, width_px=400, load_crop=2, eer_grouping=24, eer_upsampling=2
    )
    tables = motion_star(MOTION, cropped, OPTICS, local_coefficients=[0.5] * 36)
    general, shifts = tables["general"], tables["global_shift"]
    assert list(shifts["rlnMicrographShiftX"]) == [0.0, -2.5, 5.0]  # in px of the file, twice as fine
    assert set(tables["local_motion_model"]["rlnMotionModelCoeff"]) == {1.0}
    assert general["rlnMicrographOriginalPixelSize"] == pytest.approx(OPTICS.pixel_size_angstrom / 2)
    assert (general["rlnMicrographBinning"], general["rlnEERGrouping"], general["rlnEERUpsampling"]) == (2.0, 24, 2)
    with pytest.raises(ValueError, match="36 coefficients"):
        motion_star(MOTION, source, OPTICS, local_coefficients=[0.0] * 18)


def test_picks_open_in_starfile(tmp_path: Path) -> None:
    picks = [Pick(x_px=1.5, y_px=2.5, score=0.4, power=1.0, diameter_angstrom=150.0)]
    write_star(tmp_path / "p.star", picks_star(picks))
    read = starfile.read(tmp_path / "p.star")
    assert read["rlnCoordinateX"].tolist() == [1.5]
    write_star(tmp_path / "none.star", picks_star([]))
    empty: Any = read_star(tmp_path / "none.star")[""]
    assert len(empty["rlnCoordinateX"]) == 0
