"""Run by alembic: applies revisions on the connection, and in the transaction, that `migrate` passes in."""

from alembic import context

from frazil_scheduler.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
