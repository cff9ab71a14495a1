"""Templates from a volume: reads the map, projects it along evenly spaced directions, publishes the images and ends."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from frazil import jobs as declarations
from frazil.algorithms.templates import Templates, project
from frazil.io.mrc import read_mrc
from frazil.model.errors import InputError
from frazil.primitives.symmetry import symmetry
from frazil.worker import WorkerContext
from frazil_reconstruct.start_volume import fit_to_box
from frazil_reconstruct.template_output import views, write_templates

_SUFFIXES = (".mrc", ".map")
_PIXELS_PER_RESOLUTION = 3.0
_EXTENT_DIAMETERS = (0.8, 30.0)  # of a map: from one that just holds the particle to what no pixel size in Å explains


def run(context: WorkerContext) -> None:
    """Make templates from the volume that a person named, or the session's newest."""
    asked = declarations.load("create_templates").read(context.parameters)
    session = context.session.parameters
    path = volume_path(str(asked["volume"]) or context.newest_volume, context.session_folder)
    diameter = session.particle_diameter_angstrom
    volume, pixel_size = read_volume(path, float(asked["pixel_size_angstrom"]), diameter)
    group = symmetry(str(asked["symmetry"]).strip() or session.symmetry.strip() or "C1")
    context.report(f"Projecting {path.name}")
    templates = templates_of(volume, pixel_size, float(asked["resolution_angstrom"]), int(asked["views"]), group.name)
    stem = f"templates/{context.job_id}/{context.environment.epoch}"
    source = f"{path.name}, symmetry {group.name}"
    message = write_templates(templates, views(len(templates.images)), source, context.session_folder, stem)
    context.delete_expired(tuple(context.publish_templates(message).expired_paths))


def volume_path(named: str, session_folder: Path) -> Path:
    """Return the file of a volume. Raises InputError with one sentence when there is none."""
    if not named:
        raise InputError(
            "VOLUME_MISSING", "The session has no volume yet: name a map, e.g. --parameter volume=/maps/emd_1234.map."
        )
    path = session_folder / named
    if path.suffix == ".gz":
        raise InputError("VOLUME_COMPRESSED", f"{path.name} is compressed: unpack it first (gunzip).")
    if not path.is_file():
        raise InputError("VOLUME_MISSING", f"There is no map at {path}: check the path, and that this node can see it.")
    if path.suffix not in _SUFFIXES:
        raise InputError("VOLUME_INVALID", f"{path.name} is no map: give a file .mrc or .map.")
    return path


def read_volume(
    path: Path, pixel_size_angstrom: float, particle_diameter_angstrom: float
) -> tuple[npt.NDArray[np.float32], float]:
    """Read a map `(z, y, x)` and its pixel size, or the one given instead.

    Raises InputError for what is no volume, and for a pixel size that is missing or cannot be that of such a particle.
    """
    volume, in_header = read_mrc(path)
    if volume.ndim != 3 or min(volume.shape) < 8:
        shape = " x ".join(str(side) for side in volume.shape)
        raise InputError("VOLUME_INVALID", f"{path.name} is no volume: it holds {shape} pixels.")
    pixel_size = pixel_size_angstrom or in_header
    if pixel_size is None:
        raise InputError(
            "PIXEL_SIZE_MISSING",
            f"{path.name} does not say its pixel size: give it, e.g. --parameter pixel_size_angstrom=1.06.",
        )
    extent = max(volume.shape) * pixel_size
    low, high = (times * particle_diameter_angstrom for times in _EXTENT_DIAMETERS)
    if not low <= extent <= high:
        raise InputError(
            "PIXEL_SIZE_ABSURD",
            f"At {pixel_size:g} Å a pixel {path.name} extends over {extent:.0f} Å, the particle over "
            f"{particle_diameter_angstrom:.0f} Å: give the map's pixel size as --parameter pixel_size_angstrom=….",
        )
    if not np.isfinite(volume).all() or np.ptp(volume) == 0:
        raise InputError("VOLUME_BLANK", f"{path.name} shows nothing: every voxel is alike, or some are no numbers.")
    return volume.astype(np.float32), pixel_size


def templates_of(
    volume: npt.NDArray[np.float32], pixel_size_angstrom: float, resolution_angstrom: float, count: int, group: str
) -> Templates:
    """Project a map, low-passed and sampled no finer than that needs, along evenly spaced directions of its symmetry."""
    to = max(pixel_size_angstrom, resolution_angstrom / _PIXELS_PER_RESOLUTION)
    box = 2 * math.ceil(max(volume.shape) * pixel_size_angstrom / to / 2)
    fitted = fit_to_box(volume, pixel_size_angstrom, box, to, resolution_angstrom)
    return project(fitted, to, count, symmetry(group))
