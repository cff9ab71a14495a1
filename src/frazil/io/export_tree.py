"""What every part of an export shares: where files come from and go to, and particles with their poses."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from frazil.io.atomic import atomic_path
from frazil.io.relion import OpticsGroup, ParticleSource, Poses, particles_star
from frazil.io.star import Block, Column
from frazil.model.errors import ErrorKind, FrazilError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@dataclass(frozen=True, slots=True)
class ExportTree:
    """Where from and where to."""

    session_folder: Path
    output: Path

    def link(self, source: str, target: str) -> str:
        """Make `target` in the output the file `source` of the session; returns `target`."""
        path = self.output / target
        path.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(self.find(source), path)
        return target

    def find(self, source: str) -> Path:
        """Return a file of the session. Raises FrazilError when it is not there or lies outside the session's folder."""
        path = self.session_folder / source
        if not path.resolve().is_relative_to(self.session_folder.resolve()):
            raise FrazilError("RESULT_OUTSIDE", f"The ledger names {source}, which lies outside {self.session_folder}.")
        if not path.is_file():
            raise FrazilError(
                "RESULT_MISSING",
                f"{path} is not there: is the session's folder mounted on this machine?",
                kind=ErrorKind.NOT_FOUND,
            )
        return path


@dataclass(frozen=True, slots=True)
class ExportedParticles:
    """Every particle of the session in order of exposures."""

    table: npt.NDArray[Any]
    source: ParticleSource
    scale: npt.NDArray[np.float32]  # per particle (x, y): to the first micrograph's size
    box_size_px: int


def read_pose_table(path: Path, columns: np.dtype[Any]) -> npt.NDArray[Any]:
    """Read a table of `ASSIGNMENT_DTYPE` or `POSE_DTYPE`. Raises FrazilError when it is none."""
    try:
        table: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FrazilError("ASSIGNMENTS_CORRUPT", f"{path} is not a table of where particles belong.") from error
    if table.dtype.names is None or not set(columns.names or ()) <= set(table.dtype.names):
        raise FrazilError("ASSIGNMENTS_CORRUPT", f"{path} was written with other columns: run the job again.")
    return table


def posed_particles_star(
    particles: ExportedParticles, posed: npt.NDArray[Any], optics: Sequence[OpticsGroup]
) -> dict[str, Block]:
    """Return the STAR tables of the particles that a table places, in the order of particles.star.

    posed: `ASSIGNMENT_DTYPE` (a class, and a turn in the plane), or `POSE_DTYPE`.
    """
    _, ours, theirs = np.intersect1d(particles.table["uid"], posed["uid"], return_indices=True)
    order = np.argsort(ours)
    ours, found = ours[order], posed[theirs[order]]
    source = ParticleSource(
        image_names=[particles.source.image_names[index] for index in ours],
        micrograph_names=[particles.source.micrograph_names[index] for index in ours],
        optics_groups=None if particles.source.optics_groups is None else particles.source.optics_groups[ours],
    )
    names = found.dtype.names or ()
    zeros = np.zeros(len(ours), dtype=np.float32)
    poses = Poses(
        rot_degrees=found["rot_degrees"] if "rot_degrees" in names else zeros,
        tilt_degrees=found["tilt_degrees"] if "tilt_degrees" in names else zeros,
        psi_degrees=found["psi_degrees"],
        origin_x_angstrom=found["origin_x_angstrom"],
        origin_y_angstrom=found["origin_y_angstrom"],
    )
    classes = found["class_number"] if "class_number" in names else None
    blocks = particles_star(
        particles.table[ours], source, optics, box_size_px=particles.box_size_px, poses=poses, class_numbers=classes
    )
    columns = cast("dict[str, Column]", blocks["particles"])
    columns["rlnMaxValueProbDistribution"] = found["probability"]
    return blocks


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the file system has no hard links; atomically."""
    if target.exists() and target.samefile(source):
        return
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        with atomic_path(target) as copied:
            shutil.copyfile(source, copied)
    else:
        temporary.replace(target)
