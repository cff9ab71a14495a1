"""Lanes: those of frazil.toml and those added by RPC, which live in the ledger; who uses one; and the book of them all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, insert, select, update

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lanes as backends
from frazil_scheduler.cluster import pilots
from frazil_scheduler.config import LaneSettings
from frazil_scheduler.domain import jobs
from frazil_scheduler.lanes import LaneBackend
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_lane = tables.lane.c
_job = tables.job.c
_session = tables.session.c

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


class LaneBook(Mapping[str, LaneBackend]):
    """Every lane with its backend. Changed in the store's thread only; readers elsewhere see the book before or after."""

    def __init__(self, settings: Iterable[LaneSettings] = ()) -> None:
        """Load the backends; raises FrazilError for the first that cannot be used."""
        self._lanes = {one.name: (one, load(one)) for one in settings}

    def __getitem__(self, name: str) -> LaneBackend:
        return self._lanes[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    def settings(self) -> tuple[LaneSettings, ...]:
        """Return the settings of every lane, by name."""
        return tuple(self._lanes[name][0] for name in sorted(self._lanes))

    def put(self, settings: LaneSettings, backend: LaneBackend) -> None:
        """Add or replace a lane."""
        self._lanes = {**self._lanes, settings.name: (settings, backend)}

    def remove(self, name: str) -> None:
        """Take a lane out."""
        self._lanes = {key: lane for key, lane in self._lanes.items() if key != name}


def load(settings: LaneSettings) -> LaneBackend:
    """Return a lane's backend; raises FrazilError for a name, backend or option that cannot be used."""
    if not _NAME.fullmatch(settings.name):
        sentence = f"{settings.name!r} is no name for a lane: use letters, digits and -_. inside, 63 at most."
        raise FrazilError("CONFIG_INVALID", sentence)
    return backends.load(settings.backend)(settings.name, settings.options)


def read_request(name: str, backend: str, options_json: str) -> tuple[LaneSettings, LaneBackend]:
    """Return a lane as an RPC asks for it, checked. Raises FrazilError."""
    try:
        options = json.loads(options_json or "{}")
    except ValueError as error:
        raise FrazilError("LANE_OPTIONS_INVALID", f"options_json of lane {name!r} is no JSON: {error}.") from error
    if not isinstance(options, dict):
        raise FrazilError("LANE_OPTIONS_INVALID", f"options_json of lane {name!r} must be a JSON object.")
    settings = LaneSettings(name=name, backend=backend or "node", options=options, from_file=False)
    loaded = load(settings)
    reserved = sorted(set(options) & loaded.operator_options)
    if reserved:
        raise FrazilError(
            "LANE_OPTION_RESERVED",
            f"{', '.join(reserved)} decides what a machine executes and can only be set under [lanes.{name}] in frazil.toml.",
        )
    return settings, loaded


def stored(tx: Transaction) -> list[LaneSettings]:
    """Return the lanes in the ledger."""
    rows = tx.all(select(tables.lane).order_by(_lane.name))
    return [
        LaneSettings(name=row["name"], backend=row["backend"], options=json.loads(row["options"]), from_file=False)
        for row in rows
    ]


def is_stored(tx: Transaction, name: str) -> bool:
    """Tell whether a lane is in the ledger."""
    return tx.one(select(_lane.name).where(_lane.name == name)) is not None


def create(tx: Transaction, book: LaneBook, settings: LaneSettings) -> None:
    """Keep a new lane. Raises FrazilError LANE_EXISTS."""
    if settings.name in book:
        raise FrazilError("LANE_EXISTS", f"There is already a lane {settings.name!r}.", kind=ErrorKind.ALREADY_EXISTS)
    values = {"name": settings.name, "backend": settings.backend, "created_ns": tx.wall_ns}
    tx.run(insert(tables.lane).values(options=_json(settings.options), **values))
    tx.notice("info", f"Lane {settings.name} was added.")
    tx.placement_wanted = True


def change(tx: Transaction, settings: LaneSettings) -> None:
    """Keep a lane's new options; what runs goes on."""
    tx.run(update(tables.lane).where(_lane.name == settings.name).values(options=_json(settings.options)))
    tx.notice("info", f"Lane {settings.name} was changed.")
    tx.placement_wanted = True


def delete(tx: Transaction, name: str) -> None:
    """Forget a lane. Raises FrazilError LANE_IN_USE while a session names it, or something of it runs."""
    for row in tx.all(select(_session.name, _session.compute)):
        compute = session_pb2.ComputeResources.FromString(row["compute"])
        if name in (compute.preprocessing_lane, compute.reconstruction_lane, compute.auxiliary_lane):
            raise _in_use(name, f"session {row['name']} names it; give the session another lane, or delete it")
    job = tx.one(select(_job.job_id).where(_job.lane == name, _job.state.not_in(jobs.TERMINAL)).limit(1))
    if job is not None:
        raise _in_use(name, f"job {job['job_id']} is not over; cancel it")
    if tx.scalar(select(func.count()).select_from(tables.cluster_job).where(pilots.OPEN, tables.cluster_job.c.lane == name)):
        raise _in_use(name, "its last cluster jobs are still ending; try again in a moment")
    tx.run(sql_delete(tables.lane).where(_lane.name == name))
    tx.notice("info", f"Lane {name} was removed.")


def require_changeable(book: LaneBook, name: str) -> LaneSettings:
    """Return a lane's settings. Raises FrazilError LANE_UNKNOWN, or LANE_FROM_FILE for one of frazil.toml."""
    found = next((settings for settings in book.settings() if settings.name == name), None)
    if found is None:
        known = ", ".join(sorted(book))
        raise FrazilError("LANE_UNKNOWN", f"There is no lane {name!r}; known are {known}.", kind=ErrorKind.NOT_FOUND)
    if found.from_file:
        sentence = f"Lane {name} is written in frazil.toml: change it there and restart the scheduler; running jobs go on."
        raise FrazilError("LANE_FROM_FILE", sentence, kind=ErrorKind.CONFLICT)
    return found


def _json(options: Mapping[str, Any]) -> str:
    return json.dumps(dict(options), sort_keys=True)


def _in_use(name: str, why: str) -> FrazilError:
    return FrazilError("LANE_IN_USE", f"Lane {name} cannot be removed: {why}.", kind=ErrorKind.CONFLICT)
