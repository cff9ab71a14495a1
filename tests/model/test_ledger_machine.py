"""Random histories of the real ledger: sessions, movies, agents, workers, deaths, partitions, restarts; every law each time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import exposures, nodes, workers
from frazil_scheduler.ledger import tables
from model.laws import Watch, check_all, check_order
from model.rules_gpus import GpuRules
from model.rules_jobs import JobRules
from model.rules_sessions import ALTERNATION, SessionRules
from model.world import Worker, World

SESSIONS = ("a", "b")
NODES = {"one": {"GPU-1#0": 24_000, "GPU-2#0": 9_000}, "two": {"GPU-3#0": 5_000}}
CLASSES = worker_pb2.FailExposureRequest.FailureClass.values()[1:]
LEASED = select(tables.lease.c.lease_id, tables.job.c.job_type).join(tables.job).subquery()


class Facility(GpuRules, JobRules, SessionRules, RuleBasedStateMachine):
    """Two sessions, two nodes with three slots, four movies a session."""

    def __init__(self, new_ledger: Callable[[], str]) -> None:
        super().__init__()
        self.new_ledger = new_ledger

    @initialize(busy=st.booleans(), alternates=st.booleans())
    def open(self, busy: bool, alternates: bool) -> None:
        self.world = World(Path("/data"), self.new_ledger())
        self.watch = Watch()
        self.world.law = partial(check_order, self.world, self.watch)
        self.sessions = {
            "a": self.world.create("a", workers_wanted=2, **({"alternation": ALTERNATION} if alternates else {})),
            "b": self.world.create("b", until="preprocess"),
        }
        for name in SESSIONS[: 2 if busy else 1]:
            self.world.change(self.sessions[name], "start")
            for movie in (1, 2):
                self.world.register(self.sessions[name], f"m{movie}.tiff")
        for node, slots in NODES.items():
            self.world.hello(node, slots)
            self.world.settle(node)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.store.close()

    @invariant()
    def laws(self) -> None:
        if hasattr(self, "world"):
            check_all(self.world, self.watch)

    def live(self, job_type: str = "") -> list[Worker]:
        """Return the live workers, of one job type or of all."""
        types = {row["lease_id"]: row["job_type"] for row in self.world.rows(LEASED)}
        order = sorted(self.world.workers.values(), key=lambda worker: worker.token.epoch)
        return [worker for worker in order if job_type in ("", types[worker.token.lease_id])]

    def some_worker(self, number: int, job_type: str = "") -> Worker | None:
        live = self.live(job_type)
        return live[number % len(live)] if live else None

    @rule(name=st.sampled_from(SESSIONS), how=st.sampled_from(["start", "start", "start", "pause", "complete"]))
    def change_session(self, name: str, how: str) -> None:
        try:
            self.world.change(self.sessions[name], how)
        except FrazilError as error:
            if error.kind is not ErrorKind.CONFLICT:
                raise

    @rule(
        name=st.sampled_from(SESSIONS),
        movie=st.integers(1, 4),
        size=st.sampled_from([100, 100, 100, 200]),
        bad=st.sampled_from([False, False, False, True]),
    )
    def register(self, name: str, movie: int, size: int, bad: bool) -> None:
        self.world.register(self.sessions[name], f"m{movie}.tiff", size=size, defect="It is truncated." if bad else "")

    @rule(node=st.sampled_from(sorted(NODES)), reboot=st.sampled_from([False, False, False, True]))
    def agent_dials_in(self, node: str, reboot: bool) -> None:
        self.world.hello(node, NODES[node], reboot=reboot)

    @rule(node=st.sampled_from(sorted(NODES)))
    def agent_obeys_once(self, node: str) -> None:
        self.world.deliver(node)

    @rule()
    def agents_obey(self) -> None:
        for node in NODES:
            self.world.settle(node)

    @rule(node=st.sampled_from(sorted(NODES)))
    def link_breaks(self, node: str) -> None:
        self.world.unlink(node)

    @rule(seconds=st.sampled_from([0.5, 2.0, 12.0, 25.0, 70.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(number=st.integers(0, 2), count=st.integers(1, 2))
    def worker_claims(self, number: int, count: int) -> None:
        worker = self.some_worker(number, "preprocess")
        if worker is not None and len(worker.claims) < 2:
            self.world.claim(worker, count)

    @rule(number=st.integers(0, 2), particles=st.integers(0, 3))
    def worker_commits(self, number: int, particles: int) -> None:
        worker = self.some_worker(number, "preprocess")
        if worker is not None and worker.claims:
            self.world.commit(worker, particles)

    @rule(particles=st.integers(0, 3))
    def everybody_works(self, particles: int) -> None:
        self.agents_obey()
        for worker in self.live("preprocess"):
            self.world.claim(worker)
            while worker.claims:
                self.world.commit(worker, particles)

    @rule(number=st.integers(0, 2), failure=st.sampled_from(CLASSES))
    def worker_gives_up(self, number: int, failure: worker_pb2.FailExposureRequest.FailureClass.ValueType) -> None:
        worker = self.some_worker(number, "preprocess")
        if worker is not None and (worker.claims or self.world.claim(worker)) and worker.claims:
            self.world.fail(worker, failure)

    @precondition(lambda self: self.world.commits)
    @rule()
    def a_commit_is_repeated(self) -> None:
        request = self.world.commits[-1]
        first = self.world.store.transact(lambda tx: workers.commit(tx, request))
        assert first == self.world.store.transact(lambda tx: workers.commit(tx, request))

    @precondition(lambda self: self.world.workers)
    @rule(number=st.integers(0, 2), code=st.sampled_from([0, 1, -9, -11]))
    def worker_ends(self, number: int, code: int) -> None:
        worker = self.some_worker(number)
        if worker is not None:
            self.world.end(worker, code)

    @precondition(lambda self: self.world.workers)
    @rule(number=st.integers(0, 2), failure=st.sampled_from(["", "", "", "It cannot go on."]))
    def worker_finishes(self, number: int, failure: str) -> None:
        worker = self.some_worker(number)
        if worker is not None:
            self.world.finish(worker, failure)

    @precondition(lambda self: self.world.workers)
    @rule(number=st.integers(0, 2))
    def worker_checkpoints(self, number: int) -> None:
        worker = self.some_worker(number)
        if worker is None:
            return
        self.world.checkpoint(worker)

    @rule()
    def the_scheduler_restarts(self) -> None:
        self.world.restart()

    @rule(node=st.sampled_from(sorted(NODES)))
    def a_person_fences(self, node: str) -> None:
        lost = self.world.rows(tables.node, tables.node.c.node_id == node, tables.node.c.state == "LOST")
        if lost:
            for worker in self.world.on(node):  # what is attested is true
                del self.world.workers[worker.token.lease_id]
            self.world.store.transact(lambda tx: nodes.fence(tx, node, "me, power is off"))

    @rule(name=st.sampled_from(SESSIONS))
    def a_person_retries(self, name: str) -> None:
        self.world.store.transact(lambda tx: exposures.retry_quarantined(tx, self.sessions[name]))


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("more_jobs")
def test_every_law_holds_in_random_histories(new_ledger: Callable[[], str], request: pytest.FixtureRequest) -> None:
    examples = {"sqlite": 20, "postgresql": 8}[request.node.callspec.params["new_ledger"]]
    chosen = settings(
        max_examples=examples, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(lambda: Facility(new_ledger), settings=chosen)
