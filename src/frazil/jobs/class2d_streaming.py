"""Streaming 2D classification: reads particle blocks by cursor and keeps class averages growing with the data."""

from frazil.jobs import Hold, JobType, LaneRole, gigabytes

JOB = JobType(
    program="frazil-reconstruct",
    lane_role=LaneRole.RECONSTRUCTION,
    hold=Hold.UNTIL_PAUSED,
    gpu_memory_min_mib=lambda _: gigabytes(4),
    cpu_memory_min_mib=1024,
    title="Streaming 2D classification",
    starts_with_session=True,
)
