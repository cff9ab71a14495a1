"""Cluster jobs in the ledger: each carries one agent, which is a node of its lane alone and serves one lease.

The cluster's word that a job is over proves that every process of it is dead: its leases are closed as by a person's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, select, update

from frazil.api.agent.v1 import agent_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lease as machine
from frazil_scheduler.cluster.provision import Need
from frazil_scheduler.domain import jobs, leases, limits, stalls
from frazil_scheduler.lanes import ClusterEntry, ClusterPolicy, ClusterState
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_pilot = tables.cluster_job.c
_lease = tables.lease.c
_node = tables.node.c

OPEN = _pilot.state != "ENDED"
END_TOLERANCE_NS = 5_000_000_000


def begin(tx: Transaction) -> None:
    """Start a term: what was missed is missed from now on."""
    tx.run(update(tables.cluster_job).where(_pilot.missed_mono > 0).values(missed_mono=0.0))


def find(tx: Transaction, name: str) -> RowMapping | None:
    """Return a cluster job's row."""
    return tx.one(select(tables.cluster_job).where(_pilot.name == name))


def of_lane(tx: Transaction, lane: str) -> Sequence[RowMapping]:
    """Return a lane's cluster jobs that are not over, oldest first."""
    return tx.all(select(tables.cluster_job).where(_pilot.lane == lane, OPEN).order_by(_pilot.number))


def reserved_for(tx: Transaction, row: RowMapping) -> str:
    """Return the session whose jobs alone get a cluster job: that of the lease it takes over; "": anybody's."""
    of_lease = select(tables.job.c.session_id).join(tables.lease).where(_lease.node_id == row["follows"])
    return (tx.scalar(of_lease.order_by(_lease.epoch.desc()).limit(1)) or "") if row["follows"] else ""


# -------------------------------------------------------------------------------------------------- what the agent says
def require_wanted(tx: Transaction, hello: agent_pb2.Hello) -> None:
    """Raise FrazilError AGENT_NOT_WANTED for the agent of a cluster job that is over, or that has a twin.

    A submission without an answer may have been taken twice: only one agent may have a name.
    """
    row = find(tx, hello.cluster_job_name)
    if row is None or row["state"] in ("CANCELLING", "ENDED") or hello.node_id != hello.cluster_job_name:
        raise _not_wanted(f"Cluster job {hello.cluster_job_name} is over or not known here; its agent must leave.")
    known = tx.scalar(select(_node.incarnation).where(_node.node_id == hello.node_id))
    if known not in (None, hello.incarnation):
        raise _not_wanted(f"Another agent has come as cluster job {hello.cluster_job_name}; this one must leave.")


def joined(tx: Transaction, name: str) -> None:
    """Note that a cluster job's agent has dialled in."""
    mine = (_pilot.name == name) & _pilot.state.in_(("SUBMITTING", "PENDING"))
    tx.run(update(tables.cluster_job).where(mine).values(state="RUNNING", cluster_reason="", missed_mono=0.0))


# ------------------------------------------------------------------------------------------------ what the cluster says
def ask(tx: Transaction, lane: str, needs: Sequence[Need]) -> list[str]:
    """Write down the cluster jobs that are about to be submitted, and return their names."""
    number: int = tx.scalar(select(func.max(_pilot.number))) or 0
    names = []
    for need in needs:
        number += 1
        name = f"frazil-{tx.token()[:8]}"
        names.append(name)
        tx.run(
            insert(tables.cluster_job).values(
                name=name,
                number=number,
                lane=lane,
                job_id=need.job_id,
                program=need.program,
                memory_min_mib=need.memory_min_mib,
                follows=need.follows,
                state="SUBMITTING",
                submitted_ns=tx.wall_ns,
            )
        )
    return names


def submitted(tx: Transaction, name: str, cluster_job_id: str) -> None:
    """The cluster has taken a job."""
    row = find(tx, name)
    if row is not None and row["state"] == "SUBMITTING":
        _set(tx, name, state="PENDING", cluster_job_id=cluster_job_id, cluster_reason="", missed_mono=0.0)


def not_taken(tx: Transaction, names: Sequence[str], words: str) -> None:
    """The cluster has refused jobs. Should it have taken one all the same, its agent is sent away."""
    for name in names:
        _set(tx, name, state="ENDED", cluster_reason=words, ended_ns=tx.wall_ns)
        tx.placement_wanted = True


