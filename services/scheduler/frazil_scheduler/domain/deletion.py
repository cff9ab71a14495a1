"""Deleting a session in steps that a crash may part: marked, folder out of the way, folder gone, rows gone.

The row in state DELETING is what is resumed after a restart; it goes last. A session's folder holds a mark with the session's
identity: a folder without it is never touched. Movies lie elsewhere and are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping, Select, delete, select, update

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import leases, sessions
from frazil_scheduler.ledger import records, tables
from frazil_scheduler.ledger.transaction import Transaction

MARK = ".frazil-session"
ROWS_AT_ONCE = 2000

_session = tables.session.c
_lease = tables.lease.c
_job = tables.job.c
_exposure = tables.exposure.c


def make_folder(folder: Path, session_id: str) -> None:
    """Make a new session's folder and mark it as its own; one that holds something without any mark is used unmarked.

    Raises FrazilError SESSION_FOLDER_UNUSABLE, or SESSION_FOLDER_TAKEN when it holds results of another session.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / MARK
        others = any(path.name != MARK for path in folder.iterdir())
        if others and mark.exists() and mark.read_text().strip() != session_id:
            raise FrazilError(
                "SESSION_FOLDER_TAKEN",
                f"{folder} holds the results of a session that was deleted; choose another name, or move that folder away.",
                kind=ErrorKind.ALREADY_EXISTS,
            )
        if not others:
            mark.write_text(session_id + "\n")
    except OSError as error:
        raise FrazilError("SESSION_FOLDER_UNUSABLE", f"Cannot make the session's folder {folder}: {error.strerror}.") from error


def check_folder(folder: Path, data_dir: Path, session_id: str) -> None:
    """Raise FrazilError SESSION_FOLDER_FOREIGN for a folder that must not be deleted; one that is gone is fine."""
    if not folder.exists() and not folder.is_symlink():
        return
    mark = folder / MARK
    own = folder.parent == data_dir and not folder.is_symlink() and folder.is_dir()
    if not own or not mark.is_file() or mark.read_text().strip() != session_id:
        raise FrazilError(
            "SESSION_FOLDER_FOREIGN",
            f"{folder} is not marked as this session's alone, so it is not deleted; delete the session without its results, "
            "then the folder by hand.",
            kind=ErrorKind.CONFLICT,
        )


def begin(tx: Transaction, row: RowMapping, *, delete_results: bool) -> None:
    """Mark a session as being deleted.

    Raises FrazilError SESSION_STATE_WRONG, SESSION_HOLDS_SLOTS while it may, or RESULTS_IN_USE when another session needs them.
    """
    if row["state"] not in ("PAUSED", "COMPLETED"):
        sentence = f"Session {row['name']} is {row['state'].lower()}; pause it, then it can be deleted."
        raise FrazilError("SESSION_STATE_WRONG", sentence, kind=ErrorKind.CONFLICT)
    held = tx.all(
        select(_lease.slot_key, _lease.node_id)
        .join(tables.job)
        .where(_job.session_id == row["session_id"], leases.OPEN)
        .order_by(_lease.slot_key)
    )
    if held:
        slots = ", ".join(f"{lease['slot_key']} of {lease['node_id']}" for lease in held)
        sentence = f"Session {row['name']} may still have processes on {slots}: wait for the proof that it is free, or fence."
        raise FrazilError("SESSION_HOLDS_SLOTS", sentence, kind=ErrorKind.CONFLICT)
    if delete_results:
        _require_unused(tx, row)
    _change(tx, row, "session_deleting", state="DELETING", delete_results=delete_results)


