"""What streaming jobs leave behind: checkpoints to resume from and published class averages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sqlalchemy import RowMapping, delete, func, insert, select, update

from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import jobs, limits
from frazil_scheduler.ledger import records, statements, tables
from frazil_scheduler.ledger.transaction import Transaction

_checkpoint = tables.checkpoint.c
_averages = tables.class_averages.c
_session = tables.session.c


def checkpoints(tx: Transaction, job_id: str) -> Sequence[RowMapping]:
    """Return a job's checkpoints, newest first."""
    return tx.all(select(tables.checkpoint).where(_checkpoint.job_id == job_id).order_by(_checkpoint.number.desc()))


def commit_checkpoint(
    tx: Transaction, job: RowMapping, checkpoint: worker_pb2.Checkpoint
) -> worker_pb2.CommitCheckpointResponse:
    """Make a checkpoint the one to resume from; the last three are kept.

    Under one lease the number must grow and the cursor must not go back: else FrazilError CHECKPOINT_OUT_OF_ORDER. A new
    lease may have resumed from an older checkpoint, because newer ones were damaged or the job was reset: those it overtakes
    are dropped. What a worker still brings of a job that was reset counts for nothing.
    """
    check_path(checkpoint.path)
    if job["epoch"] <= job["reset_epoch"]:
        return worker_pb2.CommitCheckpointResponse(expired_paths=[checkpoint.path])
    known = checkpoints(tx, job["job_id"])
    mine = [row for row in known if row["epoch"] == job["epoch"]]
    if mine and (checkpoint.number <= mine[0]["number"] or checkpoint.cursor_sequence < mine[0]["cursor_sequence"]):
        raise FrazilError(
            "CHECKPOINT_OUT_OF_ORDER",
            f"Checkpoint {checkpoint.number} at block {checkpoint.cursor_sequence} does not follow checkpoint "
            f"{mine[0]['number']} at block {mine[0]['cursor_sequence']}.",
        )
    overtaken = [row for row in known if row["number"] >= checkpoint.number]
    older = [row for row in known if row["number"] < checkpoint.number]
    expired = [*overtaken, *older[limits.CHECKPOINTS_KEPT - 1 :]]
    for row in expired:
        one = (_checkpoint.job_id == job["job_id"]) & (_checkpoint.number == row["number"])
        tx.run(delete(tables.checkpoint).where(one))
    tx.run(
        insert(tables.checkpoint).values(
            job_id=job["job_id"],
            number=checkpoint.number,
            epoch=job["epoch"],
            cursor_sequence=checkpoint.cursor_sequence,
            path=checkpoint.path,
            sha256=checkpoint.sha256,
        )
    )
    jobs.note_progress(tx, job)
    note_update(tx, job)
    kept = {checkpoint.path, *(row["path"] for row in older[: limits.CHECKPOINTS_KEPT - 1])}
    return worker_pb2.CommitCheckpointResponse(expired_paths=[row["path"] for row in expired if row["path"] not in kept])


def publish(
    tx: Transaction, job: RowMapping, averages: reconstruction_pb2.ClassAverages
) -> worker_pb2.PublishClassAveragesResponse:
    """Publish class averages under the next revision; the last two revisions are kept."""
    for path in _paths(averages):
        check_path(path)
    if job["epoch"] <= job["reset_epoch"]:
        return worker_pb2.PublishClassAveragesResponse(expired_paths=filter(None, _paths(averages)))
    session_id = job["session_id"]
    revision: int = tx.scalar(select(_session.class_revision).where(_session.session_id == session_id)) + 1
    averages.session_id, averages.job_id, averages.revision = session_id, job["job_id"], revision
    averages.publish_time.FromNanoseconds(tx.wall_ns)
    tx.run(insert(tables.class_averages).values(session_id=session_id, revision=revision, body=averages.SerializeToString()))
    values = {"class_revision": revision, "particles_classified": averages.particle_count, "changes": _session.changes + 1}
    tx.run(update(tables.session).where(_session.session_id == session_id).values(**values))
    note_update(tx, job)
    tx.topics.add(f"session:{session_id}")
    selected(averages, _without_lapsed(tx, tx.only(statements.SESSION, key=session_id), averages))
    tx.emit("class_averages_published", session_id, class_averages=averages)
    jobs.note_progress(tx, job)
    return worker_pb2.PublishClassAveragesResponse(revision=revision, expired_paths=_expire(tx, session_id))


def cursor(tx: Transaction, job_id: str) -> int:
    """Return the sequence of the newest particle block that a streaming job has kept in a checkpoint."""
    since = select(tables.job.c.reset_epoch).where(tables.job.c.job_id == job_id).scalar_subquery()
    mine = (_checkpoint.job_id == job_id) & (_checkpoint.epoch > since)
    return tx.scalar(select(func.max(_checkpoint.cursor_sequence)).where(mine)) or 0


