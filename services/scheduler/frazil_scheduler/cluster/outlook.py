"""What cluster jobs mean for the queue: whose slots they are, and why a job of their lane waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import RowMapping, select

from frazil_scheduler.cluster import pilots
from frazil_scheduler.domain import leases
from frazil_scheduler.lanes import ClusterPolicy
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_pilot = tables.cluster_job.c
_lease = tables.lease.c
_job = tables.job.c
_node = tables.node.c


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """The node of a cluster job."""

    lane: str
    usable: bool  # its slot serves its one lease, or may still be given one
    session_id: str  # it takes over a job of this session, and nobody else gets it; empty: anybody's


def nodes(tx: Transaction) -> dict[str, ClusterNode]:
    """Return the nodes of the cluster jobs that are not over."""
    rows = tx.all(select(tables.cluster_job).where(pilots.OPEN))
    if not rows:
        return {}
    names = {row["name"] for row in rows} | {row["follows"] for row in rows} - {""}
    held = tx.all(
        select(_lease.node_id, _lease.released, leases.OPEN.label("open"), _job.session_id)
        .join(tables.job)
        .where(_lease.node_id.in_(sorted(names)))
        .order_by(_lease.epoch)
    )
    newest = {lease["node_id"]: lease for lease in held}
    return {row["name"]: _cluster_node(row, newest) for row in rows}


def _cluster_node(row: RowMapping, newest: Mapping[str, RowMapping]) -> ClusterNode:
    mine, before = newest.get(row["name"]), newest.get(row["follows"])
    waits = before is not None and not before["released"]  # until the job that it takes over has let go
    usable = mine["open"] if mine is not None else row["state"] == "RUNNING" and not waits
    return ClusterNode(row["lane"], bool(usable), before["session_id"] if before is not None else "")


class Prospects:
    """Why the jobs of one cluster lane wait."""

    def __init__(self, tx: Transaction, lane: str, policy: ClusterPolicy) -> None:
        rows = pilots.of_lane(tx, lane)
        names = [row["name"] for row in rows]
        served = {row["node_id"] for row in tx.all(select(_lease.node_id).where(_lease.node_id.in_(names)).distinct())}
        here = tx.all(select(_node.node_id).where(_node.node_id.in_(names), _node.hello_term == tx.term))
        taken = served | {row["node_id"] for row in here}  # an idle one that the job could use would serve it
        self._policy = policy
        self._room = len(rows) < policy.max_jobs
        self._coming = [row for row in rows if row["name"] not in taken and row["state"] != "CANCELLING"]
        self._tx = tx

    def sentence(self, job_id: str) -> str:
        """Return one sentence with the cluster's own words; nothing when the lane's cluster jobs all serve others."""
        title = self._policy.title
        row = next((row for row in self._coming if row["job_id"] == job_id), self._coming[0] if self._coming else None)
        if row is None:
            return f"{title} is asked for a slot. {self._last(job_id)}".strip() if self._room else ""
        known_as = f" as {row['cluster_job_id']}" if row["cluster_job_id"] not in ("", row["name"]) else ""
        words = f", {row['cluster_reason']}" if row["cluster_reason"] else ""
        return {
            "SUBMITTING": f"{title} is being asked for a slot{words}.",
            "PENDING": f"{title}: pending{words} ({row['name']}{known_as}).",
            "RUNNING": f"{title} has started {row['name']}{known_as}; its agent is awaited.",
        }[row["state"]]

    def _last(self, job_id: str) -> str:
        last = select(tables.cluster_job).where(_pilot.job_id == job_id, ~pilots.OPEN).order_by(_pilot.number.desc()).limit(1)
        row = self._tx.one(last)
        return f"The last cluster job for it ended: {row['cluster_reason']}." if row is not None else ""
