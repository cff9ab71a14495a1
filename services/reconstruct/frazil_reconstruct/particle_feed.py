"""Particle blocks from the ledger, with their images from the session's folder."""

from __future__ import annotations

from pathlib import Path

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.io.particles import read_particles
from frazil.model.errors import InputError
from frazil.model.optics import Optics


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
