"""2D classification for templates: classifies the particles that there are once, publishes the class averages and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from frazil import array
from frazil import jobs as declarations
from frazil.algorithms.class2d.parameters import Class2dParameters
from frazil.algorithms.class2d.state import Class2dState, from_arrays
from frazil.algorithms.class2d.stream import Streaming2d
from frazil.algorithms.templates import Templates
from frazil.api.reconstruction.v1.reconstruction_pb2 import ParticleBlock
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.model.errors import InputError
from frazil.model.parameter import Value
from frazil.worker import WorkerContext
from frazil_reconstruct.bounded_run import work
from frazil_reconstruct.checkpoints import Checkpoints
from frazil_reconstruct.particle_feed import blocks_of, live_blocks, most_particles, read_block
from frazil_reconstruct.template_output import classes, write_templates


def run(context: WorkerContext) -> None:
    """Classify a session's particles; told to stop, leave a checkpoint to go on from."""
    xp = array.backend("cupy" if context.environment.device == "gpu" else "numpy")
    asked = declarations.load("class2d_templates").read(context.parameters)
    checkpoints = Checkpoints(context)
    arrays = checkpoints.load()
    resumed = None if arrays is None else from_arrays(arrays, xp)
    chosen = choose(blocks_of(context), int(asked["micrographs"]), int(asked["particles"]), resumed)
    if context.stop_requested:
        return  # not all blocks may have been read
    if not chosen:
        raise InputError("NO_PARTICLES", "Submit a 2D classification once there are particles: there are none yet.")
    first = read_block(context.session_folder, chosen[0])
    stream = Streaming2d(
        class2d_parameters(context.session.parameters, asked),
        box_size_px=first.images.shape[-1],
        pixel_size_angstrom=first.optics.pixel_size_angstrom,
        xp=xp,
        state=resumed,
    )
    if resumed is not None:
        by_sequence = {block.sequence: block for block in chosen}
        stream.load_later(lambda sequence: read_block(context.session_folder, by_sequence[sequence]))
    else:
        stream.add_block(first)
        for block in chosen[1:]:
            stream.add_block(read_block(context.session_folder, block))

    def progress() -> str:
        state = stream.state
        return f"{state.counters.taken} of {len(state.particles)} particles taken in, {state.class_count} classes"

    stream.request_finalise()
    if not work(context, stream, checkpoints, progress):
        return
    templates = Templates(stream.class_averages(), first.optics.pixel_size_angstrom)
    stem = f"templates/{context.job_id}/{context.environment.epoch}"
    source = f"2D classes of {len(chosen)} micrographs"
    message = write_templates(templates, classes(stream.class_summaries()), source, context.session_folder, stem)
    context.delete_expired(tuple(context.publish_templates(message).expired_paths))


def class2d_parameters(session: SessionParameters, asked: Mapping[str, Value]) -> Class2dParameters:
    """Return the parameters of the algorithm: what was asked of the job, else what a person set for the session."""
    return Class2dParameters(
        particle_diameter_angstrom=max(session.particle_diameter_angstrom, session.particle_diameter_max_angstrom),
        class_count=int(asked["classes"]),
        max_resolution_angstrom=float(asked["max_resolution_angstrom"]),
        mask_diameter_angstrom=session.class_mask_diameter_angstrom,
        seed=int(asked["seed"]) or session.seed,
    )


def choose(blocks: Sequence[ParticleBlock], micrographs: int, most: int, resumed: Class2dState | None) -> list[ParticleBlock]:
    """Return the blocks that a resumed run began with, else those of so many micrographs, spread evenly; at least one."""
    if resumed is not None:
        used = set(np.unique(resumed.particles.sequence).tolist())
        return [block for block in blocks if block.sequence in used]
    live = live_blocks(blocks)
    if 0 < micrographs < len(live):
        live = [live[index] for index in np.linspace(0, len(live) - 1, micrographs).round().astype(int)]
    return most_particles(live, most)