def unanswered(tx: Transaction, name: str, words: str) -> None:
    """Keep why it is not known whether the cluster has taken a job."""
    _set(tx, name, cluster_reason=words)
    tx.placement_wanted = True


def cancel(tx: Transaction, name: str) -> str:
    """Note that a cluster job is not wanted any more, and return the cluster's identity of it.

    The cluster is told again until it says that the job is over.
    """
    _set(tx, name, state="CANCELLING")
    row = find(tx, name)
    return str(row["cluster_job_id"]) if row is not None else ""


def observe(tx: Transaction, lane: str, policy: ClusterPolicy, entries: Sequence[ClusterEntry]) -> tuple[list[str], list[str]]:
    """Take in a cluster's list; return the cluster's identities of jobs nobody wants, and the names to be submitted again."""
    unwanted: list[str] = []
    again: list[str] = []
    for row in of_lane(tx, lane):
        mine = [entry for entry in entries if _is_of(row, entry)]
        alive = [entry for entry in mine if not entry.state.terminal]
        if alive:
            unwanted += _seen(tx, row, policy, alive)
        elif mine:
            ended(tx, row, policy, mine[-1].state, mine[-1].reason)
        elif _missed_for_long(tx, row, policy):
            if row["state"] == "SUBMITTING":
                again.append(row["name"])
            else:
                cancelled = row["state"] == "CANCELLING"
                ended(tx, row, policy, ClusterState.CANCELLED if cancelled else ClusterState.LOST, "no longer listed")
    late = {entry.name: entry.cluster_job_id for entry in entries if entry.name and not entry.state.terminal}
    over = tx.all(select(_pilot.name).where(_pilot.name.in_(sorted(late)), _pilot.lane == lane, ~OPEN))
    return unwanted + [late[row["name"]] for row in over], again


def ended(tx: Transaction, row: RowMapping, policy: ClusterPolicy, state: ClusterState, reason: str) -> None:
    """The cluster says that a job is over: close its leases, hide its node, and see whether its job has come any further."""
    name = row["name"]
    words = state.value.lower() + (f", {reason}" if reason else "")
    _set(tx, name, state="ENDED", cluster_reason=words, ended_ns=tx.wall_ns)
    still_open = [lease for lease in _leases_of(tx, name) if lease["state"] != "CLOSED"]
    if still_open:
        known_as = f"{name} ({policy.title} {row['cluster_job_id']})"
        tx.notice("info", f"Cluster job {known_as} has ended: {words}; by this proof its GPU slot is no longer held.")
    for lease in still_open:
        leases.apply(tx, lease, machine.Fenced())
    if tx.scalar(select(_node.node_id).where(_node.node_id == name)):
        tx.run(delete(tables.slot).where(tables.slot.c.node_id == name))
        tx.run(update(tables.node).where(_node.node_id == name).values(state="ENDED", hello_term=0))
        tx.changed_nodes[name] = "node_ended"
        tx.topics.add(f"node:{name}")
    tx.placement_wanted = True
    _forget_old(tx)
    if row["state"] != "CANCELLING" and state not in (ClusterState.CANCELLED, ClusterState.LOST):
        _count_attempt(tx, row, policy, words)


def _seen(tx: Transaction, row: RowMapping, policy: ClusterPolicy, alive: Sequence[ClusterEntry]) -> list[str]:
    """Keep what the cluster says of a live job; return the identities to cancel: its own, or its twins'.

    Of two that run, the agents tell which is the twin.
    """
    runs = [entry for entry in alive if entry.state is ClusterState.RUNNING]
    kept = next((entry for entry in runs if entry.cluster_job_id == row["cluster_job_id"]), (runs or alive)[0])
    values: dict[str, Any] = {"missed_mono": 0.0, "cluster_job_id": kept.cluster_job_id, "cluster_reason": kept.reason}
    if row["state"] in ("SUBMITTING", "PENDING"):
        values["state"] = kept.state.value
    if kept.state is ClusterState.RUNNING:
        values["end_ns"] = _end_ns(tx, row, policy, kept)
    if any(row[column] != value for column, value in values.items()):
        _set(tx, row["name"], **values)
        tx.placement_wanted = True
    if row["state"] == "CANCELLING":
        return [entry.cluster_job_id for entry in alive]
    return [entry.cluster_job_id for entry in alive if entry is not kept and entry not in runs]


