"""The statements of claims, commits and registrations, built once.

To build and hash a statement takes SQLAlchemy longer than to run it takes the database. A row is named by the parameter `key`;
the other parameters of a CHANGE_… are the columns to set.
"""

from __future__ import annotations

from sqlalchemy import Column, Select, Update, bindparam, func, select, text, update

from frazil_scheduler.ledger import tables


def _row(column: Column[str]) -> Select[tuple[object, ...]]:
    return select(column.table).where(column == bindparam("key"))


def _change(column: Column[str]) -> Update:
    return update(column.table).where(column == bindparam("key"))


ATTEMPT = _row(tables.attempt.c.attempt_id)
EXPOSURE = _row(tables.exposure.c.exposure_id)
JOB = _row(tables.job.c.job_id)
LEASE = _row(tables.lease.c.lease_id)
REQUEST = _row(tables.request.c.request_id)
SESSION = _row(tables.session.c.session_id)
SESSION_BY_NAME = _row(tables.session.c.name)

CHANGE_ATTEMPT = _change(tables.attempt.c.attempt_id)
CHANGE_EXPOSURE = _change(tables.exposure.c.exposure_id)
CHANGE_SESSION = _change(tables.session.c.session_id)

SAVEPOINT, ROLLBACK, RELEASE = text("SAVEPOINT one"), text("ROLLBACK TO SAVEPOINT one"), text("RELEASE SAVEPOINT one")

NEWEST_EVENT = select(func.max(tables.event.c.sequence))
