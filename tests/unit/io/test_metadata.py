"""EPU's and SerialEM's metadata: found beside the movie or in a parallel tree, right in units, harmless when broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frazil.io.metadata import fit_to_movie, read_metadata
from frazil.io.movies import MovieInfo, Rendering
from frazil.model.optics import MovieMetadata

# Written by hand after the published descriptions of EPU's files, not by our simulator.
EPU = """<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
 xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><CustomData xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays">
<a:KeyValueOfstringanyType><a:Key>AppliedDefocus</a:Key>
<a:Value i:type="b:double" xmlns:b="x">-1.5E-06</a:Value></a:KeyValueOfstringanyType>
<a:KeyValueOfstringanyType><a:Key>Dose</a:Key>
<a:Value i:type="b:double" xmlns:b="x">4.2E+21</a:Value></a:KeyValueOfstringanyType>
</CustomData><microscopeData><acquisition><acquisitionDateTime>2024-03-05T10:11:12.1+01:00</acquisitionDateTime><camera>
<CameraSpecificInput><a:KeyValueOfstringanyType xmlns:a="y"><a:Key>FractionationSettings</a:Key><a:Value xmlns:b="z">
<b:NumberOffractions>42</b:NumberOffractions></a:Value></a:KeyValueOfstringanyType></CameraSpecificInput>
<ReadoutArea xmlns:a="d"><a:height>4092</a:height><a:width>5760</a:width><a:x>0</a:x></ReadoutArea></camera></acquisition>
<gun><AccelerationVoltage>200000</AccelerationVoltage></gun>
<optics><BeamShift xmlns:a="t"><a:_x>-0.03</a:_x><a:_y>0.012</a:_y></BeamShift></optics>
<stage><Position><A>0</A><B>0</B><X>0.0001</X><Y>-5E-05</Y><Z>0</Z></Position></stage></microscopeData>
<SpatialScale><pixelSize><x><numericValue>8.3E-11</numericValue></x><y><numericValue>8.3E-11</numericValue></y></pixelSize></SpatialScale>
</MicroscopeImage>"""

MDOC = """T = SerialEM: a facility

[T = note]
[FrameSet = 0]
TiltAngle = 0.01
StagePosition = 12.5 -300.25
Magnification = 105000
Voltage = 300
ExposureDose = 51.2
PixelSpacing = 0.83
ImageShift = 1.5 -2.5
NumSubFrames = 40
DateTime = 05-Mar-24  10:11:12
GainReference = X:\\refs\\CountRef_17.mrc

