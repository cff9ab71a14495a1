"""Companion files, gain references and defect files that nobody vouches for: understood, or refused with a sentence."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frazil.io.defect_map import read_defects
from frazil.io.gain_reference import read_gain
from frazil.io.metadata import read_metadata
from frazil.model.errors import InputError
from frazil.simulator.companions import epu_xml, serialem_mdoc
from frazil.simulator.naming import place_of
from frazil.simulator.parameters import Delivery, SimulationParameters

ANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
PLACE, PARAMETERS = place_of(3, Delivery()), SimulationParameters()
XML, MDOC = epu_xml(PARAMETERS, PLACE), serialem_mdoc(PARAMETERS, PLACE, "a.tif", "gain.mrc")


@st.composite
def rotten(draw: st.DrawFn, text: bytes) -> bytes:
    data = bytearray(text)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        if draw(st.booleans()):
            piece = draw(
                st.binary(max_size=6) | st.sampled_from([b"1e999", b"-0", b"nan", b"<", b"&x;", b"\xff", b"\0", b"[", b" = "])
            )
            data[place : place + draw(st.integers(0, 8))] = piece
        else:
            del data[place : place + draw(st.integers(1, 300))]
    return bytes(data)


@ANY
@given(data=rotten(XML.encode()))
def test_epu_never_raises(tmp_path: Path, data: bytes) -> None:
    movie = tmp_path / f"{PLACE.epu_stem}_fractions.tiff"
    movie.touch()
    (tmp_path / f"{PLACE.epu_stem}.xml").write_bytes(data)
    read = read_metadata(movie)
    assert read.foil_hole == str(PLACE.foil_hole)
    assert read.pixel_size_angstrom is None or 0 < read.pixel_size_angstrom < float("inf")


@ANY
@given(data=rotten(MDOC.encode()))
def test_mdoc_never_raises(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tif").touch()
    (tmp_path / "a.tif.mdoc").write_bytes(data)
    read = read_metadata(tmp_path / "a.tif")
    assert read.frame_count is None or read.frame_count > 0
    assert "companion" in dict(read.provenance)


def gain_bytes() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ones((16, 24), np.float32), metadata=None, compression="deflate", predictor=True)
    return buffer.getvalue()


@ANY
@given(data=rotten(gain_bytes()))
def test_gains_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "gain.tif").write_bytes(data)
    with contextlib.suppress(InputError):
        assert np.isfinite(read_gain(tmp_path / "gain.tif")).all()


DEFECTS = [
    b"0 0 4 4\n3 2 1 1  # a pixel\n",
    b"CameraSizeX 24\nCameraSizeY 16\nBadColumns 1 2\nPartialBadRow 3 1 0 9\nUsableArea 0 0 15 22\n",
    b"<?xml version='1.0'?><defects><row>2-3</row><col>4</col><point>1,2</point></defects>",
]


@ANY
@given(data=st.sampled_from(DEFECTS).flatmap(rotten))
def test_defects_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "defects.txt").write_bytes(data)
    with contextlib.suppress(InputError):
        assert read_defects(tmp_path / "defects.txt", (16, 24)).shape == (16, 24)
