"""What is asked of the clusters, carried to them and back: one step at a time for each lane, the ledger first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy import RowMapping, select

from frazil.model.errors import FrazilError
from frazil.rpc.failpoints import failpoint, operation
from frazil_scheduler.cluster import pilots
from frazil_scheduler.cluster.provision import ClusterJob, Phase, Waiting, decide
from frazil_scheduler.domain import jobs, limits, queue, stopping, switching
from frazil_scheduler.hub import Hub
from frazil_scheduler.lanes import ClusterBackend, ClusterPolicy, ClusterRequest, cluster_of
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

_lease = tables.lease.c


@dataclass(slots=True)
class LaneState:
    """What is remembered of a lane between two steps; losing it costs nothing."""

    listed_mono: float | None = None
    refused_mono: float | None = None
    again: list[str] = field(default_factory=list)  # cluster jobs to be submitted once more
    running: asyncio.Task[None] | None = None


class Clusters:
    """The cluster lanes of one scheduler."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lanes: dict[str, LaneState] = {}

    async def keep_up(self) -> None:
        """Look after every lane for ever; a cluster that does not answer holds up no other."""
        try:
            while True:
                pause = limits.CLUSTER_DECIDE_SECONDS
                for name in self._hub.lanes:
                    policy = self._policy(name)
                    if policy is None:
                        continue
                    pause = min(pause, policy.list_seconds)
                    state = self._lanes.setdefault(name, LaneState())
                    if state.running is None or state.running.done():
                        state.running = asyncio.create_task(self._step_safely(name))
                await asyncio.sleep(pause)
        finally:
            running = [state.running for state in self._lanes.values() if state.running is not None]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def step(self, name: str) -> None:
        """List a lane's cluster jobs if that is due, decide, and tell the cluster."""
        lane = self._hub.lanes.get(name)
        backend = cluster_of(lane) if lane is not None else None
        if backend is None:  # removed meanwhile
            return
        state = self._lanes.setdefault(name, LaneState())
        now = self._hub.clock.monotonic()
        unwanted: list[str] = []
        if state.listed_mono is None or now - state.listed_mono >= backend.policy.list_seconds:
            state.listed_mono = now
            unwanted = await self._list(name, backend, state)
        patience = limits.CLUSTER_REFUSED_LISTS * backend.policy.list_seconds
        may_ask = state.refused_mono is None or now - state.refused_mono >= patience
        operation.set("Cluster.decide")
        asked, cancelled = await self._hub.store.run(partial(provision, lane=name, policy=backend.policy, may_ask=may_ask))
        again, state.again = state.again, []
        known = {*unwanted, *cancelled} - {""}  # one whose identity is not known yet is cancelled when a list tells it
        if known:
            await backend.cancel(sorted(known))
        await self._submit([*asked, *again], backend, state)
        if may_ask:  # a refusal is shown until the lane asks again
            self._problem(name, "")

    def _policy(self, name: str) -> ClusterPolicy | None:
        lane = self._hub.lanes.get(name)
        return lane.policy if lane is not None else None

    async def _step_safely(self, name: str) -> None:
        try:
            await self.step(name)
        except FrazilError as error:
            if error.reason == "TERM_STALE":
                return  # the scheduler's own tick ends it
            self._problem(name, error.sentence)
        except Exception as error:  # noqa: BLE001 whatever it was, the lane must still be looked after
            self._problem(name, f"The lane's backend failed: {error!r}; see the scheduler's log.")
            structlog.get_logger().error("cluster_step_failed", lane=name, exc_info=error)

    async def _list(self, name: str, backend: ClusterBackend, state: LaneState) -> list[str]:
        """Take in the cluster's list; return what is to be cancelled because nobody wants it."""
        before = {row["name"] for row in await self._hub.store.look(partial(pilots.of_lane, lane=name))}
        entries = await backend.list(sorted(before))
        observe = partial(pilots.observe, lane=name, policy=backend.policy, entries=entries)
        operation.set("Cluster.list")
        unwanted, state.again = await self._hub.store.run(observe)
        after = {row["name"] for row in await self._hub.store.look(partial(pilots.of_lane, lane=name))}
        for gone in before - after:
            self._hub.forget(gone)
        return unwanted

    async def _submit(self, names: Sequence[str], backend: ClusterBackend, state: LaneState) -> None:
        """Submit cluster jobs; after one that fails the others are not tried, and are told so in the ledger."""
        operation.set("Cluster.submit")
        for place, name in enumerate(names):
            request = await self._hub.store.look(partial(self._request, name=name, policy=backend.policy))
            failpoint("cluster.submit.before")
            try:
                number = await backend.submit(request)
            except FrazilError as error:
                state.refused_mono = self._hub.clock.monotonic()
                unknown = error.reason == "CLUSTER_UNAVAILABLE"  # it may have been taken: the next list tells
                failed = partial(pilots.not_taken, names=names[place + unknown :], words=error.sentence)
                await self._hub.store.run(failed)
                if unknown:
                    await self._hub.store.run(partial(pilots.unanswered, name=name, words=error.sentence))
                raise
            failpoint("cluster.submit.after")
            state.refused_mono = None
            structlog.get_logger().info("cluster_job_submitted", cluster_job=name, cluster_job_id=number)
            await self._hub.store.run(partial(pilots.submitted, name=name, cluster_job_id=number))

    def _request(self, tx: Transaction, name: str, policy: ClusterPolicy) -> ClusterRequest:
        row = pilots.find(tx, name)
        assert row is not None  # noqa: S101 it was written in this step
        job = jobs.find(tx, row["job_id"])
        return ClusterRequest(
            name=name,
            program=row["program"],
            scheduler_address=policy.scheduler_address or self._hub.address,
            folder=self._hub.data_dir / "cluster" / row["lane"] / name,
            gpu_memory_min_mib=row["memory_min_mib"] if policy.gpus else 0,
            session_id=job["session_id"] if job is not None else "",
            job_id=row["job_id"],
        )

    def _problem(self, name: str, sentence: str) -> None:
        """Keep what is wrong with a lane; it is told once."""
        if self._hub.lane_problems.get(name, "") == sentence:
            return
        self._hub.lane_problems[name] = sentence
        if sentence:
            structlog.get_logger().warning("lane_problem", lane=name, sentence=sentence)