def _end_ns(tx: Transaction, row: RowMapping, policy: ClusterPolicy, entry: ClusterEntry) -> int:
    """Return when a running job will be ended: by the cluster's word, else counted from when it was first seen to run."""
    left = entry.seconds_left
    if left is None:
        left = policy.walltime_seconds - policy.list_seconds if policy.walltime_seconds and not row["end_ns"] else None
    if left is None:
        return int(row["end_ns"])
    end_ns = tx.wall_ns + int(left * 1e9)
    return int(row["end_ns"]) if abs(end_ns - row["end_ns"]) < END_TOLERANCE_NS else end_ns


def _missed_for_long(tx: Transaction, row: RowMapping, policy: ClusterPolicy) -> bool:
    """Tell whether two lists, far enough apart, did not have a job: one alone may have been made too early."""
    if not row["missed_mono"]:
        _set(tx, row["name"], missed_mono=tx.mono)
        return False
    if tx.mono - row["missed_mono"] < limits.CLUSTER_MISSED_LISTS * policy.list_seconds:
        return False
    _set(tx, row["name"], missed_mono=0.0)
    return True


def _count_attempt(tx: Transaction, row: RowMapping, policy: ClusterPolicy, words: str) -> None:
    """Fail a job for which cluster jobs come and go while it gets no further: it must not burn the allocation."""
    lease = tx.one(select(tables.lease).where(_lease.node_id == row["name"]).order_by(_lease.epoch.desc()).limit(1))
    job = jobs.find(tx, lease["job_id"] if lease is not None else row["job_id"])
    if job is None or job["state"] != "WAITING" or not _fruitless(tx, row, lease, job):
        return
    counted = lease is not None and lease["ended_by"] in ("DIED", "UNSEEN")  # when the worker's end was told
    in_row = job["failures_in_row"] + (not counted)
    jobs.change(tx, job, failures=job["failures"] + (not counted), failures_in_row=in_row)
    if in_row < limits.CLUSTER_ATTEMPTS_MAX:
        return
    how = "without progress" if lease is not None else "whose agents did not come or found their slot unfit"
    sentence = (
        f"{in_row} cluster jobs in a row have run for it {how}; {policy.title} says of the last, {row['name']}"
        f" ({row['cluster_job_id']}): {words}. See its log, then pause and start the session to try again."
    )
    jobs.set_state(tx, job, "FAILED", reason=sentence)
    tx.notice("error", f"{jobs.title(job['job_type'])} has failed: {sentence}", job["session_id"])


def _fruitless(tx: Transaction, row: RowMapping, lease: RowMapping | None, job: RowMapping) -> bool:
    """Tell whether a cluster job that is over has brought its job no further although there was something to do."""
    if lease is not None:
        return bool(lease["epoch"] == job["epoch"] and not job["progressed"] and stalls.input_waits(tx, job))
    newest = leases.find(tx, job["lease_id"])
    return newest is None or bool(newest["granted_ns"] < row["submitted_ns"])  # else another slot has served it


def _forget_old(tx: Transaction) -> None:
    """Keep the newest of those that are over; older ones are found in the log."""
    old = tx.all(select(_pilot.name).where(~OPEN).order_by(_pilot.number.desc()).offset(limits.CLUSTER_JOBS_KEPT))
    for row in old:
        tx.run(delete(tables.node).where(_node.node_id == row["name"]))
        tx.run(delete(tables.cluster_job).where(_pilot.name == row["name"]))


def _is_of(row: RowMapping, entry: ClusterEntry) -> bool:
    by_number = not entry.name and row["cluster_job_id"] and entry.cluster_job_id == row["cluster_job_id"]
    return entry.name == row["name"] or bool(by_number)


def _leases_of(tx: Transaction, name: str) -> Sequence[RowMapping]:
    return tx.all(select(tables.lease).where(_lease.node_id == name, leases.OPEN).order_by(_lease.epoch))


def _set(tx: Transaction, name: str, **values: Any) -> None:
    tx.run(update(tables.cluster_job).where(_pilot.name == name).values(**values))


def _not_wanted(sentence: str) -> FrazilError:
    return FrazilError("AGENT_NOT_WANTED", sentence, kind=ErrorKind.CONFLICT)
