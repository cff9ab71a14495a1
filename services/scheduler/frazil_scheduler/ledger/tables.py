"""The ledger's tables (SQLAlchemy Core, portable SQL). Times named `*_ns` are wall time; times named `*_mono` are seconds of
this scheduler's own clock, set anew at every start: no clock jump changes what happens."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData()

RUNNING = text("'RUNNING'")
"""Written out, not bound, so that the indexes of running attempts are used."""

Counter = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit integer; on SQLite the only kind that may be a row id."""


def _text(name: str, default: str = "") -> Column[str]:
    return Column(name, String, nullable=False, default=default)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, default=0)


def _seconds(name: str) -> Column[float]:
    return Column(name, Float, nullable=False, default=0.0)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, default=False)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False, default=b"")


meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    _count("term"),  # incarnation of the scheduler
    _count("epoch"),  # newest fencing token
    _count("job_sequence"),  # newest place in the queue
)

session = Table(
    "session",
    metadata,
    Column("session_id", String, primary_key=True),
    Column("number", Counter, nullable=False, unique=True),
    Column("name", String, nullable=False, unique=True),
    _text("state"),
    _text("folder"),
    _bytes("parameters"),
    _bytes("compute"),
    _bytes("compute_next"),  # from the next start on; empty: no change
    _bytes("slot_switch"),  # the newest hand-over of slots; empty: there was none
    _text("streaming"),  # job types of the streaming jobs that are wanted, one a line
    _bytes("scan"),
    _text("labels"),  # JSON
    _count("created_ns"),
    # Counters; found = ready + running + done + quarantined in every transaction.
    *(_count(name) for name in ("found", "ready", "running", "done", "quarantined")),
    *(_count(name) for name in ("particles", "block_sequence", "particles_classified", "class_revision")),
    _bytes("class_selection"),
    _count("classes_cleared"),  # newest revision of the classes that a person has taken away
    _count("claims"),  # every fifth takes the oldest
    _text("recent_outcomes"),  # of the last 20 attempts: "." done, "x" quarantined
    _seconds("probe_mono"),  # before it nothing is claimed while most attempts fail
    _seconds("arrival_mono"),  # when the newest movie was registered; 0: not since the scheduler's start
    _seconds("started_mono"),  # when it was started; the scheduler's start counts as one
    _count("expected_bytes"),  # what one exposure writes, about
    _text("disk_problem"),
    _text("job_problem"),
    _text("outcome_problem"),
    _flag("delete_results"),  # DELETING: its folder goes, too
    _text("deletion_problem"),  # why the folder is still there
    _count("parameters_version"),  # grows with every change of the parameters
    _count("redo_version"),  # what was made with older parameters must be up to date
    _text("redo_from"),  # stage from which this redo goes in any case
    _count("sweep_number"),  # number of the next exposure that a change has yet to reach; 0: it has reached all
    _bytes("thresholds"),  # intervals of attributes, as a Session that has nothing else
    _count("rejected"),  # exposures whose particles are not used
    _count("changes"),  # grows with every change of a counter
    _count("changes_told"),  # what the newest session event tells of
)

exposure = Table(
    "exposure",
    metadata,
    Column("exposure_id", String, primary_key=True),
    Column("session_id", String, ForeignKey("session.session_id"), nullable=False),
    _count("number"),
    _text("relative_path"),
    _count("generation"),
    _text("state"),
    _count("attempts"),  # that count
    _count("attempt_number"),  # of all attempts
    _count("resource_failures"),
    _count("infra_failures"),
    _seconds("not_before_mono"),
    _text("failed_on"),  # GPUs on which it is not tried again while there is another, one a line
    _text("failure"),
    _bytes("file"),
    _bytes("metadata"),
    _bytes("result"),
    _count("block_sequence"),  # of its live particle block; 0: none
    _count("block_particles"),
    _text("made_with"),  # digests of the stages of its result that are not stale
    _count("parameters_version"),  # of its result
    _flag("outdated"),  # its result is to be redone: its particles are not added again before
    _text("override"),  # a person's word: ACCEPT, REJECT or empty
    _text("rejected"),  # why its particles are not used
    _count("registered_ns"),
    _count("finished_ns"),
    UniqueConstraint("session_id", "relative_path"),
    UniqueConstraint("session_id", "number"),
)
Index("exposure_by_state", exposure.c.session_id, exposure.c.state, exposure.c.number)

