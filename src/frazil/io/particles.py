"""Particle shards: the particles of one micrograph as `particles.mrcs` and `particles.npy`, never rewritten."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.io.atomic import write_bytes
from frazil.io.mrc import read_mrc, write_mrc
from frazil.model.errors import InputError

PARTICLE_DTYPE = np.dtype(
    [
        ("uid", "<u8"),
        ("coordinate_x_px", "<f4"),
        ("coordinate_y_px", "<f4"),
        ("score", "<f4"),
        ("power", "<f4"),
        ("defocus_u_angstrom", "<f4"),
        ("defocus_v_angstrom", "<f4"),
        ("defocus_angle_degrees", "<f4"),
        ("phase_shift_degrees", "<f4"),
        ("pixel_size_angstrom", "<f4"),
        ("voltage_kv", "<f4"),
        ("spherical_aberration_mm", "<f4"),
        ("amplitude_contrast", "<f4"),
        ("half_set", "u1"),
    ]
)
ASSIGNMENT_DTYPE = np.dtype(
    [
        ("uid", "<u8"),
        ("class_number", "<i4"),
        ("psi_degrees", "<f4"),
        ("origin_x_angstrom", "<f4"),
        ("origin_y_angstrom", "<f4"),
        ("probability", "<f4"),
    ]
)
"""Where particles belong in a 2D classification; classes are numbered from 1."""

POSE_DTYPE = np.dtype(
    [
        ("uid", "<u8"),
        ("half_set", "u1"),
        ("rot_degrees", "<f4"),
        ("tilt_degrees", "<f4"),
        ("psi_degrees", "<f4"),
        ("origin_x_angstrom", "<f4"),
        ("origin_y_angstrom", "<f4"),
        ("probability", "<f4"),
        ("log_likelihood", "<f4"),
    ]
)
"""How particles are turned and where they sit in a 3D refinement."""

CANDIDATE_DTYPE = np.dtype(
    [("uid", "<u8"), *((name, "<f8") for name in ("x_px", "y_px", "score", "power", "diameter_angstrom"))]
)
"""What a picker found in a micrograph, best first, also below its threshold."""

STACK_NAME, TABLE_NAME = "particles.mrcs", "particles.npy"


def write_particles(
    folder: Path | str, stack: npt.NDArray[np.float32], table: npt.NDArray[Any], *, float16: bool = False
) -> None:
    """Write a shard: images `(particle, y, x)` and their table of `PARTICLE_DTYPE`, in equal order.

    The pixel size in the stack's header is the table's. Without particles only the (empty) table is written. The table
    comes last: a folder with a table has its stack. Raises ValueError when the two do not fit each other.
    """
    if table.dtype != PARTICLE_DTYPE or table.ndim != 1 or stack.ndim != 3 or len(stack) != len(table):
        raise ValueError(f"a shard needs (n, y, x) images and n rows of PARTICLE_DTYPE, not {stack.shape}, {table.shape}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if len(table):
        pixel_size = float(table["pixel_size_angstrom"][0])
        write_mrc(target / STACK_NAME, stack, pixel_size, float16=float16, image_stack=True)
    write_array(target / TABLE_NAME, table)


def read_particles(folder: Path | str) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Read a shard: images `(particle, y, x)` float32 and their table. An empty shard has images of shape (0, 0, 0).

    Raises InputError when the folder holds no shard, or stack and table differ in length.
    """
    source = Path(folder)
    table = read_table(source / TABLE_NAME)
    if not len(table):
        return np.zeros((0, 0, 0), dtype=np.float32), table
    if not (source / STACK_NAME).is_file():
        raise InputError("PARTICLES_MISSING", f"{source} has a particle table but no {STACK_NAME}.")
    images, _ = read_mrc(source / STACK_NAME)
    stack = images.reshape((-1, *images.shape[-2:])).astype(np.float32, copy=False)
    if len(stack) != len(table):
        raise InputError("PARTICLES_MISMATCH", f"{source} has {len(stack)} images for {len(table)} particles.")
    return stack, table


def read_table(path: Path | str, dtype: np.dtype[Any] = PARTICLE_DTYPE) -> npt.NDArray[Any]:
    """Read a particle table, or another one of `dtype`. Raises InputError when there is none or it has other columns."""
    source = Path(path)
    if not source.is_file():
        raise InputError("PARTICLES_MISSING", f"{source.parent} holds no particles: {source.name} is missing.")
    try:
        table: npt.NDArray[Any] = np.load(source, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError("PARTICLES_CORRUPT", f"{source} is not a particle table.") from error
    if table.dtype != dtype:
        raise InputError("PARTICLES_CORRUPT", f"{source} was written with other columns: extract the particles again.")
    return table


def write_array(path: Path | str, array: npt.NDArray[Any]) -> None:
    """Write one array as `.npy` atomically; nothing is pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
