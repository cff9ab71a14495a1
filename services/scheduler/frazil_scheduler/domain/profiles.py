"""Configuration profiles: parameters and compute resources under a name, for many sessions."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, delete, insert, select, update

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import compute, sessions
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

OF_ONE_SESSION = ("movie_folder", "metadata_folder")
"""Parameters that no profile holds."""

_profile = tables.profile.c
_session = tables.session.c


def save(tx: Transaction, profile: session_pb2.Profile, session: RowMapping | None) -> RowMapping:
    """Keep a profile, checked before, in the place of one of the same name; with a session's values where one is given."""
    parameters, resources = session_pb2.SessionParameters(), session_pb2.ComputeResources()
    if session is not None:
        parameters.ParseFromString(session["parameters"])
        resources = compute.newest(session)
    else:
        parameters.CopyFrom(profile.parameters)
        resources.CopyFrom(profile.compute)
    for name in OF_ONE_SESSION:
        parameters.ClearField(name)  # type: ignore[arg-type]
    values = {
        "description": profile.description,
        "parameters": parameters.SerializeToString(),
        "compute": resources.SerializeToString(),
        "saved_ns": tx.wall_ns,
    }
    if find(tx, profile.name) is None:
        tx.run(insert(tables.profile).values(name=profile.name, **values))
    else:
        tx.run(update(tables.profile).where(_profile.name == profile.name).values(**values))
    return require(tx, profile.name)


def find(tx: Transaction, name: str) -> RowMapping | None:
    """Return a profile's row."""
    return tx.one(select(tables.profile).where(_profile.name == name))


def require(tx: Transaction, name: str) -> RowMapping:
    """Return a profile's row. Raises FrazilError PROFILE_UNKNOWN."""
    row = find(tx, name)
    if row is None:
        raise FrazilError("PROFILE_UNKNOWN", f"There is no profile {name!r}.", kind=ErrorKind.NOT_FOUND)
    return row


def every(tx: Transaction) -> Sequence[RowMapping]:
    """Return all profiles by name."""
    return tx.all(select(tables.profile).order_by(_profile.name))


def forget(tx: Transaction, name: str) -> None:
    """Delete a profile. Raises FrazilError PROFILE_UNKNOWN."""
    require(tx, name)
    tx.run(delete(tables.profile).where(_profile.name == name))


def merged(profile: RowMapping, session: RowMapping) -> session_pb2.SessionParameters:
    """Return the parameters that a session would have with a profile's values."""
    own = session_pb2.SessionParameters.FromString(session["parameters"])
    parameters = session_pb2.SessionParameters.FromString(profile["parameters"])
    if not profile["parameters"]:
        return own
    for name in OF_ONE_SESSION:
        setattr(parameters, name, getattr(own, name))
    parameters.particle_diameter_angstrom = parameters.particle_diameter_angstrom or own.particle_diameter_angstrom
    return parameters


def apply(
    tx: Transaction, row: RowMapping, parameters: session_pb2.SessionParameters, resources: session_pb2.ComputeResources | None
) -> RowMapping:
    """Give a session that is not running these parameters and compute resources (None: those it has).

    Raises FrazilError SESSION_STATE_WRONG, or SESSION_HAS_RESULTS when it has results by other parameters.
    """
    if row["state"] not in ("PAUSED", "COMPLETED"):
        sentence = f"Session {row['name']} is {row['state'].lower()}; pause it to apply a profile."
        raise FrazilError("SESSION_STATE_WRONG", sentence, kind=ErrorKind.CONFLICT)
    own = session_pb2.SessionParameters.FromString(row["parameters"])
    if parameters != own and row["done"]:
        sentence = f"Session {row['name']} has results by other parameters; clone it and apply the profile to the clone."
        raise FrazilError("SESSION_HAS_RESULTS", sentence, kind=ErrorKind.CONFLICT)
    mine = _session.session_id == row["session_id"]
    tx.run(update(tables.session).where(mine).values(parameters=parameters.SerializeToString(), changes=_session.changes + 1))
    tx.changed_sessions[row["session_id"]] = "session_profile"
    row = sessions.require(tx, row["session_id"])
    if resources is None:
        return row
    return sessions.update_compute(tx, {}, row, resources, now=False)