def _require_unused(tx: Transaction, row: RowMapping) -> None:
    """Refuse to delete files that another session picks with, or starts its refinement from."""
    for other in tx.all(select(tables.session).where(_session.session_id != row["session_id"])):
        parameters = session_pb2.SessionParameters.FromString(other["parameters"])
        for path in (parameters.picker_templates_path, parameters.initial_volume_path):
            if path and Path(path).is_relative_to(row["folder"]):
                sentence = f"Session {other['name']} uses {path}: delete that session first, or this one without its results."
                raise FrazilError("RESULTS_IN_USE", sentence, kind=ErrorKind.CONFLICT)


def pending(tx: Transaction) -> Sequence[RowMapping]:
    """Return the sessions that are being deleted."""
    return tx.all(select(tables.session).where(_session.state == "DELETING").order_by(_session.number))


def clear_folder(row: RowMapping, data_dir: Path, stop: Callable[[], bool]) -> str:
    """Delete a session's folder, first out of the way by one renaming; return why that failed, or nothing.

    May be repeated after any crash. Blocks for as long as the file system takes, or until `stop` says so.
    """
    folder, aside = Path(row["folder"]), data_dir / f".deleting-{row['session_id']}"
    try:
        if not aside.exists() and folder.exists():
            check_folder(folder, data_dir, row["session_id"])
            folder.rename(aside)
        if aside.exists():
            _remove(aside, stop)
    except FrazilError as error:
        return error.sentence
    except OSError as error:
        return f"The folder {error.filename or aside} cannot be deleted: {error.strerror}; it is tried again."
    return ""


def _remove(folder: Path, stop: Callable[[], bool]) -> None:
    """Remove a folder from its leaves; links are removed, never followed."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, topdown=False, onerror=fail):
        if stop():
            return
        for name in files:
            Path(parent, name).unlink(missing_ok=True)
        for name in folders:
            path = Path(parent, name)
            path.unlink() if path.is_symlink() else path.rmdir()
    folder.rmdir()


def set_problem(tx: Transaction, session_id: str, problem: str) -> None:
    """Say why a session's folder is still there."""
    row = sessions.require(tx, session_id)
    if row["deletion_problem"] != problem:
        _change(tx, row, "session_attention", deletion_problem=problem)


def forget_some(tx: Transaction, session_id: str) -> bool:
    """Delete some of a session's rows, at last the session's own; tell whether it is gone."""
    block = tables.particle_block.c
    mine = block.session_id == session_id
    newest = _some(tx, select(block.sequence).where(mine).order_by(block.sequence.desc()))
    if newest:
        tx.run(delete(tables.particle_block).where(mine, block.sequence >= newest[-1]))
        return False
    exposures = _some(tx, select(_exposure.exposure_id).where(_exposure.session_id == session_id))
    if exposures:
        tx.run(delete(tables.attempt).where(tables.attempt.c.exposure_id.in_(exposures)))
        tx.run(delete(tables.exposure).where(_exposure.exposure_id.in_(exposures)))
        return False
    job_ids = _some(tx, select(_job.job_id).where(_job.session_id == session_id))
    if job_ids:
        for table in (tables.checkpoint, tables.lease, tables.job):
            tx.run(delete(table).where(table.c.job_id.in_(job_ids)))
        return False
    for table in (tables.class_averages, tables.volume, tables.templates):
        tx.run(delete(table).where(table.c.session_id == session_id))
    tx.emit("session_deleted", session_id, session=records.session_record(sessions.require(tx, session_id)))
    tx.run(delete(tables.session).where(_session.session_id == session_id))
    tx.topics |= {f"session:{session_id}", "sessions"}
    return True


def _some(tx: Transaction, statement: Select[Any]) -> list[Any]:
    return list(tx.connection.execute(statement.limit(ROWS_AT_ONCE)).scalars())


def _change(tx: Transaction, row: RowMapping, kind: str, **values: Any) -> None:
    mine = _session.session_id == row["session_id"]
    tx.run(update(tables.session).where(mine).values(changes=_session.changes + 1, **values))
    tx.changed_sessions[row["session_id"]] = kind
    tx.topics |= {f"session:{row['session_id']}", "sessions"}
