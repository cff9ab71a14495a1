"""Lanes, profiles and volumes in the ledger, cluster jobs, priorities, hand-over of slots."""

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"

_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables and columns; old rows get empty values."""
    op.create_table(
        "lane",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("options", sa.String(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "cluster_job",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", _COUNTER, nullable=False),
        sa.Column("lane", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("program", sa.String(), nullable=False),
        sa.Column("memory_min_mib", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("cluster_job_id", sa.String(), nullable=False),
        sa.Column("cluster_reason", sa.String(), nullable=False),
        sa.Column("submitted_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("ended_ns", sa.BigInteger(), nullable=False),
        sa.Column("follows", sa.String(), nullable=False),
        sa.Column("missed_mono", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("number"),
    )
    op.create_index("lease_by_node", "lease", ["node_id"], unique=False)
    op.create_index("cluster_job_open", "cluster_job", ["lane", "state"], unique=False)
    op.create_table(
        "profile",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("parameters", sa.LargeBinary(), nullable=False),
        sa.Column("compute", sa.LargeBinary(), nullable=False),
        sa.Column("saved_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "volume",
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["session.session_id"]),
        sa.PrimaryKeyConstraint("session_id", "revision"),
    )
    op.create_table(
        "templates",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("published_ns", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["session.session_id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "gpu_fault",
        sa.Column("number", _COUNTER, autoincrement=True, nullable=False),
        sa.Column("gpu_uuid", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("xid", sa.BigInteger(), nullable=False),
        sa.Column("seen_mono", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    for table, column in (
        ("session", _bytes("compute_next")),
        ("session", _bytes("slot_switch")),
        ("session", _text("streaming")),
        ("session", _bytes("class_selection")),
        ("session", _count("classes_cleared")),
        ("session", _seconds("started_mono")),
        ("session", _flag("delete_results")),
        ("session", _text("deletion_problem")),
        ("job", _count("priority")),
        ("job", _count("reset_epoch")),
        ("job", _text("gpus")),
        ("job", _text("parameters")),
        ("job", _flag("parked")),
        ("job", _flag("stalled")),
        ("job", _count("stalls")),
        ("job", _count("outgrown_mib")),
        ("job", _count("state_ns")),
        ("job", _seconds("progress_mono")),
        ("job", _seconds("running_mono")),
        ("job", _seconds("state_mono")),
        ("job", _seconds("updated_mono")),
        ("exposure", _text("failed_on")),
        ("node", _text("cluster_job_name")),
        ("slot", _text("drained")),
        ("slot", _text("handoff_session_id")),
    ):
        op.add_column(table, column)
    op.execute(
        "UPDATE session SET streaming = 'class2d_streaming' "
        "WHERE session_id IN (SELECT session_id FROM job WHERE job_type = 'class2d_streaming')"
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False, server_default="")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def _seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=False, server_default="0")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False, server_default="")
