"""Brings the ledger's tables up to date at every start."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from frazil.model.errors import FrazilError


def migrate(connection: Connection) -> None:
    """Apply every missing revision, in one transaction. Raises FrazilError LEDGER_TOO_NEW for an unknown one."""
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
