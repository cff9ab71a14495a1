"""What metadata and the movie's own header say, brought together: sizes, frames, doses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frazil.io.movies import MovieInfo
from frazil.model.optics import MovieMetadata

_UNSET_PIXEL_SIZES = (None, 1.0)  # what headers hold that nobody filled in


def fit_to_movie(metadata: MovieMetadata, info: MovieInfo) -> MovieMetadata:
    """Return the metadata as they hold for the movie file itself; provenance says what was changed, and why.

    - The pixel size is halved where the movie is in super-resolution and the metadata describe the camera's own pixels.
    - Without one, that of the movie's header stands, if it was ever set.
    - A movie of events (EER) counts the camera's raw frames, and dose per frame is that of one of them. Without a dose in the
      metadata, the camera's own count of electrons stands.
    """
    changes: dict[str, Any] = {}
    sources: dict[str, str] = {}
    source = dict(metadata.provenance)
    factor = _finer(metadata, info)
    if metadata.pixel_size_angstrom is None:
        if info.pixel_size_angstrom not in _UNSET_PIXEL_SIZES:
            changes["pixel_size_angstrom"], sources["pixel_size_angstrom"] = info.pixel_size_angstrom, f"{info.format} header"
    elif factor != 1:
        changes["pixel_size_angstrom"] = metadata.pixel_size_angstrom / factor
        why = "halved: the movie is in super-resolution" if factor == 2 else "doubled: the movie is binned by 2"
        sources["pixel_size_angstrom"] = f"{source.get('pixel_size_angstrom', 'metadata')}, {why}"
    if info.rendering is not None:
        _fit_events(replace(metadata, **changes), info, changes, sources)
    kept = tuple((field, origin) for field, origin in metadata.provenance if field not in sources)
    return replace(metadata, **changes, provenance=kept + tuple(sources.items()))


def _finer(metadata: MovieMetadata, info: MovieInfo) -> float:
    """Return how many times finer the movie's pixels are than those of the metadata: 2, 1/2, or 1 for anything else."""
    sides = (metadata.width_px, metadata.height_px)
    if None in sides or info.rendering is not None:
        return 1.0
    for factor in (2.0, 0.5):
        scaled = sorted(side * factor for side in sides if side is not None)
        if scaled == sorted((info.width_px, info.height_px)):  # frames may be turned
            return factor
    return 1.0


def _fit_events(metadata: MovieMetadata, info: MovieInfo, changes: dict[str, Any], sources: dict[str, str]) -> None:
    """Add what holds for the raw frames of a movie of events."""
    header = f"{info.format} header"
    total = metadata.total_dose_e_per_angstrom2
    if total is None and info.total_dose_e_per_px and metadata.pixel_size_angstrom:
        total = info.total_dose_e_per_px / metadata.pixel_size_angstrom**2
        changes["total_dose_e_per_angstrom2"], sources["total_dose_e_per_angstrom2"] = total, header
    changes["frame_count"], sources["frame_count"] = info.frame_count, header
    if total is not None:
        changes["dose_per_frame_e_per_angstrom2"] = total / info.frame_count
        sources["dose_per_frame_e_per_angstrom2"] = "total dose and raw frames"