[FrameSet = 1]
Voltage = 80
"""


def movie(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"pixels")
    return folder / name


@pytest.mark.parametrize("ending", ["_fractions.tiff", "_Fractions.mrc", "_EER.eer", ".eer"])
def test_epu(tmp_path: Path, ending: str) -> None:
    stem = "FoilHole_7001_Data_55_66_20240305_101112"
    path = movie(tmp_path / "Images-Disc1" / "GridSquare_99" / "Data", stem + ending)
    (path.parent / f"{stem}.xml").write_text(EPU)
    read = read_metadata(path)
    assert read.pixel_size_angstrom == pytest.approx(0.83)
    assert read.voltage_kv == pytest.approx(200.0)
    assert read.total_dose_e_per_angstrom2 == pytest.approx(42.0)  # e/m² in the file
    assert read.dose_per_frame_e_per_angstrom2 == pytest.approx(1.0)
    assert (read.frame_count, read.width_px, read.height_px) == (42, 5760, 4092)
    assert (read.beam_shift_x, read.beam_shift_y) == (-0.03, 0.012)
    assert (read.stage_x_um, read.stage_y_um) == pytest.approx((100.0, -50.0))
    assert read.acquired_at == "2024-03-05T10:11:12.1+01:00"
    assert (read.grid_square, read.foil_hole) == ("99", "7001")
    assert dict(read.provenance)["voltage_kv"] == "EPU XML"
    assert dict(read.provenance)["foil_hole"] == "file path"


def test_epu_metadata_in_a_parallel_tree(tmp_path: Path) -> None:
    path = movie(tmp_path / "movies" / "GridSquare_1" / "Data", "FoilHole_2_Data_3_4_5_6_fractions.tiff")
    other = tmp_path / "meta" / "GridSquare_1" / "Data"
    other.mkdir(parents=True)
    (other / "FoilHole_2_Data_3_4_5_6.xml").write_text(EPU)
    assert read_metadata(path).voltage_kv is None
    found = read_metadata(path, metadata_root=tmp_path / "meta", movie_root=tmp_path / "movies")
    assert found.voltage_kv == pytest.approx(200.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<MicroscopeImage><gun>",
        "\x00\x01\x02",
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        '<?xml version="1.0" encoding="no-such-encoding"?><x/>',
    ],
)
def test_broken_xml_says_so_and_nothing_else(tmp_path: Path, text: str) -> None:
    path = movie(tmp_path, "FoilHole_2_Data_3_fractions.tiff")
    (tmp_path / "FoilHole_2_Data_3.xml").write_text(text)
    read = read_metadata(path)
    assert (read.voltage_kv, read.pixel_size_angstrom, read.foil_hole) == (None, None, "2")
    assert "not readable XML" in dict(read.provenance)["companion"]


def test_values_that_make_no_sense_are_unknown(tmp_path: Path) -> None:
    path = movie(tmp_path, "FoilHole_2_Data_3_fractions.tiff")
    spoilt = EPU.replace("8.3E-11", "nan").replace("200000", "-1").replace(">42<", ">4.5<").replace("5760", "1e400")
    (tmp_path / "FoilHole_2_Data_3.xml").write_text(spoilt)
    read = read_metadata(path)
    assert (read.pixel_size_angstrom, read.voltage_kv, read.frame_count, read.width_px) == (None, None, None, None)
    assert read.total_dose_e_per_angstrom2 == pytest.approx(42.0)


@pytest.mark.parametrize("companion", ["stack_001.tif.mdoc", "stack_001.mdoc"])
def test_serialem(tmp_path: Path, companion: str) -> None:
    path = movie(tmp_path, "stack_001.tif")
    (tmp_path / companion).write_text(MDOC)
    read = read_metadata(path)
    assert read.pixel_size_angstrom == pytest.approx(0.83)
    assert read.voltage_kv == pytest.approx(300.0)
    assert read.dose_per_frame_e_per_angstrom2 == pytest.approx(1.28)
    assert read.frame_count == 40
    assert (read.stage_x_um, read.stage_y_um) == (12.5, -300.25)
    assert read.gain_path == str(tmp_path / "CountRef_17.mrc")
    assert dict(read.provenance)["pixel_size_angstrom"] == "SerialEM mdoc"


def test_serialem_frame_doses(tmp_path: Path) -> None:
    path = movie(tmp_path, "a.tif")
    (tmp_path / "a.tif.mdoc").write_text("[FrameSet = 0]\nFrameDosesAndNumber = 1.5 20 1.5 10\n")
    read = read_metadata(path)
    assert (read.dose_per_frame_e_per_angstrom2, read.frame_count) == (1.5, 30)
    (tmp_path / "a.tif.mdoc").write_text("[FrameSet = 0]\nFrameDosesAndNumber = 1.5 20 3.0 10\n")
    read = read_metadata(path)
    assert (read.dose_per_frame_e_per_angstrom2, read.frame_count) == (None, 30)


def test_no_companion_and_a_silent_one(tmp_path: Path) -> None:
    path = movie(tmp_path, "a.tif")
    assert read_metadata(path) == MovieMetadata(provenance=(("companion", "none found"),))
    (tmp_path / "a.tif.mdoc").write_bytes(b"\xff\xfe\x00 = = [")
    assert "says nothing" in dict(read_metadata(path).provenance)["companion"]


@pytest.mark.parametrize(
    "place",
    [
        "GridSquare_1/Data",  # the tree begins at the grid square
        "Images-Disc1/GridSquare_1/Data",  # or at the disc
        "metadata_grid7/Images-Disc1/GridSquare_1/Data",  # several grids at once: a session each
        "grid7/Images-Disc2/GridSquare_1/Data",  # on another disc
        "grid7/GridSquare_1/Data",
        "",
    ],
)
def test_metadata_trees_of_several_grids(tmp_path: Path, place: str) -> None:
    movies = tmp_path / "movies" / "grid7"
    path = movie(movies / "Images-Disc1" / "GridSquare_1" / "Data", "FoilHole_2_Data_3_4_5_6_fractions.tiff")
    folder = tmp_path / "meta" / place
    for other in ("metadata_grid6", "grid8"):
        (tmp_path / "meta" / other / "Images-Disc1").mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "FoilHole_2_Data_3_4_5_6.xml").write_text(EPU)
    read = read_metadata(path, metadata_root=tmp_path / "meta", movie_root=movies)
    assert read.voltage_kv == pytest.approx(200.0)
    assert read.grid_square == "1"


def test_the_grid_square_is_taken_from_the_companion_where_movies_lie_flat(tmp_path: Path) -> None:
    path = movie(tmp_path / "movies", "FoilHole_2_Data_3_4_5_6_EER.eer")
    folder = tmp_path / "meta" / "GridSquare_44" / "Data"
    folder.mkdir(parents=True)
    (folder / "FoilHole_2_Data_3_4_5_6.xml").write_text(EPU)
    read = read_metadata(path, metadata_root=folder)
    assert (read.grid_square, dict(read.provenance)["grid_square"]) == ("44", "companion's path")
    assert dict(read.provenance)["foil_hole"] == "file path"


def test_the_gain_that_a_falcon_names_is_looked_for_up_to_the_top_of_the_session(tmp_path: Path) -> None:
    path = movie(tmp_path / "Images-Disc1" / "GridSquare_1" / "Data", "FoilHole_2_Data_3_4_5_6_EER.eer")
    key = (
        "<a:KeyValueOfstringanyType><a:Key>Detectors[EF-Falcon].EerGainReference</a:Key><a:Value>X:\\gains\\a b.gain</a:Value>"
    )
    text = EPU.replace("<a:KeyValueOfstringanyType>", f"{key}</a:KeyValueOfstringanyType><a:KeyValueOfstringanyType>", 1)
    (path.parent / "FoilHole_2_Data_3_4_5_6.xml").write_text(text)
    assert read_metadata(path).gain_path == str(path.parent / "a b.gain")
    (tmp_path / "a b.gain").touch()
    assert read_metadata(path).gain_path == str(tmp_path / "a b.gain")


def test_serialem_places(tmp_path: Path) -> None:
    path = movie(tmp_path, "a.tif")
    (tmp_path / "a.tif.mdoc").write_text("[FrameSet = 0]\nNavigatorLabel = 7-12\nMultishotHoleAndPosition = 3 1\n")
    read = read_metadata(path)
    assert (read.grid_square, read.foil_hole) == ("7", "7-12/3")


def info_of(width: int, height: int, **more: Any) -> MovieInfo:
    values = {"frame_count": 40, "dtype": "uint8", "pixel_size_angstrom": None, "format": "TIFF", **more}
    return MovieInfo(width_px=width, height_px=height, **values)


STATED = MovieMetadata(
    pixel_size_angstrom=0.8, width_px=5760, height_px=4092, frame_count=1, total_dose_e_per_angstrom2=40.0,
    provenance=(("pixel_size_angstrom", "EPU XML"), ("frame_count", "EPU XML")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("sides", "pixel_size", "provenance"),
    [
        ((5760, 4092), 0.8, "EPU XML"),
        ((11520, 8184), 0.4, "EPU XML, halved: the movie is in super-resolution"),
        ((8184, 11520), 0.4, "EPU XML, halved: the movie is in super-resolution"),
        ((2880, 2046), 1.6, "EPU XML, doubled: the movie is binned by 2"),
        ((4096, 4096), 0.8, "EPU XML"),
    ],
)
def test_the_pixel_size_is_that_of_the_movies_own_pixels(sides: tuple[int, int], pixel_size: float, provenance: str) -> None:
    found = fit_to_movie(STATED, info_of(*sides))
    assert found.pixel_size_angstrom == pytest.approx(pixel_size)
    assert dict(found.provenance)["pixel_size_angstrom"] == provenance


def test_a_header_gives_the_pixel_size_only_where_nothing_else_does() -> None:
    assert fit_to_movie(STATED, info_of(5760, 4092, pixel_size_angstrom=1.3)).pixel_size_angstrom == 0.8
    found = fit_to_movie(MovieMetadata(), info_of(5760, 4092, pixel_size_angstrom=1.3))
    assert (found.pixel_size_angstrom, dict(found.provenance)["pixel_size_angstrom"]) == (1.3, "TIFF header")
    assert fit_to_movie(MovieMetadata(), info_of(5760, 4092, pixel_size_angstrom=1.0)).pixel_size_angstrom is None


def test_events_count_raw_frames_and_their_dose() -> None:
    events = info_of(4096, 4096, frame_count=1000, format="EER", rendering=Rendering(), total_dose_e_per_px=16.0)
    found = fit_to_movie(STATED, events)
    assert (found.frame_count, found.dose_per_frame_e_per_angstrom2) == (1000, pytest.approx(0.04))
    assert dict(found.provenance)["frame_count"] == "EER header"
    counted = fit_to_movie(MovieMetadata(pixel_size_angstrom=0.8), events)
    assert counted.total_dose_e_per_angstrom2 == pytest.approx(25.0)
    assert dict(counted.provenance)["total_dose_e_per_angstrom2"] == "EER header"
    assert fit_to_movie(MovieMetadata(), events).total_dose_e_per_angstrom2 is None
