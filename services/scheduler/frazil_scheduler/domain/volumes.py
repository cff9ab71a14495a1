"""Published volumes, and the one that a refinement starts from."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, delete, func, insert, select, update

from frazil import jobs as declarations
from frazil.api.reconstruction.v1.reconstruction_pb2 import Volume
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import jobs, limits, reconstruction
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_volume = tables.volume.c
_session = tables.session.c


def publish(tx: Transaction, job: RowMapping, volume: Volume) -> worker_pb2.PublishVolumeResponse:
    """Publish a volume under the session's next revision; the last two of its kind are kept."""
    for path in _paths(volume):
        reconstruction.check_path(path)
    session_id = job["session_id"]
    revision = 1 + (tx.scalar(select(func.max(_volume.revision)).where(_volume.session_id == session_id)) or 0)
    volume.session_id, volume.job_id, volume.revision = session_id, job["job_id"], revision
    volume.publish_time.FromNanoseconds(tx.wall_ns)
    row = {"session_id": session_id, "revision": revision, "kind": volume.kind, "body": volume.SerializeToString()}
    tx.run(insert(tables.volume).values(**row))
    tx.run(update(tables.session).where(_session.session_id == session_id).values(changes=_session.changes + 1))
    reconstruction.note_update(tx, job)
    tx.emit("volume_published", session_id, volume=volume)
    jobs.note_progress(tx, job)
    return worker_pb2.PublishVolumeResponse(revision=revision, expired_paths=_expire(tx, session_id, volume.kind))


def newest(tx: Transaction, session_id: str, kind: int = Volume.KIND_UNSPECIFIED) -> Volume | None:
    """Return the newest volume of a kind, or of any."""
    rows = _revisions(tx, session_id, kind)
    return Volume.FromString(rows[0]["body"]) if rows else None


def newest_path(tx: Transaction, session_id: str) -> str:
    """Return the path of the newest volume, a refined one before an ab-initio one; empty when there is none."""
    kinds = (Volume.KIND_REFINEMENT, Volume.KIND_AB_INITIO)
    found = next((volume for kind in kinds if (volume := newest(tx, session_id, kind)) is not None), None)
    return "" if found is None else found.volume


def start_volume(tx: Transaction, session: RowMapping) -> str:
    """Return the path of the volume that refinement starts from: the one a person named, else the newest ab-initio one."""
    named = session_pb2.SessionParameters.FromString(session["parameters"]).initial_volume_path
    found = None if named else newest(tx, session["session_id"], Volume.KIND_AB_INITIO)
    return found.volume if found is not None else named


def require_start(tx: Transaction, session: RowMapping, job_type: str) -> None:
    """Raise FrazilError VOLUME_MISSING for a job that starts from a volume in a session that has none."""
    if declarations.load(job_type).starts_from_volume and not start_volume(tx, session):
        raise FrazilError(
            "VOLUME_MISSING",
            f"{jobs.title(job_type)} needs a volume to start from: make one by `frazil job submit {session['name']} abinitio`, "
            "or give the session an initial volume when it is created.",
        )


def _expire(tx: Transaction, session_id: str, kind: int) -> list[str]:
    rows = _revisions(tx, session_id, kind)
    kept = {path for row in rows[: limits.VOLUMES_KEPT] for path in _paths(Volume.FromString(row["body"]))}
    expired: list[str] = []
    for row in rows[limits.VOLUMES_KEPT :]:
        expired += [path for path in _paths(Volume.FromString(row["body"])) if path and path not in kept]
        tx.run(delete(tables.volume).where(_volume.session_id == session_id, _volume.revision == row["revision"]))
    return expired


def _revisions(tx: Transaction, session_id: str, kind: int) -> Sequence[RowMapping]:
    mine = select(tables.volume).where(_volume.session_id == session_id)
    if kind != Volume.KIND_UNSPECIFIED:
        mine = mine.where(_volume.kind == kind)
    return tx.all(mine.order_by(_volume.revision.desc()))


def _paths(volume: Volume) -> list[str]:
    own = [volume.volume, volume.sharpened, volume.half1, volume.half2, volume.mask, volume.sheet, volume.poses]
    return list(dict.fromkeys([*own, *(one.volume for one in volume.classes)]))
