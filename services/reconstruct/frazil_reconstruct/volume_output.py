"""Volumes on disk: maps for programs, slices and projections for eyes, a table of poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.abinitio.run import AbInitio
from frazil.algorithms.refine3d.results import Poses, Refined, angular_distribution, poses, publish
from frazil.algorithms.refine3d.state import HISTORY
from frazil.algorithms.refine3d.stream import StreamingRefinement
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.io.mrc import write_mrc
from frazil.io.particles import POSE_DTYPE, write_array
from frazil.io.png import write_png


def write_refined(refinement: StreamingRefinement, session_folder: Path, stem: str) -> wire.Volume:
    """Write maps, mask, sheet and poses of a refinement as `<stem>.*` and return the message that names them."""
    refined, table = publish(refinement), pose_table(poses(refinement.state))
    run, state = refinement.run, refinement.state
    (session_folder / stem).parent.mkdir(parents=True, exist_ok=True)
    live = state.particles.pose[state.live()]
    message = wire.Volume(
        kind=wire.Volume.KIND_REFINEMENT,
        particle_block_sequence=state.counters.cursor,
        particle_count=len(table),
        box_px=run.plane.box_size_px,
        pixel_size_angstrom=run.plane.pixel_size_angstrom,
        symmetry=run.parameters.symmetry,
        resolution_angstrom=refined.resolution_angstrom,
        supported=refined.supported,
        fsc=_curves(refined),
        b_factor_angstrom2=refined.guinier.b_factor_angstrom2,
        angular_spread=_spread(live, run.group.operators),
        history=resolution_history(refinement),
        trend_b_factor_angstrom2=refined.trend.b_factor_angstrom2 if refined.trend is not None else None,
        sheet=f"{stem}.png",
        poses=f"{stem}.npy",
    )
    maps = {
        "volume": refined.volume,
        "sharpened": refined.sharpened,
        "half1": refined.half_maps[0],
        "half2": refined.half_maps[1],
        "mask": refined.mask,
    }
    for name, volume in maps.items():
        path = f"{stem}.{name}.mrc"
        write_mrc(session_folder / path, volume, run.plane.pixel_size_angstrom)
        setattr(message, name, path)
    write_png(session_folder / message.sheet, volume_sheet(refined.sharpened))
    write_array(session_folder / message.poses, table)
    return message


def write_ab_initio(found: AbInitio, symmetry: str, pixel_size_angstrom: float, session_folder: Path, stem: str) -> wire.Volume:
    """Write the volumes of an ab-initio reconstruction, the most populated first, as `<stem>.*` and return their message."""
    result, state = found.reconstruction(), found.state
    order = np.argsort(-result.fraction, kind="stable")
    (session_folder / stem).parent.mkdir(parents=True, exist_ok=True)
    classes = []
    for number, index in enumerate(order, start=1):
        path = f"{stem}.class{number:03d}.mrc"
        write_mrc(session_folder / path, result.volumes[index], pixel_size_angstrom)
        classes.append(wire.VolumeClass(volume=path, fraction=result.fraction[index]))
    spread = result.distribution[order[0]]
    write_png(session_folder / f"{stem}.png", volume_sheet(result.volumes[order[0]]))
    return wire.Volume(
        kind=wire.Volume.KIND_AB_INITIO,
        particle_block_sequence=state.counters.cursor,
        particle_count=len(state.particles),
        box_px=result.volumes.shape[-1],
        pixel_size_angstrom=pixel_size_angstrom,
        symmetry=symmetry,
        angular_spread=wire.AngularSpread(ratio=spread.ratio, preferred=spread.preferred),
        volume=classes[0].volume,
        sheet=f"{stem}.png",
        classes=classes,
        final=True,
    )


def volume_sheet(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Lay out central slices (above) and projections (below) along z, y and x, each row on one scale of grey.

    Parameters
    ----------
    volume : (z, y, x), a cube.

    Returns
    -------
    (2 size, 3 size) grey levels from each row's least to its greatest value.
    """
    middle = volume.shape[0] // 2
    slices = [np.take(volume, middle, axis=axis) for axis in range(3)]
    projections = [volume.sum(axis=axis) for axis in range(3)]
    return np.vstack([_grey(np.hstack(row)) for row in (slices, projections)])


def pose_table(found: Poses) -> npt.NDArray[np.void]:
    """Return poses as a structured array of POSE_DTYPE."""
    table = np.zeros(len(found.uid), dtype=POSE_DTYPE)
    for name in POSE_DTYPE.names or ():
        table[name] = getattr(found, name)
    return table


def resolution_history(refinement: StreamingRefinement) -> list[wire.ResolutionPoint]:
    """Return the best resolution of the run's half maps at each number of particles; none until it is supported."""
    run, state = refinement.run, refinement.state
    if not state.counters.supported:
        return []
    best: dict[int, float] = {}
    for particles, resolved in state.history[:, [HISTORY.index("particles"), HISTORY.index("resolved")]]:
        if resolved > refinement.start_radius:
            best[int(particles)] = max(best.get(int(particles), 0.0), float(resolved))
    return [
        wire.ResolutionPoint(particle_count=count, resolution_angstrom=run.plane.box_angstrom / resolved)
        for count, resolved in sorted(best.items())
    ]


def _curves(refined: Refined) -> wire.FscCurves:
    curves = refined.curves
    return wire.FscCurves(
        unmasked=curves.unmasked, masked=curves.masked, randomised=curves.randomised, corrected=curves.corrected
    )


def _spread(pose: npt.NDArray[Any], operators: npt.NDArray[np.float64]) -> wire.AngularSpread:
    found = angular_distribution(pose, operators)
    return wire.AngularSpread(ratio=found.ratio, preferred=found.preferred)


def _grey(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    low, high = float(image.min()), float(image.max())
    return ((image - low) / (high - low if high > low else 1.0) * 255).astype(np.uint8)
