"""Brings the ledger's tables up to date at every start."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from frazil.model.errors import FrazilError
from frazil_scheduler.ledger import tables


def migrate(connection: Connection) -> None:
    """Apply every missing revision, in one transaction.

    Raises FrazilError LEDGER_TOO_NEW for an unknown revision, and LEDGER_UNUSABLE where the tables are not those of the newest.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    with connection.begin():
        present = MigrationContext.configure(connection).get_current_revision()
        if present is not None and present not in known:
            raise FrazilError(
                "LEDGER_TOO_NEW", f"The ledger was written by a newer Frazil (revision {present}); install that one or newer."
            )
        command.upgrade(config, "head")
        _check_columns(connection)


def _check_columns(connection: Connection) -> None:
    """Refuse a ledger made while its revision was still being written, or changed by hand, before anything fails on it."""
    inspector = inspect(connection)
    present = {(table, column["name"]) for (_, table), columns in inspector.get_multi_columns().items() for column in columns}
    wanted = {(table.name, column.name) for table in tables.metadata.sorted_tables for column in table.columns}
    if lacking := sorted(wanted - present):
        table, column = lacking[0]
        raise FrazilError(
            "LEDGER_UNUSABLE",
            f"The ledger has no {table}.{column}: an unfinished version of Frazil made it. Begin with an empty data_dir;"
            " results on disk stay as they are.",
        )