attempt = Table(
    "attempt",
    metadata,
    Column("attempt_id", String, primary_key=True),
    Column("exposure_id", String, ForeignKey("exposure.exposure_id"), nullable=False),
    _count("generation"),
    _count("number"),
    _text("lease_id"),
    _count("epoch"),
    _count("claim_number"),  # order of claims within the session
    _text("folder"),
    _text("outcome"),  # RUNNING, then one of DONE INPUT RESOURCE CRASH INFRA RETURNED SUPERSEDED
    _text("detail"),
    _count("block_sequence"),
    _text("manifest_sha256"),
    _text("made_with"),  # digests of the stages, by the parameters it was claimed with
    _count("parameters_version"),
    _count("started_ns"),
    _count("ended_ns"),
    UniqueConstraint("exposure_id", "number"),
)
Index("attempt_by_lease", attempt.c.lease_id, attempt.c.outcome)
Index(
    "attempt_one_running",
    attempt.c.exposure_id,
    unique=True,
    sqlite_where=text("outcome = 'RUNNING'"),
    postgresql_where=text("outcome = 'RUNNING'"),
)

particle_block = Table(
    "particle_block",
    metadata,
    Column("session_id", String, ForeignKey("session.session_id"), nullable=False),
    _count("sequence"),
    _text("exposure_id"),
    _count("exposure_number"),
    _text("kind"),  # ADD or RETRACT
    _count("particle_count"),
    _text("particles"),
    _text("particle_table"),
    _count("retracts_sequence"),
    PrimaryKeyConstraint("session_id", "sequence"),
)

job = Table(
    "job",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("sequence", Counter, nullable=False, unique=True),
    Column("session_id", String, ForeignKey("session.session_id"), nullable=False, index=True),
    _text("job_type"),
    _text("lane"),
    _text("program"),
    _count("gpu_memory_min_mib"),
    _count("cpu_memory_min_mib"),
    _count("outgrown_mib"),  # memory of the slot on which its worker ran out of it; 0: never
    _flag("indefinite"),
    _count("priority"),  # 0 to 100; the highest is served first
    _text("gpus"),  # GPU uuids or slot keys it is bound to, one a line; empty: its whole lane
    _text("parameters"),  # of an auxiliary job, JSON
    _seconds("drain_seconds"),  # how long a stop may take
    _text("state"),
    _text("stop_to"),  # where STOPPING leads: PAUSED, CANCELLED, FAILED or WAITING
    _text("reason"),
    _text("progress"),
    _count("failures"),
    _count("failures_in_row"),  # without progress
    _count("stalls"),  # restarts of its worker in a row because it lived and made no progress
    _seconds("not_before_mono"),
    _text("lease_id"),  # newest
    _count("epoch"),  # newest
    _count("reset_epoch"),  # newest when what it had found was dropped: what comes under older ones counts no more
    _flag("progressed"),  # something was committed under the newest lease
    _flag("parked"),  # another job of its session uses its slot for a while
    _flag("stalled"),
    _count("state_ns"),  # since when it is in its state
    _seconds("progress_mono"),  # when it last made progress
    _seconds("running_mono"),  # since when it runs
    _seconds("state_mono"),  # since when it is in its state
    _seconds("updated_mono"),  # when it last saved or published
)

node = Table(
    "node",
    metadata,
    Column("node_id", String, primary_key=True),
    _text("state"),
    _text("boot_id"),
    _text("incarnation"),
    _text("programs"),  # one a line
    _count("hello_term"),  # the scheduler it has dialled in to; 0: it is not connected
    _count("seen_ns"),
    _text("cluster_job_name"),  # of the cluster job that carries its agent
)

slot = Table(
    "slot",
    metadata,
    Column("node_id", String, ForeignKey("node.node_id"), nullable=False),
    _text("slot_key"),
    _text("kind"),
    _text("device_name"),
    _count("memory_mib"),
    _flag("present"),  # in its agent's newest Hello
    _text("quarantined"),  # why
    _text("quarantine_kind"),
    _flag("clear_asked"),
    _text("drained"),  # why it gets no new job
    _text("handoff_session_id"),  # only this session's jobs get it
    _text("stray_lease_id"),  # a lease that is not in the ledger holds it: its death must be proven first
    _count("stray_epoch"),
    PrimaryKeyConstraint("node_id", "slot_key"),
)

