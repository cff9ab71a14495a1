"""Random histories: auxiliary jobs are submitted; a person kills, requeues, ranks and cancels jobs."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import control
from frazil_scheduler.ledger import tables
from model.world import World

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
        for _ in range(12):
            for node_id in self.world.nodes:
                self.world.settle(node_id)
            self.world.advance(20.0)
        assert self.world.row_of(session_id)["state"] == "PAUSED"
        mine = {row["job_id"] for row in self.world.rows(tables.job, tables.job.c.session_id == session_id)}
        held = self.world.rows(tables.lease, tables.lease.c.state.in_(("RESERVED", "HELD", "RELEASING")))
        assert not [row for row in held if row["job_id"] in mine]

    def _try(self, body: object) -> None:
        """Do what may be refused at this moment, or for want of a slot that fits."""
        try:
            self.world.store.transact(body)  # type: ignore[arg-type]
        except FrazilError as error:
            if error.kind is not ErrorKind.CONFLICT and error.reason != "NO_SLOT_FITS":
                raise
