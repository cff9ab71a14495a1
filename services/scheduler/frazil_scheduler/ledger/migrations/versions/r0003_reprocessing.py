"""What exposures were made with, changes of parameters that have yet to reach them, and curation."""

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision = "r0002"


def upgrade() -> None:
    """Add the columns; old results count as made with nothing known, and are redone whole when that is asked for."""
    for table, column in (
        ("session", _count("parameters_version")),
        ("session", _count("redo_version")),
        ("session", _text("redo_from")),
        ("session", _count("sweep_number")),
        ("session", sa.Column("thresholds", sa.LargeBinary(), nullable=False, server_default="")),
        ("session", _count("rejected")),
        ("exposure", _text("made_with")),
        ("exposure", _count("parameters_version")),
        ("exposure", sa.Column("outdated", sa.Boolean(), nullable=False, server_default=sa.false())),
        ("exposure", _text("override")),
        ("exposure", _text("rejected")),
        ("attempt", _text("made_with")),
        ("attempt", _count("parameters_version")),
    ):
        op.add_column(table, column)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False, server_default="")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
