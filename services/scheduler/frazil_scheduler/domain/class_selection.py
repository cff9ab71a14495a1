"""Which 2D classes are selected: by a person, else by thresholds and ranking; and beginning the classification anew."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import RowMapping, update

from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import compute, jobs, reconstruction, sessions, streaming
from frazil_scheduler.domain.stopping import is_bound, requeue
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

JOB_TYPE = "class2d_streaming"

_session = tables.session.c


def select(tx: Transaction, row: RowMapping, request: wire.SelectClassesRequest) -> wire.SelectClassesResponse:
    """Change what is selected and tell everybody; what the request does not name stays as it was.

    Raises FrazilError CLASS_AVERAGES_MISSING or CLASS_UNKNOWN for classes that there are not, CLASS_TWICE for one that is both
    selected and excluded, and THRESHOLD_INVALID.
    """
    thresholds = request.thresholds
    if min(thresholds.particle_count_min, thresholds.resolution_max_angstrom, thresholds.effective_classes_max) < 0:
        raise FrazilError("THRESHOLD_INVALID", "A threshold is negative; give a positive number, or 0 for none.")
    newest = reconstruction.newest_averages(tx, row)
    restarts = {} if newest is None else {one.class_number: one.restarts for one in newest.classes}
    named = [*request.select, *request.exclude, *request.release]
    _require_known(row, named, restarts)
    selection = reconstruction.selection_of(row)
    said = {} if request.release_all else {one.class_number: one for one in selection.overrides}
    for number in named:
        said.pop(number, None)
    for numbers, selected in ((request.select, True), (request.exclude, False)):
        for number in numbers:
            said[number] = wire.ClassOverride(class_number=number, selected=selected, restarts=restarts[number])
    changed = wire.ClassSelection(
        revision=selection.revision + 1,
        thresholds=thresholds if request.HasField("thresholds") else selection.thresholds,
        overrides=[said[number] for number in sorted(said)],
        all_particles=request.all_particles,
    )
    return _keep(tx, row, changed)


def reset(tx: Transaction, row: RowMapping, *, clear: bool) -> None:
    """Drop what streaming 2D classification has learnt; it begins anew, or with `clear` stops and loses its published classes.

    What a person said of single classes is dropped with them; thresholds stay.
    """
    if clear:
        streaming.stop_job(tx, row, JOB_TYPE)
        mine = _session.session_id == row["session_id"]
        values = {"classes_cleared": row["class_revision"], "particles_classified": 0, "changes": _session.changes + 1}
        tx.run(update(tables.session).where(mine).values(**values))
        tx.emit("class_averages_cleared", row["session_id"], class_averages=wire.ClassAverages(session_id=row["session_id"]))
    else:
        streaming.require(row, JOB_TYPE)
    for job in jobs.of_session(tx, row["session_id"]):
        if job["job_type"] == JOB_TYPE:
            jobs.change(tx, job, reset_epoch=job["epoch"])
            if not clear and compute.belongs(row, job) and (is_bound(tx, job) or job["state"] in jobs.TERMINAL):
                requeue(tx, job, "WAITING" if row["state"] in ("RUNNING", "COMPLETING") else "PAUSED")
    selection = reconstruction.selection_of(row)
    if selection.overrides:
        del selection.overrides[:]
        selection.revision += 1
        _keep(tx, sessions.require(tx, row["session_id"]), selection)


def tell(
    tx: Transaction,
    row: RowMapping,
    request: worker_pb2.ReadParticleBlocksRequest,
    reply: worker_pb2.ReadParticleBlocksResponse,
) -> None:
    """Tell a worker that takes particles of selected classes what it does not know of them.

    Its input ends when, besides, nothing of the classification is news to it and no more is to come: a classification that
    waits for a slot is not waited for, since the worker may hold it.
    """
    averages = reconstruction.newest_averages(tx, row) or wire.ClassAverages(selection=reconstruction.selection_of(row))
    if (averages.revision, averages.selection.revision) != (request.class_revision, request.selection_revision):
        reply.class_averages.CopyFrom(averages)
        reply.end_of_input = False
    elif averages.selection.revision and not averages.selection.all_particles:
        settled = averages.final and averages.particle_block_sequence >= row["block_sequence"]
        reply.end_of_input = reply.end_of_input and (settled or not _classifies(tx, row))


def _classifies(tx: Transaction, row: RowMapping) -> bool:
    return any(
        job["job_type"] == JOB_TYPE and job["state"] in ("STARTING", "RUNNING", "STOPPING")
        for job in jobs.of_session(tx, row["session_id"])
    )


def _keep(tx: Transaction, row: RowMapping, selection: wire.ClassSelection) -> wire.SelectClassesResponse:
    session_id = row["session_id"]
    values = {"class_selection": selection.SerializeToString()}
    tx.run(update(tables.session).where(_session.session_id == session_id).values(**values))
    tx.topics.add(f"session:{session_id}")
    averages = reconstruction.newest_averages(tx, sessions.require(tx, session_id))
    if averages is not None:
        tx.emit("classes_selected", session_id, class_averages=averages)
    return wire.SelectClassesResponse(selection=selection, class_averages=averages)


def _require_known(row: RowMapping, named: list[int], known: Iterable[int]) -> None:
    if not named:
        return
    if not known:
        sentence = f"Session {row['name']} has no class averages yet; select classes once they are there."
        raise FrazilError("CLASS_AVERAGES_MISSING", sentence, kind=ErrorKind.NOT_FOUND)
    unknown = sorted(set(named) - set(known))
    if unknown:
        words = ", ".join(str(number) for number in unknown)
        raise FrazilError("CLASS_UNKNOWN", f"There is no class {words}; session {row['name']} has 1 to {max(known)}.")
    if len(set(named)) < len(named):
        raise FrazilError("CLASS_TWICE", "A class is named twice: select it, exclude it or release it.")
