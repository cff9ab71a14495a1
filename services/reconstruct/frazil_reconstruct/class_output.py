"""Class averages on disk: a stack for programs, a sheet for eyes, a table of assignments."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.statistics import ClassSummary
from frazil.algorithms.class2d.stream import Assignments, Streaming2d
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.io.mrc import write_mrc
from frazil.io.particles import ASSIGNMENT_DTYPE, write_array
from frazil.io.png import write_png

SHEET_COLUMNS_MAX = 10


def write_classes(stream: Streaming2d, session_folder: Path, stem: str, pixel_size_angstrom: float) -> wire.ClassAverages:
    """Write `<stem>.mrcs`, `<stem>.png` and `<stem>.npy` under the session's folder and return the message that names them."""
    averages = stream.class_averages()
    target = session_folder / stem
    target.parent.mkdir(parents=True, exist_ok=True)
    columns = sheet_columns(len(averages))
    assignments = stream.assignments()
    write_mrc(target.with_name(target.name + ".mrcs"), averages, pixel_size_angstrom, image_stack=True)
    write_png(target.with_name(target.name + ".png"), class_sheet(averages, columns))
    write_array(target.with_name(target.name + ".npy"), assignment_table(assignments))
    return wire.ClassAverages(
        particle_block_sequence=stream.state.counters.cursor,
        particle_count=len(assignments.uid),
        box_px=averages.shape[-1],
        pixel_size_angstrom=pixel_size_angstrom,
        averages=f"{stem}.mrcs",
        sheet=f"{stem}.png",
        sheet_columns=columns,
        sheet_tile_px=averages.shape[-1],
        assignments=f"{stem}.npy",
        classes=[_class_message(summary) for summary in stream.class_summaries()],
    )


def sheet_columns(count: int) -> int:
    """Return how many tiles are in a row of a sheet of so many."""
    return min(SHEET_COLUMNS_MAX, max(1, math.ceil(math.sqrt(count * 1.6))))


def class_sheet(averages: npt.NDArray[np.float32], columns: int) -> npt.NDArray[np.uint8]:
    """Lay class averages out row by row, each scaled from its 0.5th to its 99.8th percentile.

    Parameters
    ----------
    averages : (class, y, x).
    columns : tiles in a row.

    Returns
    -------
    (y, x) grey levels; tiles beyond the last class are black.
    """
    count, box = averages.shape[0], averages.shape[-1]
    rows = math.ceil(count / columns)
    low, high = np.percentile(averages, (0.5, 99.8), axis=(1, 2))
    spread = np.where(high > low, high - low, 1)
    grey = np.clip((averages - low[:, None, None]) / spread[:, None, None], 0, 1) * 255
    tiles = np.zeros((rows * columns, box, box), dtype=np.uint8)
    tiles[:count] = grey.astype(np.uint8)
    return tiles.reshape(rows, columns, box, box).swapaxes(1, 2).reshape(rows * box, columns * box)


def assignment_table(assignments: Assignments) -> npt.NDArray[np.void]:
    """Return the assignments as a structured array of ASSIGNMENT_DTYPE; classes are numbered from 1."""
    table = np.zeros(len(assignments.uid), dtype=ASSIGNMENT_DTYPE)
    table["class_number"] = assignments.class_index + 1
    for name in ("uid", "psi_degrees", "origin_x_angstrom", "origin_y_angstrom", "probability"):
        table[name] = getattr(assignments, name)
    return table


def _class_message(summary: ClassSummary) -> wire.ClassAverage:
    message = wire.ClassAverage(
        class_number=summary.index + 1,
        particle_count=summary.particle_count,
        effective_classes=summary.effective_classes,
        junk=not summary.selected,
        restarts=summary.restarts,
        mean_probability=summary.mean_probability,
        quality=summary.quality,
    )
    if summary.resolution_angstrom is not None:
        message.resolution_angstrom = summary.resolution_angstrom
    return message