lease = Table(
    "lease",
    metadata,
    Column("lease_id", String, primary_key=True),
    Column("epoch", Counter, nullable=False, unique=True),
    _text("slot_key"),
    _text("node_id"),
    Column("job_id", String, ForeignKey("job.job_id"), nullable=False, index=True),
    _text("boot_id"),
    _text("state"),
    _text("stop"),  # DRAIN, KILL or empty
    _flag("dead"),
    _flag("released"),
    _seconds("stop_seconds"),
    _seconds("stop_mono"),  # when DRAIN becomes KILL
    _seconds("overdue_mono"),  # when a missing proof quarantines the slot
    _count("failures_in_row"),  # of its attempts, by the worker's or the exposure's fault
    _text("ended_by"),  # why its job was let go
    _count("granted_ns"),
    _count("closed_ns"),
)
Index(
    "lease_one_open",
    lease.c.slot_key,
    unique=True,
    sqlite_where=text("state <> 'CLOSED'"),
    postgresql_where=text("state <> 'CLOSED'"),
)
Index("lease_by_node", lease.c.node_id)
Index(
    "lease_one_job",
    lease.c.job_id,
    unique=True,
    sqlite_where=text("NOT released"),
    postgresql_where=text("NOT released"),
)

gpu_fault = Table(
    "gpu_fault",
    metadata,
    Column("number", Counter, primary_key=True, autoincrement=True),
    _text("gpu_uuid"),
    _text("job_id"),  # that died of it
    _count("xid"),
    _seconds("seen_mono"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("job_id", String, ForeignKey("job.job_id"), nullable=False),
    _count("number"),
    _count("epoch"),
    _count("cursor_sequence"),
    _text("path"),
    _text("sha256"),
    PrimaryKeyConstraint("job_id", "number"),
)

class_averages = Table(
    "class_averages",
    metadata,
    Column("session_id", String, ForeignKey("session.session_id"), nullable=False),
    _count("revision"),
    _bytes("body"),
    PrimaryKeyConstraint("session_id", "revision"),
)

volume = Table(
    "volume",
    metadata,
    Column("session_id", String, ForeignKey("session.session_id"), nullable=False),
    _count("revision"),
    _count("kind"),
    _bytes("body"),
    PrimaryKeyConstraint("session_id", "revision"),
)

templates = Table(
    "templates",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("session_id", String, ForeignKey("session.session_id"), nullable=False),
    Column("published_ns", BigInteger, nullable=False),
    _bytes("body"),
)

lane = Table(
    "lane",
    metadata,
    Column("name", String, primary_key=True),
    _text("backend"),
    _text("options"),  # JSON
    _count("created_ns"),
)

cluster_job = Table(
    "cluster_job",
    metadata,
    Column("name", String, primary_key=True),  # also its name on the cluster: an unknown submission is found again by it
    Column("number", Counter, nullable=False, unique=True),
    _text("lane"),
    _text("job_id"),  # whose need it was asked for
    _text("program"),
    _count("memory_min_mib"),  # of its slot: a GPU's memory, or the host's in a lane of processors
    _text("state"),  # SUBMITTING, PENDING, RUNNING, CANCELLING, ENDED
    _text("cluster_job_id"),
    _text("cluster_reason"),
    _count("submitted_ns"),
    _count("end_ns"),  # when the cluster will end it; 0: not known
    _count("ended_ns"),
    _text("follows"),  # the cluster job whose lease it is to take over before that one's time is up
    _seconds("missed_mono"),  # since when the cluster does not list it; 0: it does
)
Index("cluster_job_open", cluster_job.c.lane, cluster_job.c.state)

profile = Table(
    "profile",
    metadata,
    Column("name", String, primary_key=True),
    _text("description"),
    _bytes("parameters"),
    _bytes("compute"),
    _count("saved_ns"),
)

request = Table(
    "request",
    metadata,
    Column("sequence", Counter, primary_key=True, autoincrement=True),
    Column("request_id", String, nullable=False, unique=True),
    _text("method"),
    _bytes("digest"),
    _bytes("reply"),
)

event = Table(
    "event",
    metadata,
    Column("sequence", Counter, primary_key=True, autoincrement=False),
    _text("session_id"),
    _bytes("body"),
)
Index("event_by_session", event.c.session_id, event.c.sequence)
