"""Random histories: auxiliary jobs are submitted; a person kills, requeues, ranks and cancels jobs."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import rule

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import control, gpus
from frazil_scheduler.ledger import tables
from model.world import Worker, World

LEVERS = ("kill", "requeue", "cancel", "rank")


class JobRules:
    """Rules for a machine that has a `world` and `sessions`; the job types of `tests/plugins` must be installed."""

    world: World
    sessions: dict[str, str]

    @rule(name=st.sampled_from(["a", "b"]), priority=st.integers(0, 2), gpu=st.sampled_from(["", "", "GPU-1", "GPU-3"]))
    def a_person_submits_an_auxiliary_job(self, name: str, priority: int, gpu: str) -> None:
        waiting = [row for row in self.world.rows(tables.job, tables.job.c.job_type == "count") if row["state"] == "WAITING"]
        if len(waiting) > 3:
            return
        request = scheduler_pb2.SubmitJobRequest(session=self.sessions[name], job_type="count", priority=priority)
        request.gpus.extend([gpu] if gpu else [])
        self._try(lambda tx: control.submit(tx, self.world.lanes, request))

    @rule(number=st.integers(0, 30), how=st.sampled_from(LEVERS), priority=st.integers(0, 2))
    def a_person_pulls_a_lever(self, number: int, how: str, priority: int) -> None:
        rows = self.world.rows(tables.job)
        if number >= len(rows):
            return
        row = rows[number]
        match how:
            case "kill":
                self._try(lambda tx: control.kill(tx, row))
            case "requeue":
                self._try(lambda tx: control.requeue(tx, row))
            case "cancel":
                self._try(lambda tx: control.cancel(tx, row))
            case "rank":
                self._try(lambda tx: control.set_priority(tx, row, priority))

    @rule(name=st.sampled_from(["a", "b"]))
    def a_pause_ends_in_bounded_time(self, name: str) -> None:
        """R2: after 240 s, whatever the agents and workers do, a pausing session holds nothing that could still be let go."""
        session_id = self.sessions[name]
        if self.world.row_of(session_id)["state"] not in ("RUNNING", "COMPLETING", "PAUSING"):
            return
        self.world.change(session_id, "pause")
        self._let_time_pass(240.0, lambda: False)
        assert self.world.row_of(session_id)["state"] == "PAUSED"
        mine = {row["job_id"] for row in self.world.rows(tables.job, tables.job.c.session_id == session_id)}
        held = self.world.rows(tables.lease, tables.lease.c.state.in_(("RESERVED", "HELD", "RELEASING")))
        assert not [row for row in held if row["job_id"] in mine]

    @rule(name=st.sampled_from(["a", "b"]))
    def once_faults_end_a_bounded_job_is_served(self, name: str) -> None:
        """R3: when nothing fails any more and other bounded jobs end, one that waits gets a slot."""
        for session_id in self.sessions.values():
            if self.world.row_of(session_id)["state"] in ("RUNNING", "COMPLETING"):
                self.world.change(session_id, "pause")
        for node_id, node in self.world.nodes.items():
            node.faults.clear()
            node.foreign.clear()
            self.world.hello(node_id)
        for slot in self.world.rows(tables.slot):
            self.world.store.transact(lambda tx, key=slot["slot_key"]: gpus.clear(tx, key))
        pausing = tables.session.c.state == "PAUSING"
        self._let_time_pass(240.0, lambda: not self.world.rows(tables.session, pausing))
        request = scheduler_pb2.SubmitJobRequest(session=self.sessions[name], job_type="count")
        job_id = self.world.store.transact(lambda tx: control.submit(tx, self.world.lanes, request))["job_id"]

        def served() -> bool:
            (row,) = self.world.rows(tables.job, tables.job.c.job_id == job_id)
            return bool(row["state"] == "RUNNING")

        for _ in range(20):
            for worker in [worker for worker in self.world.workers.values() if self._job_of(worker) != job_id]:
                self.world.finish(worker)
            self._let_time_pass(60.0, served)
        assert served()

    def _let_time_pass(self, seconds: float, enough: Callable[[], bool]) -> None:
        end = self.world.mono + seconds
        while self.world.mono < end and not enough():
            for node_id in self.world.nodes:
                self.world.settle(node_id)
            self.world.advance(20.0)

    def _job_of(self, worker: Worker) -> str:
        (lease,) = self.world.rows(tables.lease, tables.lease.c.lease_id == worker.token.lease_id)
        return str(lease["job_id"])

    def _try(self, body: object) -> None:
        """Do what may be refused at this moment, or for want of a slot that fits."""
        try:
            self.world.store.transact(body)  # type: ignore[arg-type]
        except FrazilError as error:
            if error.kind is not ErrorKind.CONFLICT and error.reason != "NO_SLOT_FITS":
                raise
