"""Names, times and stage positions of the simulated session, as EPU and SerialEM would give them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from frazil.simulator.parameters import Delivery, MovieFormat

_MOVIES_PER_HOLE = 3
_HOLES_PER_SQUARE = 8
_FIRST_SQUARE, _FIRST_HOLE, _TEMPLATE, _FIRST_ACQUISITION = 21_740_312, 21_746_001, 21_744_880, 21_745_100
_SECONDS_BETWEEN_NAMES = 12
_ENDINGS: dict[MovieFormat, tuple[str, str]] = {  # of EPU's names and of SerialEM's
    "tiff": ("fractions.tiff", "tif"),
    "mrc": ("Fractions.mrc", "mrc"),
    "mrc-4bit": ("Fractions.mrc", "mrc"),
    "eer": ("EER.eer", "eer"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where and when one movie was taken. Beam-image shift groups are the shots of a hole: the same in every hole."""

    index: int
    grid_square: int
    foil_hole: int
    shot: int  # 0 .. 2: which of the shots of the hole
    acquired_at: datetime

    @property
    def stage_um(self) -> tuple[float, float]:
        """Stage position: 60 µm from square to square, 2.5 µm from hole to hole."""
        hole = (self.foil_hole - _FIRST_HOLE) % _HOLES_PER_SQUARE
        return 60.0 * (self.grid_square - _FIRST_SQUARE) + 2.5 * (hole % 4), -12.0 + 2.5 * (hole // 4)

    @property
    def beam_shift(self) -> tuple[float, float]:
        """Beam shift of the shot, in the microscope's own unit."""
        return (-0.031, 0.012) if self.shot == 0 else (0.029, 0.015) if self.shot == 1 else (0.002, -0.034)

    @property
    def epu_stem(self) -> str:
        """`FoilHole_<hole>_Data_<template>_<acquisition>_<date>_<time>`."""
        template, acquisition = _TEMPLATE + self.shot, _FIRST_ACQUISITION + self.shot
        return f"FoilHole_{self.foil_hole}_Data_{template}_{acquisition}_{self.acquired_at:%Y%m%d_%H%M%S}"


def place_of(index: int, delivery: Delivery) -> Place:
    """Return the place of movie number `index`."""
    hole = index // _MOVIES_PER_HOLE
    taken = datetime.fromisoformat(delivery.start) + timedelta(seconds=_SECONDS_BETWEEN_NAMES * index)
    return Place(index, _FIRST_SQUARE + hole // _HOLES_PER_SQUARE, _FIRST_HOLE + hole, index % _MOVIES_PER_HOLE, taken)


def movie_path(index: int, delivery: Delivery) -> str:
    """Return the path of a movie below the session's folder."""
    place = place_of(index, delivery)
    epu, serialem = _ENDINGS[delivery.movie_format]
    if delivery.layout == "serialem":
        return f"grid1_{index + 1:05d}_{place.acquired_at:%b%d_%H.%M.%S}.{serialem}"
    return f"Images-Disc1/GridSquare_{place.grid_square}/Data/{place.epu_stem}_{epu}"


def companion_path(index: int, delivery: Delivery) -> str:
    """Return the path of a movie's metadata file below the session's folder."""
    movie = movie_path(index, delivery)
    if delivery.layout == "serialem":
        return f"{movie}.mdoc"
    return f"{movie.rpartition('/')[0]}/{place_of(index, delivery).epu_stem}.xml"
