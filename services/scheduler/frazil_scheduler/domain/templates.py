"""Templates for the picker: what jobs published, and a session's choice of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import RowMapping, delete, insert, select

from frazil.api.reconstruction.v1.reconstruction_pb2 import Templates
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import jobs, reconstruction, sessions
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

PICKER = "template"

_templates = tables.templates.c


def publish(tx: Transaction, job: RowMapping, templates: Templates) -> worker_pb2.PublishTemplatesResponse:
    """Publish a job's templates; what the job published before, under a lost lease, is replaced."""
    for path in _paths(templates):
        reconstruction.check_path(path)
    mine = _templates.job_id == job["job_id"]
    before = tx.one(select(tables.templates).where(mine))
    tx.run(delete(tables.templates).where(mine))
    templates.session_id, templates.job_id = job["session_id"], job["job_id"]
    templates.publish_time.FromNanoseconds(tx.wall_ns)
    row = {"job_id": job["job_id"], "session_id": job["session_id"], "published_ns": tx.wall_ns}
    tx.run(insert(tables.templates).values(**row, body=templates.SerializeToString()))
    reconstruction.note_update(tx, job)
    tx.emit("templates_published", job["session_id"], templates=templates)
    jobs.note_progress(tx, job)
    expired = [] if before is None else _paths(Templates.FromString(before["body"]))
    return worker_pb2.PublishTemplatesResponse(expired_paths=[path for path in expired if path not in _paths(templates)])


def newest_first(tx: Transaction, session_id: str = "") -> list[Templates]:
    """Return the templates of a session, or of all."""
    wanted = select(tables.templates).order_by(_templates.published_ns.desc(), _templates.job_id)
    if session_id:
        wanted = wanted.where(_templates.session_id == session_id)
    return [Templates.FromString(row["body"]) for row in tx.all(wanted)]


def chosen(tx: Transaction, row: RowMapping, job_id: str, numbers: Sequence[int]) -> session_pb2.SessionParameters:
    """Return a session's parameters with the templates of a job: those of `numbers`, or those that the job suggests.

    Raises FrazilError TEMPLATES_UNKNOWN or TEMPLATE_UNKNOWN.
    """
    found = tx.one(select(tables.templates).where(_templates.job_id == job_id))
    if found is None:
        sentence = f"Job {job_id!r} has published no templates; `frazil templates list` shows those that there are."
        raise FrazilError("TEMPLATES_UNKNOWN", sentence, kind=ErrorKind.NOT_FOUND)
    templates = Templates.FromString(found["body"])
    wanted = sorted(set(numbers)) or [one.number for one in templates.templates if one.selected]
    unknown = sorted(set(wanted) - {one.number for one in templates.templates})
    if unknown:
        sentence = f"{job_id} has templates 1 to {len(templates.templates)}, no {', '.join(map(str, unknown))}."
        raise FrazilError("TEMPLATE_UNKNOWN", sentence)
    if not wanted:
        sentence = f"Every template of {job_id} is ranked as junk: name those to pick with by number."
        raise FrazilError("TEMPLATE_UNKNOWN", sentence)
    parameters = session_pb2.SessionParameters.FromString(row["parameters"])
    folder = Path(sessions.require(tx, found["session_id"])["folder"])
    parameters.picker = PICKER
    parameters.picker_templates_path = str(folder / templates.images)
    parameters.picker_template_numbers[:] = wanted
    del parameters.picker_shapes[:]  # the blob picker's
    return parameters


def _paths(templates: Templates) -> tuple[str, ...]:
    return (templates.images, templates.star, templates.sheet)
