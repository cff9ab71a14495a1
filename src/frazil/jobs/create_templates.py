"""Templates from a volume: a map projected along evenly spaced directions, for the template picker."""

from frazil.jobs import Hold, JobType, LaneRole, gigabytes
from frazil.model.parameter import Parameter

JOB = JobType(
    program="frazil-reconstruct",
    lane_role=LaneRole.AUXILIARY,
    hold=Hold.UNTIL_DONE,
    gpu_memory_min_mib=lambda _: gigabytes(4),
    cpu_memory_min_mib=2048,
    title="Templates from a volume",
    parameters=(
        Parameter(
            name="volume",
            default="",
            description="Map (.mrc, .map), density positive: an absolute path, or one in the session's folder; empty means the "
            "session's newest volume.",
        ),
        Parameter(
            name="pixel_size_angstrom",
            default=0.0,
            minimum=0.0,
            maximum=50.0,
            description="Of the map; 0: as its header says.",
        ),
        Parameter(name="symmetry", default="", description="Point group of the map; empty means the session's."),
        Parameter(
            name="views",
            default=48,
            minimum=1,
            maximum=2000,
            description="Directions over the whole sphere; those that symmetry makes alike are one template.",
        ),
        Parameter(name="resolution_angstrom", default=20.0, minimum=2.0, maximum=100.0, description="Low pass of the map."),
    ),
)
