"""Templates on disk: a stack, a STAR file that says which are good, and a sheet for eyes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.statistics import ClassSummary
from frazil.algorithms.templates import Templates
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.io.mrc import write_mrc
from frazil.io.png import write_png
from frazil.io.star import write_star
from frazil_reconstruct.class_output import class_sheet, sheet_columns


def write_templates(
    templates: Templates, described: Sequence[wire.Template], source: str, session_folder: Path, stem: str
) -> wire.Templates:
    """Write `<stem>.mrcs`, `<stem>.star` and `<stem>.png` under the session's folder and return the message that names them."""
    images, pixel_size = templates.images, templates.pixel_size_angstrom
    target = session_folder / stem
    target.parent.mkdir(parents=True, exist_ok=True)
    columns = sheet_columns(len(images))
    stack = target.with_name(target.name + ".mrcs")
    write_mrc(stack, images, pixel_size, image_stack=True)
    write_png(target.with_name(target.name + ".png"), class_sheet(images, columns))
    table: dict[str, Sequence[Any] | npt.NDArray[Any]] = {
        "rlnReferenceImage": [f"{one.number:06d}@{stack.name}" for one in described],
        "rlnSelected": np.array([int(one.selected) for one in described]),
    }
    write_star(target.with_name(target.name + ".star"), {"model_classes": table})
    return wire.Templates(
        source=source,
        images=f"{stem}.mrcs",
        star=f"{stem}.star",
        sheet=f"{stem}.png",
        sheet_columns=columns,
        box_px=images.shape[-1],
        pixel_size_angstrom=pixel_size,
        particle_count=sum(one.particle_count for one in described),
        templates=described,
    )


def views(count: int) -> list[wire.Template]:
    """Describe views of a volume: all of them are good."""
    return [wire.Template(number=number, selected=True) for number in range(1, count + 1)]


def classes(summaries: Sequence[ClassSummary]) -> list[wire.Template]:
    """Describe class averages: good is what the automatic rule does not rank as junk."""
    return [
        wire.Template(
            number=summary.index + 1,
            selected=summary.selected,
            particle_count=summary.particle_count,
            resolution_angstrom=summary.resolution_angstrom,
            effective_classes=summary.effective_classes,
        )
        for summary in summaries
    ]
