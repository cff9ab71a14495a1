"""Templates for picking from files: class averages, a volume, or the STAR file of a classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from frazil.algorithms.templates import Templates, project
from frazil.io.mrc import read_mrc
from frazil.io.star import read_star
from frazil.model.errors import InputError


def chosen_templates(path: str, numbers: Sequence[int]) -> Templates:
    """Read templates and keep those with these numbers from 1; all without numbers. Raises InputError as `read_templates`."""
    templates = read_templates(path)
    if not numbers:
        return templates
    count = len(templates.images)
    if not 1 <= min(numbers) <= max(numbers) <= count:
        raise InputError("TEMPLATES_MISSING", f"{Path(path).name} has templates 1 to {count}, not all of those that are named.")
    return Templates(templates.images[[number - 1 for number in numbers]], templates.pixel_size_angstrom)


@lru_cache(maxsize=2)
def read_templates(path: str) -> Templates:
    """Read templates: a stack (.mrcs), a volume (.mrc, projected), or a STAR file with rlnReferenceImage.

    Of a STAR file with rlnSelected only the selected classes are taken; its stacks are named relative to the folder of the
    STAR file or one above it.

    Raises InputError with one sentence for whatever is none of these.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError("TEMPLATES_MISSING", f"There are no templates at {file}: check the path.")
    if file.suffix == ".star":
        return _of_star(file)
    if file.suffix not in (".mrc", ".mrcs"):
        raise InputError("TEMPLATES_FORMAT", f"{file.name} is no file of templates: give .mrcs, .mrc or .star.")
    images, pixel_size = read_mrc(file)
    images = np.asarray(images, dtype=np.float32)
    if images.ndim == 3 and file.suffix == ".mrc":
        return project(images, pixel_size or 0.0)
    return Templates(images.reshape(-1, *images.shape[-2:]), pixel_size or 0.0)


def _of_star(file: Path) -> Templates:
    columns = next((block for block in read_star(file).values() if "rlnReferenceImage" in block), None)
    if columns is None or not isinstance(columns, Mapping):
        raise InputError("TEMPLATES_FORMAT", f"{file.name} has no column rlnReferenceImage: give the STAR file of 2D classes.")
    names = [str(name) for name in np.atleast_1d(columns["rlnReferenceImage"])]
    selected = np.atleast_1d(columns.get("rlnSelected", np.ones(len(names))))
    chosen = [name for name, keep in zip(names, selected, strict=True) if int(keep)]
    if not chosen:
        raise InputError("TEMPLATES_MISSING", f"No class of {file.name} is selected: there is nothing to pick with.")
    stacks = {name.partition("@")[2] for name in chosen}
    read = {stack: read_templates(_beside(file, stack)) for stack in stacks}
    images = [read[name.partition("@")[2]].images[int(name.partition("@")[0]) - 1] for name in chosen]
    return Templates(np.stack(images), next(iter(read.values())).pixel_size_angstrom)


def _beside(star: Path, stack: str) -> str:
    places = [folder / stack for folder in (star.parent, star.parent.parent)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError("TEMPLATES_MISSING", f"{star.name} names {stack}, which is neither beside it nor one folder above.")
    return str(found)
