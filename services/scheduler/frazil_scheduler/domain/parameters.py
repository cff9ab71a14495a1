"""Changed parameters: which exposures are redone from which stage, and the sweep that puts them back into the queue.

A change is one transaction. The sweep goes through a session's exposures by number, with its cursor in the ledger, so that a
large session never holds the writer and a crash loses nothing (docs/decisions/0007-stage-digests.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping, func, select, update

from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil.model.stages import PARAMETERS, STAGES, first_stale
from frazil.rpc.convert import stage_digests
from frazil_scheduler.domain import curation, exposures
from frazil_scheduler.ledger import statements, tables
from frazil_scheduler.ledger.transaction import Transaction

SWEEP = 200  # exposures in one transaction

_session = tables.session.c
_exposure = tables.exposure.c
_attempt = tables.attempt.c

_OF_THE_SESSION = ("movie_folder", "metadata_folder", "until")
"""What makes another session of it."""

_GRID = {*PARAMETERS["motion"], *PARAMETERS["extract"], "particle_diameter_angstrom", "particle_diameter_max_angstrom"} - {
    "voltage_kv",
    "dose_per_frame_e_per_angstrom2",
    "total_dose_e_per_angstrom2",
    "gain_path",
    "gain_flip",
    "gain_rotate",
    "gain_sense",
    "defects_path",
    "seed",
    "eer_fractions",
    "eer_dose_per_fraction_e_per_angstrom2",
}
"""What box and pixel size of the particles may depend on."""


def digests(session: Mapping[Any, Any]) -> Sequence[str]:
    """Return the digests of a session's stages."""
    return _digests(session["parameters"])


@lru_cache(maxsize=256)
def _digests(parameters: bytes) -> Sequence[str]:
    return stage_digests(session_pb2.SessionParameters.FromString(parameters))


def stage_to_redo(session: Mapping[Any, Any], made_with: str, version: int) -> str:
    """Return the first stage that a result must be redone from; "" when it may stay as it is."""
    if version >= session["redo_version"]:
        return ""
    stale, asked = first_stale(made_with.split(), digests(session)), session["redo_from"]
    return min((stage for stage in (stale, asked) if stage), key=STAGES.index, default="")


def kept_digests(made_with: str, stage: str) -> str:
    """Return the digests of what stays when an exposure is redone from a stage on."""
    return " ".join(made_with.split()[: STAGES.index(stage)])


def change(tx: Transaction, row: RowMapping, request: session_pb2.UpdateParametersRequest) -> tuple[RowMapping, dict[str, int]]:
    """Give a session other parameters, checked before; return it, and how many exposures are redone by their first stage.

    Raises FrazilError SESSION_STATE_WRONG, PARAMETER_OF_SESSION, STAGE_UNKNOWN or BOX_OF_SESSION.
    """
    own = session_pb2.SessionParameters.FromString(row["parameters"])
    _check(row, own, request)
    version = row["parameters_version"] + 1
    asked = request.redo_from
    if row["sweep_number"] and row["redo_from"]:  # an earlier wish that is not fulfilled yet
        asked = min((stage for stage in (asked, row["redo_from"]) if stage), key=STAGES.index)
    values: dict[str, Any] = {"parameters": request.parameters.SerializeToString(), "parameters_version": version}
    if not request.new_exposures_only:
        values |= {"redo_version": version, "redo_from": asked, "sweep_number": 1}
    after = {**row, **values}
    redone = _redone(tx, after)
    if request.dry_run or (request.parameters == own and not redone):
        return row, redone
    mine = _session.session_id == row["session_id"]
    tx.run(update(tables.session).where(mine).values(changes=_session.changes + 1, **values))
    tx.changed_sessions[row["session_id"]] = "session_parameters"
    if request.redo_from:
        _redo_running(tx, row["session_id"], request.redo_from)
    sweep(tx, row["session_id"])
    return tx.only(statements.SESSION, key=row["session_id"]), redone


def set_thresholds(tx: Transaction, row: RowMapping, thresholds: Sequence[session_pb2.AttributeThreshold]) -> RowMapping:
    """Set the intervals that attributes must lie in; exposures come in and out as the sweep passes them."""
    curation.check(thresholds)
    curation.require_alive(row)
    values = {"thresholds": curation.to_bytes(thresholds), "sweep_number": 1, "changes": _session.changes + 1}
    tx.run(update(tables.session).where(_session.session_id == row["session_id"]).values(**values))
    tx.changed_sessions[row["session_id"]] = "session_thresholds"
    sweep(tx, row["session_id"])
    return tx.only(statements.SESSION, key=row["session_id"])


def unswept(tx: Transaction) -> list[str]:
    """Return the sessions with exposures that a change has yet to reach."""
    pending = select(_session.session_id).where(_session.sweep_number > 0, _session.state != "DELETING")
    return [row["session_id"] for row in tx.all(pending)]


def sweep(tx: Transaction, session_id: str) -> bool:
    """Let a change reach the next exposures of a session; return whether there are more."""
    session = tx.one(statements.SESSION, key=session_id)
    if session is None or not session["sweep_number"]:
        return False
    rows = tx.all(
        select(tables.exposure)
        .where(_exposure.session_id == session_id, _exposure.number >= session["sweep_number"])
        .order_by(_exposure.number)
        .limit(SWEEP)
    )
    thresholds = curation.of(session)
    for row in rows:
        if row["result"]:
            curation.judge_again(tx, row, row["override"], thresholds)
        _put_back(tx, session, tx.only(statements.EXPOSURE, key=row["exposure_id"]) if row["result"] else row)
    more = len(rows) == SWEEP
    values = {"sweep_number": rows[-1]["number"] + 1} if more else {"sweep_number": 0, "redo_from": ""}
    tx.run(update(tables.session).where(_session.session_id == session_id).values(**values))
    return more