def newest_averages(tx: Transaction, session: RowMapping) -> reconstruction_pb2.ClassAverages | None:
    """Return the newest class averages of a session that nobody has taken away, with what is selected."""
    rows = _revisions(tx, session["session_id"])
    if not rows or rows[0]["revision"] <= session["classes_cleared"]:
        return None
    return selected(_parse(rows[0]), selection_of(session))


def selection_of(session: RowMapping) -> reconstruction_pb2.ClassSelection:
    """Return by what a session's classes are selected."""
    return reconstruction_pb2.ClassSelection.FromString(session["class_selection"])


def selected(
    averages: reconstruction_pb2.ClassAverages, selection: reconstruction_pb2.ClassSelection
) -> reconstruction_pb2.ClassAverages:
    """Say in class averages which classes are selected: a person wins over thresholds and ranking."""
    said = {one.class_number: one.selected for one in selection.overrides}
    for one in averages.classes:
        person = said.get(one.class_number)
        one.selected = _suggested(one, selection.thresholds) if person is None else person
    averages.selection.CopyFrom(selection)
    averages.selected_particle_count = sum(one.particle_count for one in averages.classes if one.selected)
    return averages


def _without_lapsed(
    tx: Transaction, session: RowMapping, averages: reconstruction_pb2.ClassAverages
) -> reconstruction_pb2.ClassSelection:
    """Forget what a person said of classes that have begun anew since, tell people, and return what is left."""
    selection = selection_of(session)
    restarts = {one.class_number: one.restarts for one in averages.classes}
    kept = [one for one in selection.overrides if restarts.get(one.class_number, one.restarts) == one.restarts]
    lapsed = [str(one.class_number) for one in selection.overrides if one not in kept]
    if lapsed:
        del selection.overrides[:]
        selection.overrides.extend(kept)
        selection.revision += 1
        mine = _session.session_id == session["session_id"]
        tx.run(update(tables.session).where(mine).values(class_selection=selection.SerializeToString()))
        which = f"2D class {lapsed[0]}" if len(lapsed) == 1 else f"2D classes {', '.join(lapsed)}"
        sentence = f"{which} of {session['name']} began anew and shows something else now: select or exclude it again."
        tx.notice("warning", sentence, session["session_id"])
    return selection


def _suggested(one: reconstruction_pb2.ClassAverage, thresholds: reconstruction_pb2.ClassThresholds) -> bool:
    resolved = one.resolution_angstrom if one.HasField("resolution_angstrom") else math.inf
    return (
        one.particle_count >= max(thresholds.particle_count_min, 1)
        and resolved <= (thresholds.resolution_max_angstrom or math.inf)
        and one.effective_classes <= (thresholds.effective_classes_max or math.inf)
        and (thresholds.ignore_ranking or not one.junk)
    )


def attach(tx: Transaction, job: RowMapping, session: RowMapping) -> worker_pb2.AttachResponse:
    """Return what a worker is to do."""
    return worker_pb2.AttachResponse(
        job_id=job["job_id"],
        job_type=job["job_type"],
        session=records.session_record(session),
        checkpoints=[
            records.checkpoint_record(row) for row in checkpoints(tx, job["job_id"]) if row["epoch"] > job["reset_epoch"]
        ],
    )


def note_update(tx: Transaction, job: RowMapping) -> None:
    """Note when a job has last kept or shown what it found."""
    tx.run(update(tables.job).where(tables.job.c.job_id == job["job_id"]).values(updated_mono=tx.mono))


def check_path(path: str) -> None:
    """Refuse a path that could lead out of the session's folder: workers delete the paths they are told have expired."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise FrazilError("PATH_INVALID", f"{path!r} must be relative to the session's folder, without '..'.")


def _expire(tx: Transaction, session_id: str) -> list[str]:
    rows = _revisions(tx, session_id)
    kept = {path for row in rows[: limits.CLASS_AVERAGES_KEPT] for path in _paths(_parse(row))}
    expired: list[str] = []
    for row in rows[limits.CLASS_AVERAGES_KEPT :]:
        expired += [path for path in _paths(_parse(row)) if path and path not in kept]
        one = (_averages.session_id == session_id) & (_averages.revision == row["revision"])
        tx.run(delete(tables.class_averages).where(one))
    return expired


def _revisions(tx: Transaction, session_id: str) -> Sequence[RowMapping]:
    return tx.all(select(tables.class_averages).where(_averages.session_id == session_id).order_by(_averages.revision.desc()))


def _parse(row: RowMapping) -> reconstruction_pb2.ClassAverages:
    return reconstruction_pb2.ClassAverages.FromString(row["body"])


def _paths(averages: reconstruction_pb2.ClassAverages) -> tuple[str, ...]:
    return (averages.averages, averages.sheet, averages.assignments)
