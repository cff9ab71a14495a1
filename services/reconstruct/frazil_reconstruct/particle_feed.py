"""Particle blocks from the ledger, with their images from the session's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.io.particles import read_particles, read_table
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from frazil.worker import WorkerContext


def read_block(session_folder: Path, block: wire.ParticleBlock) -> ParticleBlock:
    """Read the images of an ADD block. Raises InputError when the shard is gone, damaged, or not what the ledger says."""
    images, table = read_particles((session_folder / block.particle_table).parent)
    if len(table) != block.particle_count:
        raise InputError(
            "PARTICLES_MISMATCH",
            f"Particle block {block.sequence} has {len(table)} particles on disk and {block.particle_count} in the ledger.",
        )
    first = table[0]
    return ParticleBlock(
        sequence=block.sequence,
        uid=table["uid"],
        images=images,
        defocus_u_angstrom=table["defocus_u_angstrom"],
        defocus_v_angstrom=table["defocus_v_angstrom"],
        defocus_angle_degrees=table["defocus_angle_degrees"],
        phase_shift_degrees=table["phase_shift_degrees"],
        optics=Optics(
            pixel_size_angstrom=float(first["pixel_size_angstrom"]),
            voltage_kv=float(first["voltage_kv"]),
            spherical_aberration_mm=float(first["spherical_aberration_mm"]),
            amplitude_contrast=float(first["amplitude_contrast"]),
        ),
    )


def read_uids(session_folder: Path, block: wire.ParticleBlock) -> npt.NDArray[np.uint64]:
    """Read the identities of the particles of an ADD block. Raises InputError when its table is gone or damaged."""
    uid: npt.NDArray[np.uint64] = read_table(session_folder / block.particle_table)["uid"]
    return uid


def blocks_of(context: WorkerContext) -> list[wire.ParticleBlock]:
    """Return the blocks that there are, retractions included; fewer when the worker is told to stop meanwhile."""
    blocks: list[wire.ParticleBlock] = []
    while not context.stop_requested:
        reply = context.read_blocks(blocks[-1].sequence if blocks else 0, wait_seconds=0.0)
        if not reply.blocks:
            break
        blocks += reply.blocks
    return blocks


def is_on_disk(session_folder: Path, block: wire.ParticleBlock) -> bool:
    """Tell whether the files of an ADD block are there."""
    return all((session_folder / path).is_file() for path in (block.particles, block.particle_table))


def live_blocks(blocks: Sequence[wire.ParticleBlock]) -> list[wire.ParticleBlock]:
    """Return the blocks whose particles count."""
    withdrawn = _withdrawn(blocks)
    return [block for block in blocks if block.kind == wire.ParticleBlock.KIND_ADD and block.sequence not in withdrawn]


def withdrawn_blocks(blocks: Sequence[wire.ParticleBlock]) -> list[wire.ParticleBlock]:
    """Return the blocks whose particles count no more."""
    withdrawn = _withdrawn(blocks)
    return [block for block in blocks if block.sequence in withdrawn]


def most_particles(blocks: Sequence[wire.ParticleBlock], most: int) -> list[wire.ParticleBlock]:
    """Return the first blocks up to so many particles; at least one, if there is one."""
    totals = np.cumsum([block.particle_count for block in blocks])
    return list(blocks[: max(1, int((totals <= most).sum()))])


def _withdrawn(blocks: Sequence[wire.ParticleBlock]) -> set[int]:
    return {block.retracts_sequence for block in blocks if block.kind == wire.ParticleBlock.KIND_RETRACT}
