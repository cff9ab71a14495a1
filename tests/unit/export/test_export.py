"""The exported tree, read back with the `starfile`, `mrcfile` and `csv` that a user has."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import starfile

from frazil.api.reconstruction.v1.reconstruction_pb2 import FscCurves, Volume, VolumeClass
from frazil.io.export import export_session
from frazil.io.export_names import flat_names
from frazil.io.export_tree import link_or_copy
from frazil.io.mrc import write_mrc
from frazil.io.particles import POSE_DTYPE
from frazil.model.errors import FrazilError
from unit.export.conftest import table_of


def test_micrographs_star_has_one_row_per_result_and_files_behind_it(fake: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_session(fake.snapshot, out)
    tables = starfile.read(out / "micrographs.star")
    micrographs, optics = tables["micrographs"], tables["optics"]
    assert list(micrographs["rlnMicrographName"]) == [
        "micrographs/a_movie.mrc",
        "micrographs/square2_a_movie.mrc",
        "micrographs/b.mrc",
    ]
    assert list(micrographs["rlnDefocusU"]) == [12001, 12002, 12003]
    assert list(micrographs["rlnCtfMaxResolution"]) == [5.0, 999.0, 7.0]
    assert list(micrographs["rlnOpticsGroup"]) == [1, 1, 2]
    assert list(optics["rlnVoltage"]) == [300.0, 200.0]
    assert list(optics["rlnMicrographOriginalPixelSize"]) == pytest.approx([0.53, 0.53])  # movies of twice the sampling
    assert list(optics["rlnMicrographPixelSize"]) == pytest.approx([1.06, 1.06])
    for number, (name, motion) in enumerate(
        zip(micrographs["rlnMicrographName"], micrographs["rlnMicrographMetadata"], strict=True), start=1
    ):
        assert float(mrcfile.read(out / name).mean()) == number
        assert starfile.read(out / motion)["general"]["rlnImageSizeZ"] == 2
    assert "# version 30001" in (out / "micrographs.star").read_text()


def test_movies_of_another_beam_tilt_are_another_optics_group(fake: Any, tmp_path: Path) -> None:
    for exposure, shift in zip(fake.snapshot.exposures[:3], (-0.1, 0.1, -0.1), strict=True):
        exposure.metadata.beam_shift_x, exposure.metadata.beam_shift_y = shift, 0.0
    export_session(fake.snapshot, tmp_path / "out")
    tables = starfile.read(tmp_path / "out" / "micrographs.star")
    assert list(tables["micrographs"]["rlnOpticsGroup"]) == [1, 2, 3]  # the third has another voltage as well
    assert list(tables["optics"]["rlnVoltage"]) == [300.0, 300.0, 200.0]


def test_particles_point_at_their_images(fake: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = export_session(fake.snapshot, out)
    tables = starfile.read(out / "particles.star")
    particles = tables["particles"]
    assert exported.particle_count == len(particles) == 5
    assert list(particles["rlnImageName"])[2:4] == ["000003@particles/a_movie.mrcs", "000001@particles/b.mrcs"]
    assert list(particles["rlnCoordinateX"]) == [11.5, 12.5, 13.5, 13.5, 14.5]
    assert list(particles["rlnOpticsGroup"]) == [1, 1, 1, 2, 2]
    assert list(tables["optics"]["rlnImageSize"]) == [16, 16]
    for image, micrograph in zip(particles["rlnImageName"], particles["rlnMicrographName"], strict=True):
        number, _, stack = image.partition("@")
        picture = mrcfile.read(out / stack)[int(number) - 1]
        assert float(picture.mean()) == float(mrcfile.read(out / micrograph).mean())
    cs = np.load(out / "particles.cs", allow_pickle=False)
    assert [path.decode() for path in cs["blob/path"]] == [name.partition("@")[2] for name in particles["rlnImageName"]]
    assert cs["location/center_x_frac"] == pytest.approx(np.array([11.5, 12.5, 13.5, 13.5, 14.5]) / 64)
    assert not (out / "particles" / "square2_a_movie.mrcs").exists()  # no particles there


def test_classes_join_assignments_by_uid(fake: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = export_session(fake.snapshot, out)
    classes = starfile.read(out / "class2d" / "classes.star")
    assert list(classes["frazilParticleCount"]) == [3, 2]
    assert list(classes["rlnEstimatedResolution"]) == [8.5, 999.0]
    assert list(classes["rlnSelected"]) == [1, 0]
    assert list(classes["rlnClassDistribution"]) == pytest.approx([0.6, 0.4])
    assert mrcfile.read(out / "class2d" / "classes.mrcs").shape == (2, 16, 16)
    particles = starfile.read(out / "class2d" / "particles.star")["particles"]
    assert list(particles["rlnImageName"]) == [
        "000001@particles/a_movie.mrcs",
        "000002@particles/a_movie.mrcs",
        "000001@particles/b.mrcs",
        "000002@particles/b.mrcs",
    ]
    assert list(particles["rlnClassNumber"]) == [1, 1, 2, 2]
    assert list(particles["rlnAnglePsi"]) == [30, 40, 10, 20]
    assert list(particles["rlnOriginXAngst"]) == [3, 4, 1, 2]
    assert list(particles["rlnOriginYAngst"]) == [-3, -4, -1, -2]
    assert exported.class_sheet == out / "class2d" / "classes.png"
    assert exported.class_sheet.is_file()


def test_a_refined_volume_is_written_as_relion_reads_it(fake: Any, tmp_path: Path) -> None:
    names = ("volume", "sharpened", "half1", "half2", "mask")
    volume = Volume(box_px=4, pixel_size_angstrom=2.0, resolution_angstrom=5.0, b_factor_angstrom2=80.0, poses="refine3d/1.npy")
    volume.fsc.CopyFrom(
        FscCurves(unmasked=[1, 0.5, 0.1], masked=[1, 0.8, 0.2], randomised=[1, 0.1, 0.0], corrected=[1, 0.75, 0.2])
    )
    (fake.folder / "refine3d").mkdir()
    for index, name in enumerate(names):
        setattr(volume, name, f"refine3d/1.{name}.mrc")
        write_mrc(fake.folder / "refine3d" / f"1.{name}.mrc", np.full((4, 4, 4), index, np.float32), 2.0)
    known = np.concatenate([table_of(3), table_of(1)])  # in another order than the export's, one is not refined yet
    poses = np.zeros(len(known) - 1, dtype=POSE_DTYPE)
    poses["uid"], poses["half_set"] = known["uid"][:-1], known["half_set"][:-1]
    poses["rot_degrees"], poses["tilt_degrees"], poses["psi_degrees"] = [1, 2, 3, 4], [11, 12, 13, 14], [21, 22, 23, 24]
    poses["origin_x_angstrom"], poses["origin_y_angstrom"] = [5, 6, 7, 8], [-5, -6, -7, -8]
    np.save(fake.folder / "refine3d" / "1.npy", poses)
    out = tmp_path / "out"
    export_session(dataclasses.replace(fake.snapshot, refined=volume), out)
    for index, name in enumerate(names):
        with mrcfile.open(out / "refine3d" / f"{name}.mrc") as file:
            assert file.is_volume()
            assert file.data.max() == index
    curves = starfile.read(out / "refine3d" / "fsc.star", always_dict=True)
    assert list(curves["fsc"]["rlnResolution"]) == [0, 0.125, 0.25]
    assert list(curves["fsc"]["rlnAngstromResolution"]) == [999, 8, 4]
    assert list(curves["fsc"]["rlnFourierShellCorrelationCorrected"]) == [1, 0.75, 0.2]
    particles = starfile.read(out / "refine3d" / "particles.star")["particles"]
    assert list(particles["rlnImageName"]) == [
        "000001@particles/a_movie.mrcs",
        "000002@particles/a_movie.mrcs",
        "000001@particles/b.mrcs",
        "000002@particles/b.mrcs",
    ]
    assert list(particles["rlnAngleRot"]) == [3, 4, 1, 2]
    assert list(particles["rlnAngleTilt"]) == [13, 14, 11, 12]
    assert list(particles["rlnAnglePsi"]) == [23, 24, 21, 22]
    assert list(particles["rlnOriginYAngst"]) == [-7, -8, -5, -6]
    assert list(particles["rlnRandomSubset"]) == [*table_of(1)["half_set"][:2], *table_of(3)["half_set"]]
    assert "rlnClassNumber" not in particles
    assert not (out / "abinitio").exists()


def test_an_ab_initio_reconstruction_is_written_with_its_classes(fake: Any, tmp_path: Path) -> None:
    (fake.folder / "abinitio").mkdir()
    for number in (1, 2):
        write_mrc(fake.folder / "abinitio" / f"{number}.mrc", np.full((4, 4, 4), number, np.float32), 2.0)
    volume = Volume(volume="abinitio/1.mrc", classes=[VolumeClass(volume=f"abinitio/{number}.mrc") for number in (1, 2)])
    out = tmp_path / "out"
    export_session(dataclasses.replace(fake.snapshot, ab_initio=volume), out)
    found = {path.name: mrcfile.read(path).max() for path in (out / "abinitio").iterdir()}
    assert found == {"volume.mrc": 1, "class001.mrc": 1, "class002.mrc": 2}


def test_exposures_csv_has_every_movie_and_why(fake: Any, tmp_path: Path) -> None:
    export_session(fake.snapshot, tmp_path)
    rows = list(csv.DictReader((tmp_path / "exposures.csv").read_text().splitlines()))
    assert [row["verdict"] for row in rows] == ["accepted", "accepted", "accepted", "failed", "waiting"]
    assert rows[3]["reason"] == "broken.tiff is empty, <0 bytes>."
    assert rows[0]["file"] == "square1/a movie.tiff"
    assert rows[1]["ctf_fit_resolution_angstrom"] == ""  # nothing fits: empty, not 0
    assert float(rows[0]["defocus_u_angstrom"]) == 12001
    assert rows[0]["metadata_voltage_kv"] == "300.0"
    assert rows[0]["metadata_pixel_size_angstrom"] == ""
    assert rows[4]["defocus_u_angstrom"] == ""


def test_session_json_says_how_it_was_made(fake: Any, tmp_path: Path) -> None:
    export_session(fake.snapshot, tmp_path)
    record = json.loads((tmp_path / "session.json").read_text())
    assert record["parameters"]["particle_diameter_angstrom"] == 140.0
    assert record["counts"]["quarantined"] == 1
    assert record["counts"]["running"] == 0
    assert record["stage_seconds"]["motion"] == {"total": 6.0, "median": 2.0}
    assert record["devices"] == ["CPU"]
    assert record["failures"] == {"square2/broken.tiff": "broken.tiff is empty, <0 bytes>."}


class _Page(HTMLParser):
    """Collects pictures and text."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_shows_pictures_that_are_there(fake: Any, tmp_path: Path) -> None:
    export_session(fake.snapshot, tmp_path)
    page = _Page()
    page.feed((tmp_path / "report.html").read_text())
    assert "class2d/classes.png" in page.pictures
    assert len(page.pictures) == 4
    assert all((tmp_path / picture).is_file() for picture in page.pictures)
    assert "broken.tiff is empty, <0 bytes>." in page.text


