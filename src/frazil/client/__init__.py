"""The typed, blocking client that a LIMS or a script imports: gRPC and the stubs, nothing else.

Every method returns the messages of `frazil.api` (documented in `protos/frazil/api/*/v1/*.proto`) and raises
`FrazilError`: `reason` is stable for programs, `sentence` is for people. Calls are repeated while the scheduler does not
answer, with one request id, so that a restart of the scheduler goes unnoticed and nothing happens twice.

    with Client("127.0.0.1:50051") as frazil:
        session = frazil.create_session("grid-7", SessionParameters(movie_folder="/data/grid7", particle_diameter_angstrom=140))
        frazil.start(session.name)
        for event in frazil.events(session.name, after=last_token):
            ...
"""

from __future__ import annotations

from frazil.client._connection import DEFAULT_ADDRESS
from frazil.client._events import EventCalls
from frazil.client._exposures import ExposureCalls
from frazil.client._resources import ResourceCalls
from frazil.client._results import ResultCalls

__all__ = ["DEFAULT_ADDRESS", "Client"]


class Client(ResultCalls, ExposureCalls, ResourceCalls, EventCalls):
    """A connection to one scheduler; safe to use from several threads."""
