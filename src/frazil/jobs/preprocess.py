"""The preprocessing worker: takes exposures from its session's queue until it is stopped or the queue is drained."""

from frazil.jobs import Hold, JobType, LaneRole, Workload, gigabytes
from frazil.model.camera import Camera

_SMALL_MOVIES = (Camera.UNKNOWN, Camera.K2, Camera.FALCON3)


def _gpu_memory_min_mib(workload: Workload) -> int:
    return gigabytes(8 if workload.camera in _SMALL_MOVIES else 11)


JOB = JobType(
    program="frazil-preprocess",
    lane_role=LaneRole.PREPROCESSING,
    hold=Hold.UNTIL_PAUSED,
    gpu_memory_min_mib=_gpu_memory_min_mib,
    cpu_memory_min_mib=1536,
    title="Preprocessing worker",
)