def test_what_does_not_exist_is_absent(fake: Any, tmp_path: Path) -> None:
    for exposure in fake.snapshot.exposures:
        exposure.result.particle_count = 0
    exported = export_session(dataclasses.replace(fake.snapshot, classes=None), tmp_path)
    assert exported.particle_count == 0
    assert not (tmp_path / "particles.star").exists()
    assert not (tmp_path / "class2d").exists()
    nothing = dataclasses.replace(fake.snapshot, exposures=fake.snapshot.exposures[3:], classes=None)
    export_session(nothing, tmp_path / "nothing")
    assert sorted(path.name for path in (tmp_path / "nothing").iterdir()) == ["exposures.csv", "report.html", "session.json"]


def test_exporting_again_changes_nothing_and_leaves_no_temporary_files(fake: Any, tmp_path: Path) -> None:
    export_session(fake.snapshot, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    export_session(fake.snapshot, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not [path for path in before if path.name.startswith(".")]


def test_a_new_result_replaces_the_old_link(fake: Any, tmp_path: Path) -> None:
    export_session(fake.snapshot, tmp_path)
    exposure = fake.snapshot.exposures[0]
    newer = fake.folder / "results" / "e1" / "2.8.1"
    (fake.folder / exposure.result.folder).rename(newer)
    (newer / "micrograph.mrc").unlink()
    with mrcfile.new(newer / "micrograph.mrc") as file:
        file.set_data(np.full((48, 64), 99, dtype=np.float32))
    exposure.result.folder = "results/e1/2.8.1"
    export_session(fake.snapshot, tmp_path)
    assert float(mrcfile.read(tmp_path / "micrographs" / "a_movie.mrc").mean()) == 99


def test_a_file_that_is_not_there_is_named(fake: Any, tmp_path: Path) -> None:
    missing = fake.folder / "results" / "e3" / "1.7.1" / "micrograph.mrc"
    missing.unlink()
    with pytest.raises(FrazilError) as raised:
        export_session(fake.snapshot, tmp_path)
    assert raised.value.reason == "RESULT_MISSING"
    assert str(missing) in raised.value.sentence


def test_a_result_outside_the_session_is_refused(fake: Any, tmp_path: Path) -> None:
    fake.snapshot.exposures[0].result.folder = "../../.."
    with pytest.raises(FrazilError) as raised:
        export_session(fake.snapshot, tmp_path)
    assert raised.value.reason == "RESULT_OUTSIDE"


def test_the_movie_folder_is_never_written_to(fake: Any, tmp_path: Path) -> None:
    fake.snapshot.session.parameters.movie_folder = str(tmp_path / "movies")
    with pytest.raises(FrazilError) as raised:
        export_session(fake.snapshot, tmp_path / "movies" / "results")
    assert raised.value.reason == "OUTPUT_IN_MOVIE_FOLDER"
    assert not (tmp_path / "movies").exists()


def test_images_are_links_where_possible_and_copies_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(b"pixels")
    link_or_copy(source, tmp_path / "link.mrc")
    assert (tmp_path / "link.mrc").samefile(source)

    def no_links(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    link_or_copy(source, tmp_path / "copy.mrc")
    assert (tmp_path / "copy.mrc").read_bytes() == b"pixels"
    assert not os.path.samefile(source, tmp_path / "copy.mrc")  # noqa: PTH121


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.tiff", "b.tiff"], ["a", "b"]),
        (["x/a.tiff", "y/a.tiff", "y/z/a.tiff"], ["a", "y_a", "y_z_a"]),
        (["a.mrc", "a.tiff"], ["a", "a-2"]),
        (["x_a.mrc", "a.mrc", "x/a.mrc"], ["x_a", "a", "a-3"]),
        (["with space@1.mrc", "new\nline.mrc", ".hidden.mrc"], ["with_space_1", "new_line", "hidden"]),
        (["FoilHole_1_Data_2_3_20260101_fractions.tiff"], ["FoilHole_1_Data_2_3_20260101_fractions"]),
        (["-rf.mrc", "-.mrc", "µm.mrc"], ["rf", "movie", "µm"]),
    ],
)
def test_names_are_unique_and_safe(paths: list[str], names: list[str]) -> None:
    assert flat_names(paths) == names


def test_names_do_not_change_while_a_session_grows() -> None:
    paths = [f"{folder}/{stem}.tiff" for folder in ("a", "b", "a_b", "c/a") for stem in ("m", "a_m", "b_m", "x" * 250)]
    whole = flat_names(paths)
    assert len(set(whole)) == len(paths)
    assert max(len(name.encode()) for name in whole) <= 210
    assert all(flat_names(paths[:count]) == whole[:count] for count in range(len(paths)))


def test_rejected_exposures_are_in_the_table_of_all_with_the_reason_and_nowhere_else(fake: Any, tmp_path: Path) -> None:
    first = fake.snapshot.exposures[0]
    first.rejected = "CTF fit is 12 Å, above 6 Å."
    exported = export_session(fake.snapshot, tmp_path / "out")
    assert (exported.micrograph_count, exported.particle_count) == (2, 2)
    assert len(starfile.read(tmp_path / "out" / "micrographs.star")["micrographs"]) == 2
    assert len(starfile.read(tmp_path / "out" / "particles.star")["particles"]) == 2
    rows = list(csv.DictReader((tmp_path / "out" / "exposures.csv").read_text().splitlines()))
    assert (rows[0]["verdict"], rows[0]["reason"]) == ("rejected", first.rejected)
