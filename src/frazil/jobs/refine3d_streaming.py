"""Streaming 3D refinement: reads particle blocks by cursor and keeps a homogeneous refinement growing with the data."""

from frazil.jobs import Hold, JobType, LaneRole, Workload, gigabytes

_SMALLEST_GIGABYTES = 11.0
_FIXED_GIGABYTES = 1.5  # images of a batch, slices of the grid, hypotheses and the device's own
_BYTES_PER_VOXEL = 560.0  # measured at Nyquist: sums of all, those of the pass, completed ones, and a padded transform


def _memory_min_mib(workload: Workload) -> int:
    return gigabytes(max(_SMALLEST_GIGABYTES, _FIXED_GIGABYTES + _BYTES_PER_VOXEL * workload.box_px**3 / 1e9))


JOB = JobType(
    program="frazil-reconstruct",
    lane_role=LaneRole.RECONSTRUCTION,
    hold=Hold.UNTIL_PAUSED,
    gpu_memory_min_mib=_memory_min_mib,
    cpu_memory_min_mib=2048,
    title="Streaming 3D refinement",
    starts_from_volume=True,
    stall_limit_seconds=3600.0,  # one unit of a large box on processors takes long, and nothing is saved within it
)
