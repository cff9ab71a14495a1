"""What a refinement holds in memory at full resolution, against what the planner reserves for it."""

import tracemalloc

import numpy as np
import pytest

from frazil import jobs
from frazil.algorithms.class2d.images import ParticleBlock
from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.results import publish
from frazil.algorithms.refine3d.state import Kind, Phase, empty_sums
from frazil.algorithms.refine3d.stream import StreamingRefinement
from frazil.model.optics import Optics

PIXEL = 2.0


def last_pass(box: int, count: int = 8) -> StreamingRefinement:
    """A run before its last local pass, sums at Nyquist."""
    random = np.random.default_rng(0)
    start = np.zeros((box, box, box), np.float32)
    start[box // 2 - 4 : box // 2 + 4, box // 2 - 3 : box // 2 + 6, box // 2 - 5 : box // 2 + 5] = 1
    parameters = Refine3dParameters(particle_diameter_angstrom=0.7 * box * PIXEL, first_images=count, max_passes=1)
    run = StreamingRefinement(parameters, box_size_px=box, pixel_size_angstrom=PIXEL, start=start)
    same = np.full(count, 15_000.0)
    run.add_block(
        ParticleBlock(
            sequence=1,
            uid=np.arange(count, dtype=np.uint64),
            images=random.normal(size=(count, box, box)).astype(np.float32),
            defocus_u_angstrom=same,
            defocus_v_angstrom=same,
            defocus_angle_degrees=0 * same,
            phase_shift_degrees=0 * same,
            optics=Optics(pixel_size_angstrom=PIXEL),
        )
    )
    assert run.advance()  # takes the particles in
    state, plane = run.state, run.run.plane
    state.accumulated = empty_sums(plane.limit, plane.shell_count, np)
    state.counters.supported, state.counters.passes = 1, 1
    state.counters.kind, state.counters.phase = Kind.LOCAL, Phase.REFINING
    state.radius, state.fsc[:], state.particles.generation[:] = plane.limit, 0.9, 1
    return run


def peak_bytes(box: int) -> int:
    tracemalloc.start()
    try:
        run = last_pass(box)
        tracemalloc.reset_peak()
        while run.state.counters.phase == Phase.REFINING:
            run.advance()
        publish(run)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_planner_reserves_what_a_pass_at_nyquist_takes():
    """Per voxel of the box: what boxes of 48 and 64 differ by, against what the planner's figures for large boxes do."""
    peak_bytes(32)  # compiled code counts too, once
    measured = (peak_bytes(64) - peak_bytes(48)) / (64**3 - 48**3)
    reserve = jobs.load("refine3d_streaming").gpu_memory_min_mib
    boxes = [jobs.Workload(box_px=box) for box in (384, 512)]
    reserved = (reserve(boxes[1]) - reserve(boxes[0])) * 2**20 / (512**3 - 384**3)
    assert 0.6 * reserved < measured < 1.02 * reserved


@pytest.mark.parametrize(("box", "card_gigabytes"), [(256, 11), (384, 40)])
def test_boxes_fit_the_cards_they_are_meant_for(box, card_gigabytes):
    needed = jobs.load("refine3d_streaming").gpu_memory_min_mib(jobs.Workload(box_px=box))
    assert needed <= card_gigabytes * 1e9 / 2**20
