"""Which particles 3D takes: those whose newest assignment is to a selected 2D class, once anybody has selected classes."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.io.export_tree import read_pose_table
from frazil.io.particles import ASSIGNMENT_DTYPE
from frazil.worker import WorkerContext

UNKNOWN = (-1, -1)
"""Revisions of classification and selection that nobody has: whoever names them is told of whatever there is."""


def revisions(averages: wire.ClassAverages) -> tuple[int, int]:
    """Return by what a classification and what is selected of it are known."""
    return averages.revision, averages.selection.revision


def selected_uids(session_folder: Path, averages: wire.ClassAverages) -> npt.NDArray[np.uint64] | None:
    """Return the sorted identities of the particles of selected classes; None: every particle counts.

    Raises FileNotFoundError when the table of assignments is gone: a newer classification has replaced it.
    """
    if not averages.selection.revision or averages.selection.all_particles:
        return None
    if not averages.assignments:
        return np.zeros(0, dtype=np.uint64)
    table = read_pose_table(session_folder / averages.assignments, ASSIGNMENT_DTYPE)
    numbers = [one.class_number for one in averages.classes if one.selected]
    return np.sort(table["uid"][np.isin(table["class_number"], numbers)])


def selected_now(context: WorkerContext) -> npt.NDArray[np.uint64] | None:
    """Return the sorted identities of the particles that a bounded job takes; None: every one."""
    while True:
        reply = context.read_blocks(0, max_count=1, wait_seconds=0.0, known_classes=UNKNOWN)
        with contextlib.suppress(FileNotFoundError):  # a newer classification has replaced it meanwhile
            return selected_uids(context.session_folder, reply.class_averages)


def are_in(uid: npt.NDArray[Any], wanted: npt.NDArray[np.uint64] | None) -> npt.NDArray[np.bool_]:
    """Say which identities are among sorted wanted ones; all are when None is wanted."""
    if wanted is None:
        return np.ones(uid.size, dtype=np.bool_)
    if not wanted.size:
        return np.zeros(uid.size, dtype=np.bool_)
    place = np.minimum(np.searchsorted(wanted, uid), wanted.size - 1)
    found: npt.NDArray[np.bool_] = wanted[place] == uid
    return found


def part(block: ParticleBlock, rows: npt.NDArray[np.bool_], sequence: int) -> ParticleBlock:
    """Return some particles of a block as a block of another sequence."""
    columns = ("uid", "images", "defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_degrees", "phase_shift_degrees")
    return dataclasses.replace(block, sequence=sequence, **{name: getattr(block, name)[rows] for name in columns})