def provision(tx: Transaction, lane: str, policy: ClusterPolicy, *, may_ask: bool = True) -> tuple[list[str], list[str]]:
    """Decide for a lane and write it down; return the cluster jobs to submit and the cluster's identities to cancel."""
    waiting = [row for row in queue.waiting(tx) if row["lane"] == lane]
    heirs = switching.heirs(tx, waiting)
    plan = decide(
        [_waiting(row, policy, heirs.get(row["job_id"], "")) for row in waiting],
        [_cluster_job(tx, row, policy) for row in pilots.of_lane(tx, lane)],
        max_jobs=policy.max_jobs,
        handover_seconds=policy.handover_seconds,
        drain_seconds=policy.drain_seconds,
    )
    for name in plan.drain:
        stopping.leave(tx, name)
    cancelled = [pilots.cancel(tx, name) for name in plan.cancel]
    return pilots.ask(tx, lane, plan.ask if may_ask else ()), cancelled


def _waiting(row: RowMapping, policy: ClusterPolicy, follows: str) -> Waiting:
    return Waiting(
        job_id=row["job_id"],
        program=row["program"],
        memory_min_mib=_memory_min_mib(row, policy),
        session_id=row["session_id"],
        follows=follows,
    )


def _memory_min_mib(job: RowMapping, policy: ClusterPolicy) -> int:
    return int(job["gpu_memory_min_mib"] if policy.gpus else job["cpu_memory_min_mib"])


def _cluster_job(tx: Transaction, row: RowMapping, policy: ClusterPolicy) -> ClusterJob:
    lease = tx.one(select(tables.lease).where(_lease.node_id == row["name"]).order_by(_lease.epoch.desc()).limit(1))
    job = jobs.find(tx, lease["job_id"]) if lease is not None else None
    node = tx.one(
        select(tables.node.c.hello_term, tables.slot.c.memory_mib)
        .join(tables.slot, tables.slot.c.node_id == tables.node.c.node_id)
        .where(tables.node.c.node_id == row["name"])
    )
    dialled_in = node is not None and node["hello_term"] == tx.term
    return ClusterJob(
        name=row["name"],
        phase=_phase(row, lease, job, dialled_in=dialled_in),
        program=row["program"],
        memory_mib=node["memory_mib"] if node is not None else row["memory_min_mib"],
        follows=row["follows"],
        session_id=pilots.reserved_for(tx, row),
        serves=lease["job_id"] if lease is not None else "",
        indefinite=job is not None and job["indefinite"],
        memory_min_mib=_memory_min_mib(job, policy) if job is not None else 0,
        seconds_left=(row["end_ns"] - tx.wall_ns) / 1e9 if row["end_ns"] else None,
    )


def _phase(row: RowMapping, lease: RowMapping | None, job: RowMapping | None, *, dialled_in: bool) -> Phase:
    if row["state"] == "CANCELLING":
        return Phase.CANCELLING
    if lease is None:
        if row["state"] != "RUNNING":
            return Phase(row["state"])
        return Phase.IDLE if dialled_in else Phase.STARTING
    if lease["state"] == "LOST":
        may_heal = job is not None and job["epoch"] == lease["epoch"] and job["state"] == "WAITING" and not lease["stop"]
        return Phase.LEAVING if may_heal else Phase.STRAY
    return Phase.SERVING if lease["state"] in ("RESERVED", "HELD") else Phase.LEAVING
