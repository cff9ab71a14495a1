"""The figures of the protocol, in one place."""

# Nodes: seconds of silence.
SUSPECT_SECONDS = 20.0  # display only
LOST_SECONDS = 60.0  # its jobs may go on elsewhere; its slots wait for proof

# GPUs: seconds.
PROGRAM_FAULTS_SECONDS = 3600.0  # programs' own errors of two different jobs within it are believed to be the GPU's

# Leases: seconds.
PROOF_SECONDS = 60.0  # from the worker's end to the quarantine of a slot that is not proven free
FINISH_SECONDS = 60.0  # from FinishJob to the kill of a worker that does not exit
DRAIN_PREPROCESSING_SECONDS = 120.0
DRAIN_RECONSTRUCTION_SECONDS = 180.0
START_AGAIN_SECONDS = 5.0
STOP_AGAIN_SECONDS = 10.0
PROBE_AGAIN_SECONDS = 15.0
PROBE_QUARANTINED_SECONDS = 30.0

# Exposures.
ATTEMPTS_MAX = 3
RESOURCE_FAILURES_MAX = 3
CRASH_BACKOFF_SECONDS = (10.0, 60.0)
INFRA_BACKOFF_SECONDS = 10.0
INFRA_ALARM = 20
OLDEST_EVERY = 5  # of the claims while files arrive
ARRIVING_SECONDS = 600.0
CLAIM_MAX = 2

# The breaker: when most of a session's last attempts failed, one exposure a minute is tried.
OUTCOME_WINDOW = 20
PROBE_SECONDS = 60.0

# A worker whose last attempts, on so many different exposures, all failed is not trusted.
WORKER_FAILURES_MAX = 5

# Jobs.
FAILURES_IN_ROW_MAX = 5
RESTART_BACKOFF_SECONDS = (1.0, 5.0, 15.0, 30.0)
REFUSED_BACKOFF_SECONDS = 5.0
PROGRESS_NOTED_SECONDS = 30.0  # how often progress is written down

PRIORITY_MAX = 100

# Sessions: minutes, where a person says nothing.
AUTO_PAUSE_IDLE_MINUTES = 10
UPDATE_INTERVAL_MINUTES = 20
TURN_MINUTES_MIN = 5
MINUTES_MAX = 7 * 24 * 60

# Disk.
DISK_FLOOR_BYTES = 2 * 1024**3
DISK_EXPOSURES = 2

# Text.
REASON_MAX_CHARACTERS = 2000
REQUESTS_KEPT = 200_000
CHECKPOINTS_KEPT = 3
CLASS_AVERAGES_KEPT = 2
VOLUMES_KEPT = 2  # of each kind

# Clusters. A lane's own `list_seconds` is the unit of what depends on its lists.
CLUSTER_DECIDE_SECONDS = 2.0  # between two decisions on what to ask for
CLUSTER_MISSED_LISTS = 3  # between the two lists that lack a job before it counts as not there
CLUSTER_REFUSED_LISTS = 6  # after a refusal until the lane asks again
CLUSTER_ATTEMPTS_MAX = 2  # cluster jobs in a row without progress of their job
CLUSTER_JOBS_KEPT = 1000  # that are over
