"""The preprocessing worker: takes exposures from its session's queue until it is stopped or the queue is drained."""

from frazil.jobs import Hold, JobType, LaneRole

JOB = JobType(
    program="frazil-preprocess",
    lane_role=LaneRole.PREPROCESSING,
    hold=Hold.UNTIL_PAUSED,
    gpu_memory_min_mib=8 * 1024,
    cpu_memory_min_mib=1536,
    title="Preprocessing worker",
)
