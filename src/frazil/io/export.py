"""A session as the tree of files that RELION, CryoSPARC and scripts open; its names are a promise.

Tables are written anew, atomically; images are hard links to the session's own files, or copies where links are not
possible. What does not exist (no particles, no classes yet) is absent. Exporting again brings the tree up to date.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from frazil.algorithms.optics_groups import EPU_RADIUS, SERIALEM_RADIUS_UM, OpticsGroups
from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages
from frazil.io.atomic import disk_full_named, write_text
from frazil.io.cs import MicrographFrame, write_particles_cs
from frazil.io.export_names import flat_names
from frazil.io.export_records import SessionSnapshot, exposures_csv, session_record
from frazil.io.export_tree import ExportedParticles, ExportTree, posed_particles_star, read_pose_table
from frazil.io.export_volumes import export_volumes
from frazil.io.metadata import serialem
from frazil.io.particles import ASSIGNMENT_DTYPE, read_table
from frazil.io.relion import MicrographRow, OpticsGroup, ParticleSource, micrographs_star, particles_star
from frazil.io.report import render_report
from frazil.io.star import write_star
from frazil.model.ctf import Ctf, DefocusField
from frazil.model.errors import FrazilError
from frazil.model.motion import Motion
from frazil.model.optics import Optics


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote."""

    folder: Path
    micrograph_count: int
    particle_count: int
    class_count: int
    class_sheet: Path | None


@dataclass(frozen=True, slots=True)
class _Row:
    """One accepted exposure with a result, and its name in flat folders."""

    name: str
    exposure: Exposure
    optics_group: int

    @property
    def result(self) -> ExposureResult:
        return self.exposure.result

    def file(self, name: str) -> str:
        """Return a file of the result relative to the session's folder."""
        return f"{self.result.folder}/{name}"


