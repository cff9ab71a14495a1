"""Job types of another distribution, as tests add them: `tests/plugins` on the path is all it takes."""

from __future__ import annotations

from frazil.jobs import Hold, JobType, LaneRole, gigabytes
from frazil.model.parameter import Parameter

COUNT = JobType(
    program="frazil-reconstruct",
    lane_role=LaneRole.AUXILIARY,
    hold=Hold.UNTIL_DONE,
    gpu_memory_min_mib=lambda _: gigabytes(8),
    cpu_memory_min_mib=1000,
    title="Counting job",
    parameters=(
        Parameter(name="classes", default=3, minimum=1, maximum=50, description="How many classes."),
        Parameter(name="resolution_angstrom", default=12.0, minimum=1.0, maximum=100.0, description="Where to stop."),
        Parameter(name="symmetry", default="C1", choices=("C1", "D7", "O"), description="Point group."),
        Parameter(name="mask", default=True, description="Mask the particles."),
    ),
)

REFINE = JobType(
    program="frazil-reconstruct",
    lane_role=LaneRole.RECONSTRUCTION,
    hold=Hold.UNTIL_PAUSED,
    gpu_memory_min_mib=lambda _: gigabytes(11),
    cpu_memory_min_mib=1000,
    title="Refining job",
)
