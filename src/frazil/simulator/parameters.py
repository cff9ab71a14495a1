"""What is simulated, and how the simulated microscope delivers it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from frazil.model.errors import InputError

SIDE_MIN_PX = 64
ELECTRONS_MAX = 60.0  # per pixel and frame: counts are uint8
MovieFormat = Literal["tiff", "mrc", "mrc-4bit", "eer"]
BadKind = Literal["empty", "truncated", "other_shape", "garbage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationParameters:
    """The physics of a simulated session. Equal parameters give equal movies, bit for bit.

    The defaults make a session that streams well on a laptop: a 0.9 MDa chaperonin, 60 a movie, whose images in boxes of 64 px
    (4.4 Å/px) have a signal variance over noise variance of about 0.06.
    """

    seed: int = 1
    movie_count: int = 20
    particle: str = "cct"  # a built-in particle, or a .pdb or .npz file
    particles_per_movie: int = 60
    fragment_fraction: float = 0.04  # of the particles are broken in two
    overlap_fraction: float = 0.03  # of the particles are placed regardless of the others
    contaminants_per_movie: float = 0.7  # mean number of ice blobs

    width_px: int = 1280
    height_px: int = 1024
    frame_count: int = 32
    pixel_size_angstrom: float = 1.76
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    dose_per_frame_e_per_angstrom2: float = 1.25
    defocus_min_angstrom: float = 8_000.0
    defocus_max_angstrom: float = 22_000.0
    astigmatism_max_angstrom: float = 300.0
    phase_shift_degrees: float = 0.0  # of a phase plate
    tilt_degrees: float = 0.0  # of the stage
    tilt_axis_degrees: float = 0.0  # from +x towards +y
    doming_angstrom: float = 0.0  # defocus of the middle of the field beyond that of the middles of its edges

    contrast: float = 0.33  # of the ideal phase object: inelastic scattering and thick ice take the rest
    envelope_b_angstrom2: float = 40.0
    ice_noise: float = 0.3  # power of the ice's structure relative to the shot noise of the whole exposure
    ice_gradient: float = 0.06  # relative change of brightness across the frame
    crystalline_ice: float = 0.0  # power of the 3.67 Å ring relative to the shot noise of the whole exposure

    motion_angstrom: float = 16.0  # typical total drift
    local_motion_angstrom: float = 4.0  # typical difference of drift across the frame; 0: none

    gain_spread: float = 0.04  # standard deviation of the gain from pixel to pixel
    hot_pixel_count: int = 12
    dead_pixel_count: int = 20
    defect_column_count: int = 1  # columns of the camera that never count, listed in the defect file

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated. Raises InputError."""
        if min(self.width_px, self.height_px) < SIDE_MIN_PX or self.frame_count < 1 or self.movie_count < 0:
            raise InputError("SIMULATION_SIZE", f"Movies have at least {SIDE_MIN_PX} px a side and one frame.")
        if not 0.0 < self.electrons_per_px <= ELECTRONS_MAX:
            raise InputError(
                "SIMULATION_DOSE",
                f"{self.electrons_per_px:.3g} electrons per pixel and frame do not fit a counting camera: "
                f"choose dose and pixel size for more than 0 and at most {ELECTRONS_MAX:.0f}.",
            )

    @property
    def electrons_per_px(self) -> float:
        """Mean count per pixel and frame of an empty field."""
        return self.dose_per_frame_e_per_angstrom2 * self.pixel_size_angstrom**2


@dataclass(frozen=True, slots=True, kw_only=True)
class BadMovie:
    """A movie that arrives spoilt: empty, cut, of another frame size, or not a movie at all."""

    index: int
    kind: BadKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How movies come into the folder."""

    layout: Literal["epu", "serialem"] = "epu"
    movie_format: MovieFormat = "tiff"
    interval_seconds: float = 0.0  # from the start of one movie to the start of the next; 0: as fast as it goes
    write_seconds: float = 0.0  # that the writing of one movie is stretched over, as from a slow camera or network
    piece_count: int = 8  # in which a movie arrives
    temporary_name: bool = False  # written as `.part` and renamed, as good copying programs do
    preallocate: bool = False  # the full size is reserved first, as Windows shares may do
    bad_movies: tuple[BadMovie, ...] = field(default=())
    start: str = "2026-01-05T09:00:00"  # time in the names and metadata: names must not depend on the wall clock