def export_session(
    snapshot: SessionSnapshot, output: Path, *, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Exported:
    """Write or bring up to date the tree of a session below `output`; `progress(done, all)` counts exposures.

    Raises FrazilError OUTPUT_IN_MOVIE_FOLDER, RESULT_MISSING when a file of the session is not there, DiskFullError when there
    is no room.
    """
    movies = snapshot.session.parameters.movie_folder
    if movies and output.resolve().is_relative_to(Path(movies).resolve()):
        raise FrazilError("OUTPUT_IN_MOVIE_FOLDER", f"{output} lies in the movie folder {movies}, which is never written to.")
    tree = ExportTree(Path(snapshot.session.folder), output)
    names = flat_names(exposure.file.relative_path for exposure in snapshot.exposures)
    rows, optics = _rows(names, snapshot.exposures)
    output.mkdir(parents=True, exist_ok=True)
    with disk_full_named(output):
        micrographs, thumbnails = _export_images(tree, rows, progress)
        particles = _read_particles(tree, rows)
        if micrographs:
            write_star(output / "micrographs.star", micrographs_star(micrographs, optics))
        if particles is not None:
            _export_particles(output, particles, rows, optics)
        sheet = _export_classes(tree, snapshot.classes, particles, optics)
        export_volumes(tree, snapshot.refined, snapshot.ab_initio, particles, optics)
        write_text(output / "exposures.csv", exposures_csv(names, snapshot.exposures))
        write_text(output / "session.json", json.dumps(session_record(snapshot), indent=1, ensure_ascii=False) + "\n")
        write_text(output / "report.html", render_report(snapshot.session, snapshot.exposures, snapshot.classes, thumbnails))
    return Exported(
        folder=output,
        micrograph_count=len(rows),
        particle_count=len(particles.table) if particles is not None else 0,
        class_count=len(snapshot.classes.classes) if snapshot.classes is not None else 0,
        class_sheet=sheet,
    )


# ------------------------------------------------------------------------------------------------------- micrographs
def _rows(names: Sequence[str], exposures: Sequence[Exposure]) -> tuple[list[_Row], list[OpticsGroup]]:
    """Return the accepted exposures with a result, and the optics groups: those of equal settings and beam tilt."""
    groups: dict[tuple[Optics, float, int], int] = {}
    rows = []
    for name, exposure, beam in zip(names, exposures, _beam_groups(exposures), strict=True):
        if exposure.state == Exposure.STATE_DONE and not exposure.rejected:
            key = (_optics(exposure), exposure.result.pixel_size_angstrom, beam)
            rows.append(_Row(name, exposure, groups.setdefault(key, len(groups) + 1)))
    return rows, [
        OpticsGroup(name=f"opticsGroup{number}", number=number, optics=optics, micrograph_pixel_size_angstrom=pixel_size)
        for (optics, pixel_size, _), number in groups.items()
    ]


def _beam_groups(exposures: Sequence[Exposure]) -> list[int]:
    """Return the group of each exposure by its place in the pattern of shots; all are asked about, so that numbers stay."""
    from_serialem = any(exposure.metadata.provenance.get("beam_shift_x") == serialem.NAME for exposure in exposures)
    groups = OpticsGroups(SERIALEM_RADIUS_UM if from_serialem else EPU_RADIUS)
    found = []
    for exposure in exposures:
        metadata = exposure.metadata
        shifted = metadata.HasField("beam_shift_x") and metadata.HasField("beam_shift_y")
        shift = (metadata.beam_shift_x, metadata.beam_shift_y) if shifted else (None, None)
        found.append(groups.assign(PurePosixPath(exposure.file.relative_path).name, shift))
    return found


def _optics(exposure: Exposure) -> Optics:
    result = exposure.result
    binning = exposure.file.width_px / result.width_px if exposure.file.width_px and result.width_px else 1.0
    return Optics(
        pixel_size_angstrom=result.pixel_size_angstrom / binning,
        voltage_kv=result.voltage_kv,
        spherical_aberration_mm=result.spherical_aberration_mm,
        amplitude_contrast=result.amplitude_contrast,
        dose_per_frame_e_per_angstrom2=result.dose_per_frame_e_per_angstrom2,
    )


def _export_images(
    tree: ExportTree, rows: Sequence[_Row], progress: Callable[[int, int], None]
) -> tuple[list[MicrographRow], dict[int, str]]:
    """Link every image and per-movie STAR file; returns the rows of micrographs.star and the thumbnails by number."""
    micrographs: list[MicrographRow] = []
    thumbnails: dict[int, str] = {}
    for done, row in enumerate(rows, start=1):
        result = row.result
        micrograph = tree.link(row.file(result.micrograph), f"micrographs/{row.name}.mrc")
        motion = tree.link(row.file(result.motion_star), f"motion/{row.name}.star") if result.motion_star else "None"
        if result.thumbnail:
            thumbnails[row.exposure.number] = tree.link(row.file(result.thumbnail), f"thumbnails/{row.name}.png")
        if result.picks_star:
            tree.link(row.file(result.picks_star), f"picks/{row.name}.star")
        micrographs.append(_micrograph_row(row, micrograph, motion))
        progress(done, len(rows))
    return micrographs, thumbnails


def _micrograph_row(row: _Row, micrograph: str, motion_file: str) -> MicrographRow:
    result = row.result
    fitted = result.HasField("ctf_fit_resolution_angstrom")
    return MicrographRow(
        micrograph=micrograph,
        motion_star=motion_file,
        optics_group=row.optics_group,
        ctf=Ctf(
            defocus_u_angstrom=result.defocus_u_angstrom,
            defocus_v_angstrom=result.defocus_v_angstrom,
            defocus_angle_degrees=result.defocus_angle_degrees,
            phase_shift_degrees=result.phase_shift_degrees,
            score=result.ctf_score,
            fit_resolution_angstrom=result.ctf_fit_resolution_angstrom if fitted else None,
            field=DefocusField(tuple(result.defocus_field_angstrom)) if result.defocus_field_angstrom else DefocusField(),
        ),
        tilt_angle_degrees=result.tilt_angle_degrees,
        ice_ring=result.ice_ring if result.HasField("ice_ring") else None,
        ice_thickness_relative=result.ice_thickness_relative if result.HasField("ice_thickness_relative") else None,
        motion=Motion(
            shift_x_px=(),
            shift_y_px=(),
            pixel_size_angstrom=result.pixel_size_angstrom,
            total_angstrom=result.motion_total_angstrom,
            early_angstrom=result.motion_early_angstrom,
            late_angstrom=result.motion_late_angstrom,
            converged=result.motion_converged,
        ),
    )


# --------------------------------------------------------------------------------------------------------- particles
def _read_particles(tree: ExportTree, rows: Sequence[_Row]) -> ExportedParticles | None:
    """Link the stacks and gather the tables; None when no exposure has particles."""
    tables, images, micrographs, groups, scales = [], [], [], [], []
    with_particles = [row for row in rows if row.result.particle_count]
    for row in with_particles:
        stack = tree.link(row.file(row.result.particles), f"particles/{row.name}.mrcs")
        table = read_table(tree.find(row.file(row.result.particle_table)))
        tables.append(table)
        images += [f"{number:06d}@{stack}" for number in range(1, len(table) + 1)]
        micrographs += [f"micrographs/{row.name}.mrc"] * len(table)
        groups.append(np.full(len(table), row.optics_group, dtype=np.int64))
        first = with_particles[0].result
        scale = (first.width_px / max(row.result.width_px, 1), first.height_px / max(row.result.height_px, 1))
        scales.append(np.tile(np.array(scale, dtype=np.float32), (len(table), 1)))
    if not tables:
        return None
    source = ParticleSource(image_names=images, micrograph_names=micrographs, optics_groups=np.concatenate(groups))
    box = with_particles[0].result.particle_box_px
    return ExportedParticles(np.concatenate(tables), source, np.concatenate(scales), box)


def _export_particles(output: Path, particles: ExportedParticles, rows: Sequence[_Row], optics: Sequence[OpticsGroup]) -> None:
    first = next(row for row in rows if row.result.particle_count)
    box = particles.box_size_px
    write_star(output / "particles.star", particles_star(particles.table, particles.source, optics, box_size_px=box))
    table = particles.table.copy()  # the .cs has one micrograph size: coordinates are fractions of it
    table["coordinate_x_px"] *= particles.scale[:, 0]
    table["coordinate_y_px"] *= particles.scale[:, 1]
    frame = MicrographFrame(
        height_px=first.result.height_px,
        width_px=first.result.width_px,
        pixel_size_angstrom=first.result.pixel_size_angstrom,
    )
    write_particles_cs(
        output / "particles.cs",
        table,
        particles.source,
        optics=optics[first.optics_group - 1].optics,
        micrograph=frame,
        box_size_px=box,
    )


# ----------------------------------------------------------------------------------------------------------- classes
def _export_classes(
    tree: ExportTree,
    classes: ClassAverages | None,
    particles: ExportedParticles | None,
    optics: Sequence[OpticsGroup],
) -> Path | None:
    """Write class2d/; returns the path of the sheet of averages."""
    if classes is None:
        return None
    stack = tree.link(classes.averages, "class2d/classes.mrcs")
    sheet = tree.output / tree.link(classes.sheet, "class2d/classes.png") if classes.sheet else None
    write_star(tree.output / "class2d" / "classes.star", {"model_classes": classes_table(classes, stack)})
    if particles is not None and classes.assignments:
        assigned = read_pose_table(tree.find(classes.assignments), ASSIGNMENT_DTYPE)
        write_star(tree.output / "class2d" / "particles.star", posed_particles_star(particles, assigned, optics))
    return sheet


def classes_table(classes: ClassAverages, stack: str) -> dict[str, Any]:
    """Return the loop of classes.star: image, number, particles, share, resolution, effective classes, selected."""
    total = max(1, sum(one.particle_count for one in classes.classes))
    resolutions = [one.resolution_angstrom if one.HasField("resolution_angstrom") else 999.0 for one in classes.classes]
    return {
        "rlnReferenceImage": [f"{place:06d}@{stack}" for place in range(1, len(classes.classes) + 1)],
        "rlnClassNumber": np.array([one.class_number for one in classes.classes], dtype=np.int64),
        "rlnClassDistribution": np.array([one.particle_count / total for one in classes.classes]),
        "rlnEstimatedResolution": np.array(resolutions, dtype=np.float64),
        "rlnSelected": np.array([int(one.selected) for one in classes.classes], dtype=np.int64),
        "frazilParticleCount": np.array([one.particle_count for one in classes.classes], dtype=np.int64),
        "frazilEffectiveClasses": np.array([one.effective_classes for one in classes.classes], dtype=np.float64),
    }
