"""Ab-initio reconstruction: takes the particles that there are, works, checkpoints, publishes its volumes and ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from frazil import array
from frazil import jobs as declarations
from frazil.algorithms.abinitio.parameters import AbInitioParameters
from frazil.algorithms.abinitio.run import AbInitio
from frazil.algorithms.abinitio.state import AbInitioState, from_arrays
from frazil.algorithms.class2d.images import ParticleBlock
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.model.errors import InputError
from frazil.model.parameter import Value
from frazil.worker import WorkerContext
from frazil_reconstruct.bounded_run import work
from frazil_reconstruct.checkpoints import Checkpoints
from frazil_reconstruct.particle_feed import blocks_of, live_blocks, most_particles, read_block, read_uids
from frazil_reconstruct.selected_particles import are_in, part, selected_now
from frazil_reconstruct.volume_output import write_ab_initio


def run(context: WorkerContext) -> None:
    """Reconstruct from a session's particles; told to stop, leave a checkpoint to go on from."""
    xp = array.backend("cupy" if context.environment.device == "gpu" else "numpy")
    asked = declarations.load("abinitio").read(context.parameters)
    checkpoints = Checkpoints(context)
    arrays = checkpoints.load()
    resumed = None if arrays is None else from_arrays(arrays, xp)
    wanted = selected_now(context) if resumed is None else np.sort(resumed.particles.uid)
    blocks = blocks_of(context)
    chosen = choose(context.session_folder, blocks, wanted, int(asked["particles"]), resumed)
    if context.stop_requested:
        return  # not all blocks may have been read
    if not chosen:
        why = "there are none yet" if wanted is None else "none is in a selected 2D class yet"
        raise InputError("NO_PARTICLES", f"Submit an ab-initio reconstruction once there are particles: {why}.")
    parameters = abinitio_parameters(context.session.parameters, asked)
    first = read(context, chosen[0], wanted)
    pixel_size = first.optics.pixel_size_angstrom
    found = AbInitio(parameters, box_size_px=first.images.shape[-1], pixel_size_angstrom=pixel_size, xp=xp, state=resumed)
    found.add_block(first)
    for block in chosen[1:]:
        found.add_block(read(context, block, wanted))

    def progress() -> str:
        return f"Step {len(found.state.history)} with {len(found.state.particles)} particles"

    if not work(context, found, checkpoints, progress):
        return
    stem = f"abinitio/{context.job_id}/{context.environment.epoch}"
    message = write_ab_initio(found, parameters.symmetry, pixel_size, context.session_folder, stem)
    context.delete_expired(tuple(context.publish_volume(message).expired_paths))


def abinitio_parameters(session: SessionParameters, asked: Mapping[str, Value]) -> AbInitioParameters:
    """Return the parameters of the algorithm: what was asked of the job, else what a person set for the session."""
    return AbInitioParameters(
        particle_diameter_angstrom=max(session.particle_diameter_angstrom, session.particle_diameter_max_angstrom),
        volume_count=int(asked["classes"]),
        symmetry=str(asked["symmetry"]).strip() or session.symmetry.strip() or "C1",
        max_resolution_angstrom=float(asked["max_resolution_angstrom"]),
        restarts=int(asked["restarts"]),
        iterations=int(asked["iterations"]),
        seed=int(asked["seed"]) or session.seed,
    )


def choose(
    session_folder: Path,
    blocks: list[wire.ParticleBlock],
    wanted: npt.NDArray[np.uint64] | None,
    most: int,
    resumed: AbInitioState | None,
) -> list[wire.ParticleBlock]:
    """Return the blocks that a resumed run began with, else the first with wanted particles, up to so many; at least one."""
    if resumed is not None:
        used = set(np.unique(resumed.particles.sequence).tolist())
        return [block for block in blocks if block.sequence in used]
    live = live_blocks(blocks)
    if wanted is None:
        return most_particles(live, most)
    chosen: list[wire.ParticleBlock] = []
    count = 0
    for block in live:
        here = int(are_in(read_uids(session_folder, block), wanted).sum())
        if chosen and count + here > most:
            break
        if here:
            chosen.append(block)
            count += here
    return chosen


def read(context: WorkerContext, block: wire.ParticleBlock, wanted: npt.NDArray[np.uint64] | None) -> ParticleBlock:
    """Read the wanted particles of a block."""
    particles = read_block(context.session_folder, block)
    return part(particles, are_in(particles.uid, wanted), block.sequence)
