"""EPU's and SerialEM's metadata: found beside the movie or in a parallel tree, right in units, harmless when broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from frazil.io.metadata import read_metadata
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
