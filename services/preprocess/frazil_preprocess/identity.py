"""Who a candidate is: its identity, and with it a particle's half set, survives when a micrograph is picked again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.model.particles import Candidates, particle_uid
from frazil_preprocess.intermediates import Intermediates

SAME_DIAMETERS = 0.25  # how far a candidate may have moved and be the same


def candidate_uids(
    candidates: Candidates, exposure: Exposure, attempt: str, before: Intermediates | None
) -> npt.NDArray[np.uint64]:
    """Return the identity of each candidate; one near a candidate of the earlier attempt keeps that one's.

    `attempt` names the new attempt: what it finds for the first time gets a name that nothing else has.
    """
    if before is None:
        identity = exposure.exposure_id if exposure.generation <= 1 else f"{exposure.exposure_id}.{exposure.generation}"
        return _fresh(identity, len(candidates.picks))
    uids = _fresh(f"{exposure.exposure_id}.{attempt}", len(candidates.picks))
    known = before.candidate_table()
    if not len(known) or not len(uids):
        return uids
    places = np.array([(pick.x_px, pick.y_px) for pick in candidates.picks])
    diameters = np.array([pick.diameter_angstrom for pick in candidates.picks])
    reach = SAME_DIAMETERS * diameters / before.result.pixel_size_angstrom
    tree = cKDTree(np.column_stack([known["x_px"], known["y_px"]]))
    distance, nearest = (np.asarray(found) for found in tree.query(places))
    taken: set[int] = set()
    for index in np.argsort(distance, kind="stable"):
        if distance[index] <= reach[index] and int(nearest[index]) not in taken:
            taken.add(int(nearest[index]))
            uids[index] = known["uid"][nearest[index]]
    return uids


def _fresh(identity: str, count: int) -> npt.NDArray[np.uint64]:
    return np.array([particle_uid(identity, index) for index in range(count)], dtype=np.uint64)
