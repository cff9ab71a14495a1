"""How a session wants its movies read: compressed files, the rendering of events, cropping of super-resolution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from frazil.algorithms.super_resolution import SIZES
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.movies import Movie, MovieInfo, Rendering, open_movie
from frazil.model.errors import InputError
from frazil.model.optics import MovieMetadata, Optics
from frazil.rpc.convert import metadata_from_message, optics_of

EER_FRACTIONS = 40


def open_exposure(parameters: SessionParameters, exposure: Exposure, path: Path) -> Movie:
    """Open an exposure's movie as the session wants it read; no pixel is read yet.

    Raises InputError when it is not whole, or cannot be rendered so.
    """
    movie = open_movie(path, opt_in=parameters.read_bzip2)
    if movie.info.rendering is None:
        return movie
    return movie.rendered(_rendering(parameters, metadata_from_message(exposure.metadata), movie.info.frame_count))


def load_crop(parameters: SessionParameters, info: MovieInfo) -> int:
    """Return by how much each side is cropped when the movie is read."""
    if parameters.load_crop:
        return parameters.load_crop
    finer = (info.height_px, info.width_px) in SIZES or parameters.camera.endswith("super-resolution")
    return 2 if finer and info.rendering is None else 1


def optics_as_read(parameters: SessionParameters, exposure: Exposure, info: MovieInfo) -> Optics:
    """Return the optics of the movie as it is read and cropped: the pixel size, and the dose of one of its frames.

    The number of frames that a total dose is divided by is not whole where raw frames are left over: their dose is lost.
    Raises InputError when the pixel size is not known.
    """
    metadata = metadata_from_message(exposure.metadata)
    frames, upsampling = float(info.frame_count), 1
    if info.rendering is not None:
        group, upsampling = info.rendering.frames_per_fraction, info.rendering.upsampling
        frames = exposure.file.frame_count / group
        metadata = replace(
            metadata,
            frame_count=None,
            dose_per_frame_e_per_angstrom2=_scaled(_raw_frame_dose(metadata, exposure.file.frame_count), group),
        )
    optics = optics_of(parameters, metadata, frame_count=frames)
    return replace(optics, pixel_size_angstrom=optics.pixel_size_angstrom * load_crop(parameters, info) / upsampling)


def _rendering(parameters: SessionParameters, metadata: MovieMetadata, raw_frames: int) -> Rendering:
    """Return how many raw frames make a frame, and the grid. Raises InputError when that needs a dose that nobody gives."""
    upsampling = parameters.eer_upsampling or 1
    if not parameters.HasField("eer_dose_per_fraction_e_per_angstrom2"):
        fractions = parameters.eer_fractions or EER_FRACTIONS
        return Rendering(frames_per_fraction=max(1, raw_frames // fractions), upsampling=upsampling, fractions_max=fractions)
    raw_dose = _raw_frame_dose(metadata, raw_frames)
    if parameters.HasField("total_dose_e_per_angstrom2"):
        raw_dose = parameters.total_dose_e_per_angstrom2 / raw_frames
    if not raw_dose:
        raise InputError(
            "EER_DOSE_UNKNOWN",
            "Neither the session nor the movie's metadata gives the total dose: give it, or a number of EER fractions.",
        )
    group = max(1, round(parameters.eer_dose_per_fraction_e_per_angstrom2 / raw_dose))
    return Rendering(frames_per_fraction=group, upsampling=upsampling)


def _raw_frame_dose(metadata: MovieMetadata, raw_frames: int) -> float | None:
    """Return the dose of one raw frame in e/Å², as far as the metadata say it."""
    if metadata.total_dose_e_per_angstrom2 is not None and raw_frames:
        return metadata.total_dose_e_per_angstrom2 / raw_frames
    return metadata.dose_per_frame_e_per_angstrom2


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
