"""Streaming 3D refinement: reads particle blocks by cursor and keeps a homogeneous refinement growing with the data."""

from frazil.jobs import Hold, JobType, LaneRole, Workload, gigabytes

_SMALLEST_GIGABYTES = 11.0
_FIXED_GIGABYTES = 5.0  # images of a batch, hypotheses and the device's own
_BYTES_PER_VOXEL = 288.0  # six half cubes of the box padded by 2, complex64 and float32: sums, those of the pass, symmetrised


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
