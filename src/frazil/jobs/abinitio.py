"""Ab-initio reconstruction: a session's first particles in, volumes out; a refinement may start from the best of them."""

from frazil.jobs import Hold, JobType, LaneRole, gigabytes
from frazil.model.parameter import Parameter

JOB = JobType(
    program="frazil-reconstruct",
    lane_role=LaneRole.AUXILIARY,
    hold=Hold.UNTIL_DONE,
    gpu_memory_min_mib=lambda _: gigabytes(8),
    cpu_memory_min_mib=2048,
    title="Ab-initio reconstruction",
    parameters=(
        Parameter(name="classes", default=1, minimum=1, maximum=20, description="Volumes, to part different particles."),
        Parameter(name="symmetry", default="", description="Point group; empty means the session's."),
        Parameter(name="particles", default=20_000, minimum=20, maximum=1_000_000, description="Most particles used."),
        Parameter(name="max_resolution_angstrom", default=12.0, minimum=2.0, maximum=100.0, description="Finest detail used."),
        Parameter(name="restarts", default=3, minimum=1, maximum=20, description="Random starts; the best one goes on."),
        Parameter(name="iterations", default=120, minimum=10, maximum=2000, description="Steps of the start that goes on."),
        Parameter(name="seed", default=0, minimum=0, maximum=2**31, description="Of every random choice; 0: the session's."),
    ),
)
