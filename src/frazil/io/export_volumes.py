"""refine3d/ and abinitio/ of an export: maps, mask, FSC and poses, as RELION and CryoSPARC read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frazil.api.reconstruction.v1.reconstruction_pb2 import Volume
from frazil.io.export_tree import ExportedParticles, ExportTree, posed_particles_star, read_pose_table
from frazil.io.particles import POSE_DTYPE
from frazil.io.relion import OpticsGroup
from frazil.io.star import Block, Scalar, write_star

_MAPS = ("volume", "sharpened", "half1", "half2", "mask")


def export_volumes(
    tree: ExportTree,
    refined: Volume | None,
    ab_initio: Volume | None,
    particles: ExportedParticles | None,
    optics: Sequence[OpticsGroup],
) -> None:
    """Write refine3d/ and abinitio/, each if there is such a volume."""
    if refined is not None:
        for name in _MAPS:
            tree.link(getattr(refined, name), f"refine3d/{name}.mrc")
        write_star(tree.output / "refine3d" / "fsc.star", fsc_star(refined))
        if particles is not None:
            poses = read_pose_table(tree.find(refined.poses), POSE_DTYPE)
            write_star(tree.output / "refine3d" / "particles.star", posed_particles_star(particles, poses, optics))
    if ab_initio is not None:
        tree.link(ab_initio.volume, "abinitio/volume.mrc")
        for number, one in enumerate(ab_initio.classes, start=1):
            tree.link(one.volume, f"abinitio/class{number:03d}.mrc")


def fsc_star(volume: Volume) -> dict[str, Block]:
    """Return `data_general` and `data_fsc` with the names of RELION's postprocess.star."""
    general: dict[str, Scalar] = {"rlnFinalResolution": volume.resolution_angstrom}
    if volume.HasField("b_factor_angstrom2"):
        general["rlnBfactorUsedForSharpening"] = -volume.b_factor_angstrom2  # RELION's sign: negative sharpens
    curves = volume.fsc
    shells = np.arange(len(curves.corrected))
    frequency = shells / (volume.box_px * volume.pixel_size_angstrom)
    return {
        "general": general,
        "fsc": {
            "rlnSpectralIndex": shells,
            "rlnResolution": frequency,
            "rlnAngstromResolution": np.divide(1, frequency, out=np.full(len(shells), 999.0), where=frequency > 0),
            "rlnFourierShellCorrelationCorrected": np.array(curves.corrected),
            "rlnFourierShellCorrelationUnmaskedMaps": np.array(curves.unmasked),
            "rlnFourierShellCorrelationMaskedMaps": np.array(curves.masked),
            "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": np.array(curves.randomised),
        },
    }