def _redo_running(tx: Transaction, session_id: str, stage: str) -> None:
    """Let what is being processed count as stale from a stage on when it commits."""
    mine = (_exposure.session_id == session_id) & (_attempt.outcome == tables.RUNNING)
    for attempt in tx.all(select(tables.attempt).join(tables.exposure).where(mine)):
        made_with = kept_digests(attempt["made_with"], stage)
        tx.run(statements.CHANGE_ATTEMPT, key=attempt["attempt_id"], made_with=made_with)


def _put_back(tx: Transaction, session: RowMapping, row: RowMapping) -> None:
    """Put an exposure back into the queue if its result is stale, or if it failed with other parameters."""
    fresh: dict[str, Any] = exposures.UNTRIED
    if row["state"] == "DONE":
        stage = stage_to_redo(session, row["made_with"], row["parameters_version"])
        if stage:
            made_with = kept_digests(row["made_with"], stage)
            exposures.move(tx, row, "READY", made_with=made_with, outdated=True, **fresh)
    elif row["state"] == "QUARANTINED" and not exposure_pb2.MovieFile.FromString(row["file"]).defect:
        last = tx.one(
            select(tables.attempt).where(_attempt.exposure_id == row["exposure_id"], _attempt.number == row["attempt_number"])
        )
        if last is not None and stage_to_redo(session, last["made_with"], last["parameters_version"]):
            exposures.move(tx, row, "READY", failure="", finished_ns=0, **fresh)


def _redone(tx: Transaction, after: Mapping[Any, Any]) -> dict[str, int]:
    """Count the exposures that have a result, or are getting one, and are to be redone, by their first stage."""
    found: Counter[str] = Counter()
    done = (
        select(_exposure.made_with, _exposure.parameters_version, func.count().label("number"))
        .where(_exposure.session_id == after["session_id"], _exposure.state == "DONE")
        .group_by(_exposure.made_with, _exposure.parameters_version)
    )
    running = (
        select(_attempt.made_with, _attempt.parameters_version, func.count().label("number"))
        .join(tables.exposure)
        .where(_exposure.session_id == after["session_id"], _attempt.outcome == tables.RUNNING)
        .group_by(_attempt.made_with, _attempt.parameters_version)
    )
    for group in (*tx.all(done), *tx.all(running)):
        stage = stage_to_redo(after, group["made_with"], group["parameters_version"])
        if stage:
            found[stage] += group["number"]
    return {stage: found[stage] for stage in STAGES if found[stage]}


def sentence(redone: dict[str, int], row: RowMapping, *, dry_run: bool) -> str:
    """Say what a change does."""
    will = "would be" if dry_run else "will be"
    if not redone:
        return f"No exposure {will} redone; new ones {will} processed with these parameters."
    parts = [f"{count:,} from {_TITLES[stage]} on" for stage, count in redone.items()]
    total = sum(redone.values())
    what = "1 exposure" if total == 1 else f"{total:,} exposures"
    wait = "" if row["state"] == "RUNNING" or dry_run else " once the session is started"
    return f"{what} {will} redone{wait}: {', '.join(parts)}."


_TITLES = {
    "motion": "motion correction",
    "ctf": "CTF estimation",
    "pick": "picking",
    "threshold": "the picks' thresholds",
    "extract": "extraction",
}


def _check(row: RowMapping, own: session_pb2.SessionParameters, request: session_pb2.UpdateParametersRequest) -> None:
    if row["state"] not in ("RUNNING", "PAUSED"):
        raise FrazilError(
            "SESSION_STATE_WRONG",
            f"Session {row['name']} is {row['state'].lower()}; its parameters can be changed while it is running or paused.",
            kind=ErrorKind.CONFLICT,
        )
    changed = [field.name for field in own.DESCRIPTOR.fields if _differs(own, request.parameters, field.name)]
    for name in changed:
        if name in _OF_THE_SESSION:
            raise FrazilError("PARAMETER_OF_SESSION", f"{name} makes another session: clone this one with it.")
    if request.redo_from and request.redo_from not in STAGES:
        raise FrazilError("STAGE_UNKNOWN", f"There is no stage {request.redo_from!r}; known are {', '.join(STAGES)}.")
    if request.new_exposures_only and request.redo_from:
        raise FrazilError("REDO_TWICE", "Either redo from a stage on, or leave what is processed as it is.")
    grid = sorted(_GRID & set(changed))
    if grid and request.new_exposures_only and row["done"]:
        raise FrazilError(
            "BOX_OF_SESSION",
            f"{grid[0]} may change the particles' box or pixel size, and all particles of a session have the same: "
            "change it for every exposure, or clone the session.",
        )


def _differs(one: session_pb2.SessionParameters, other: session_pb2.SessionParameters, name: str) -> bool:
    presence = one.DESCRIPTOR.fields_by_name[name].has_presence
    return getattr(one, name) != getattr(other, name) or (presence and one.HasField(name) != other.HasField(name))  # type: ignore[arg-type]
