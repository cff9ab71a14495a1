"""Templates from 2D classes: a session's particles so far are classified once, and the good class averages pick."""

from frazil.jobs import Hold, JobType, LaneRole, gigabytes
from frazil.model.parameter import Parameter

JOB = JobType(
    program="frazil-reconstruct",
    lane_role=LaneRole.AUXILIARY,
    hold=Hold.UNTIL_DONE,
    gpu_memory_min_mib=lambda _: gigabytes(4),
    cpu_memory_min_mib=1024,
    title="2D classification for templates",
    parameters=(
        Parameter(
            name="micrographs",
            default=0,
            minimum=0,
            maximum=1_000_000,
            description="Number of micrographs, spread over those so far, whose particles are used; 0: all.",
        ),
        Parameter(name="particles", default=100_000, minimum=20, maximum=1_000_000, description="Most particles used."),
        Parameter(name="classes", default=50, minimum=2, maximum=1000, description="Number of classes."),
        Parameter(name="max_resolution_angstrom", default=10.0, minimum=2.0, maximum=100.0, description="Finest detail used."),
        Parameter(name="seed", default=0, minimum=0, maximum=2**31, description="Of every random choice; 0: the session's."),
    ),
)
