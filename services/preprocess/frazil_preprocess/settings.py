"""What a session's parameters mean for one movie: optics, gain, defects, box."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from frazil.algorithms.extraction import BoxAdvice, advise_box, check_box
from frazil.algorithms.picking.blob import BlobParameters
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.gain_reference import Flip, read_defects, read_gain
from frazil.model.optics import Optics
from frazil.rpc.convert import metadata_from_message, optics_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the pipeline needs to know about one movie besides its pixels."""

    optics: Optics
    gain: npt.NDArray[np.float32] | None
    defects: npt.NDArray[np.bool_] | None
    picking: BlobParameters
    box: BoxAdvice
    seed: int


def settings_of(parameters: SessionParameters, exposure: Exposure) -> Settings:
    """Return the settings for an exposure. Raises InputError: pixel size unknown, gain or defects unusable."""
    shape = (exposure.file.height_px, exposure.file.width_px)
    metadata = metadata_from_message(exposure.metadata)
    optics = optics_of(parameters, metadata, frame_count=exposure.file.frame_count)
    gain_path = parameters.gain_path or _existing(metadata.gain_path)
    smallest = parameters.particle_diameter_angstrom
    largest = parameters.particle_diameter_max_angstrom or smallest
    return Settings(
        optics=optics,
        gain=_gain(gain_path, parameters.gain_flip or "none", parameters.gain_rotate, shape) if gain_path else None,
        defects=_defects(parameters.defects_path, shape) if parameters.defects_path else None,
        picking=BlobParameters(diameter_min_angstrom=smallest, diameter_max_angstrom=largest),
        box=_box(parameters, largest, optics, shape),
        seed=_seed(parameters.seed, exposure),
    )


def _seed(seed: int, exposure: Exposure) -> int:
    """Each movie draws numbers of its own, the same in every session with the same seed."""
    text = f"{seed}:{exposure.file.relative_path}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "little")


def _existing(path: str | None) -> str:
    """A gain that only the metadata name is used when it can be reached; camera computers often name a drive of their own."""
    return path if path and Path(path).is_file() else ""


def _box(parameters: SessionParameters, diameter_angstrom: float, optics: Optics, shape: tuple[int, int]) -> BoxAdvice:
    advice = advise_box(diameter_angstrom, optics.pixel_size_angstrom)
    output = parameters.output_box_px or parameters.box_size_px or advice.output_box_px
    box = BoxAdvice(box_size_px=parameters.box_size_px or max(advice.box_size_px, output), output_box_px=output)
    check_box(box, diameter_angstrom / optics.pixel_size_angstrom, shape)
    return box


@lru_cache(maxsize=2)
def _gain(path: str, flip: str, rotate: int, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    return read_gain(path, flip=cast(Flip, flip), rotate=rotate, expected_shape=shape)


@lru_cache(maxsize=2)
def _defects(path: str, shape: tuple[int, int]) -> npt.NDArray[Any]:
    return read_defects(path, shape)
