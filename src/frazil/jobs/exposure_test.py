"""Processes one exposure with other parameters into a folder of its own, for people to compare."""

from frazil.jobs import Hold, JobType, LaneRole
from frazil.jobs.preprocess import JOB as PREPROCESS
from frazil.model.parameter import Parameter

JOB = JobType(
    program="frazil-preprocess",
    lane_role=LaneRole.AUXILIARY,
    hold=Hold.UNTIL_DONE,
    gpu_memory_min_mib=PREPROCESS.gpu_memory_min_mib,
    cpu_memory_min_mib=PREPROCESS.cpu_memory_min_mib,
    title="Test of parameters on one exposure",
    parameters=(
        Parameter(name="exposure", default="", description="Identity of the exposure."),
        Parameter(name="parameters", default="{}", description="All parameters of a session, as JSON."),
    ),
)
