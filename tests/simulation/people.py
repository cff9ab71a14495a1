"""The microscope that writes movies, and operators who pull every lever at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from frazil.api.session.v1 import session_pb2
from frazil_scheduler.domain import control, exposures, gpus, jobs, nodes, sessions, streaming, switching
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction
from simulation.facility import Facility

PAUSE_SECONDS_MAX = 305.0  # 180 for a checkpoint, 60 for the proof, 60 more if the agent dies in between
NATURES = ("segfault", "large", "unreadable")
CHANGES: tuple[dict[str, Any], ...] = (
    {"preprocessing_workers": 1},
    {"preprocessing_workers": 2},
    {"preprocessing_workers": 3},
    {"reconstruction_lane": "two"},
    {"reconstruction_lane": "default"},
    {"priority": 50},
)
PLANS: tuple[dict[str, int], ...] = (
    {"preprocess": 1},
    {"preprocess": 1, "class2d_streaming": 1},
    {"preprocess": 2},
    {},
)


class Microscope:
    """Writes movies slowly; some are cut, some poisonous, some change or vanish later."""

    def __init__(self, facility: Facility) -> None:
        self._facility = facility
        self._engine = facility.engine
        self._count = 0
        self._to_come = 0

    def writes(self) -> list[str]:
        """Return what is still to be written."""
        return [f"{self._to_come} changes in the movie folders"] if self._to_come else []

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._to_come += 1

        def done() -> None:
            self._to_come -= 1
            act()

        self._engine.after(seconds, done)

    def plan(self, name: str, start: float, end: float, bursts: int, movies: int) -> None:
        """Let some bursts of movies come between two times."""
        for _ in range(bursts):
            when = self._engine.between(start, end)
            for _ in range(movies):
                self._later(when - self._engine.now, lambda: self._begin(name))
                when += self._engine.between(20.0, 120.0)

    def _begin(self, name: str) -> None:
        self._count += 1
        path = self._facility.disk.folder / name / f"m{self._count:04d}.tiff"
        particles = self._engine.random.randrange(0, 300)
        nature = self._engine.random.choice(NATURES) if self._engine.chance(0.06) else "good"
        whole = not self._engine.chance(0.05)
        self._write(name, path, 100, particles, nature=nature, whole=False)
        written = self._engine.between(0.5, 40.0)
        self._later(written / 2, lambda: self._write(name, path, 200, particles, nature=nature, whole=False))
        self._later(written, lambda: self._write(name, path, 300, particles, nature=nature, whole=whole))
        if self._engine.chance(0.08):
            again = written + self._engine.between(10.0, 9000.0)
            self._later(again, lambda: self._write(name, path, 300, particles + 1, nature=nature, whole=True))
        elif self._engine.chance(0.04):
            self._later(written + self._engine.between(1.0, 300.0), lambda: self._remove(name, path))

    def _write(self, name: str, path: Path, size: int, particles: int, *, nature: str, whole: bool) -> None:
        self._facility.disk.write(path, size, particles, nature=nature, whole=whole)
        self._facility.ingest.news(self._facility.sessions[name])

    def _remove(self, name: str, path: Path) -> None:
        self._facility.disk.remove(path)
        self._facility.ingest.news(self._facility.sessions[name])


class Operators:
    """People who may do anything at any time, as long as what they attest is true."""

    def __init__(self, facility: Facility) -> None:
        self._facility = facility
        self._engine = facility.engine
        self._on = True
        self._changed: dict[str, float] = {}  # when a session was last started or paused
        self._levers: tuple[Callable[[], None], ...] = (
            self._pause_for_a_while,
            self._pause_for_a_while,
            self._scale,
            self._scale,
            self._pull_on_a_job,
            self._pull_on_a_job,
            self._turn_to_a_gpu,
            self._turn_to_a_gpu,
            self._fence,
            self._hand_over,
            self._retry,
            self._stop_streaming_for_a_while,
        )

    def plan(self, start: float, end: float, count: int) -> None:
        """Let so many levers be pulled between two times."""
        for _ in range(count):
            self._engine.after(self._engine.between(start, end) - self._engine.now, self._pull)

    def end(self) -> None:
        """Pull no more levers."""
        self._on = False

    def _pull(self) -> None:
        if self._on and self._facility.scheduler.store is not None:
            self._engine.random.choice(self._levers)()

    def _name(self) -> str:
        return self._engine.random.choice(list(self._facility.sessions))

    def _session(self, what: str, name: str, body: Callable[[Transaction, Any], Any]) -> Any:
        session_id = self._facility.sessions[name]
        value = self._facility.person(f"{what} {name}", lambda tx: body(tx, sessions.require(tx, session_id)))
        self._facility.ingest.news(session_id)
        return value

    def _pause_for_a_while(self) -> None:
        name = self._name()
        done = "complete" if self._engine.chance(0.2) else "pause"
        self._session(done, name, sessions.complete if done == "complete" else sessions.pause)
        self._changed[name] = now = self._engine.now
        self._engine.after(PAUSE_SECONDS_MAX, lambda: self._is_paused(name, now))

        def start() -> None:
            if not self._on:  # from now on careful people start what is to run, and complete it in the end
                return
            self._changed[name] = self._engine.now
            self._session("start", name, sessions.start)

        self._engine.after(self._engine.between(1.0, 1800.0), start)

    def _is_paused(self, name: str, asked: float) -> None:
        """R2: whatever nodes and workers do, a pause that a live scheduler was asked for ends in bounded time."""
        scheduler = self._facility.scheduler
        if scheduler.store is None or scheduler.troubled_at >= asked or self._changed[name] != asked:
            return
        (row,) = self._facility.rows(tables.session, tables.session.c.name == name)
        assert row["state"] != "PAUSING", f"R2: {name} has been pausing for {PAUSE_SECONDS_MAX} s"

    def _scale(self) -> None:
        name, change = self._name(), self._engine.random.choice(CHANGES)

        def body(tx: Transaction, row: Any) -> None:
            wanted = session_pb2.ComputeResources.FromString(row["compute_next"] or row["compute"])
            wanted.MergeFrom(session_pb2.ComputeResources(**change))
            sessions.update_compute(tx, self._facility.lanes, row, wanted, now=True)

        self._session(f"scale {change}", name, body)

    def _pull_on_a_job(self) -> None:
        rows = self._facility.rows(tables.job)
        if not rows:
            return
        job = self._engine.random.choice(rows)
        how = self._engine.random.choice((control.requeue, control.requeue, control.kill, control.cancel))
        if how is not control.requeue and jobs.streams(job):
            return  # what is cancelled for good is not expected to end well
        self._facility.person(f"{how.__name__} {job['job_id']}", lambda tx: how(tx, control.require(tx, job["job_id"])))

    def _turn_to_a_gpu(self) -> None:
        rows = self._facility.rows(tables.slot)
        if not rows:
            return
        key = self._engine.random.choice(rows)["slot_key"]
        match self._engine.random.choice(("drain", "quarantine", "clear", "clear")):
            case "drain":
                self._facility.person(f"drain {key}", lambda tx: gpus.drain(tx, key, "maintenance"))
            case "quarantine":
                self._facility.person(f"quarantine {key}", lambda tx: gpus.quarantine(tx, key, "maintenance"))
        self._engine.after(
            self._engine.between(10.0, 3000.0), lambda: self._facility.person(f"clear {key}", lambda tx: gpus.clear(tx, key))
        )

    def _fence(self) -> None:
        for node_id, machine in self._facility.machines.items():
            if not machine.powered:
                self._facility.person(f"fence {node_id}", lambda tx: nodes.fence(tx, node_id, "me: its power is off"))  # noqa: B023 at once

    def _hand_over(self) -> None:
        plan = self._engine.random.choice(PLANS)

        def body(tx: Transaction, row: Any) -> None:
            if plan:
                switching.switch(tx, self._facility.lanes, row, plan)
            else:
                switching.cancel(tx, row, "a person took it back.")

        self._session(f"hand over {plan}", "a", body)

    def _retry(self) -> None:
        name = self._name()
        self._session("retry", name, lambda tx, row: exposures.retry_quarantined(tx, row["session_id"]))

    def _stop_streaming_for_a_while(self) -> None:
        self._session("stop streaming", "a", lambda tx, row: streaming.stop_job(tx, row, "class2d_streaming"))
        self._engine.after(self._engine.between(1.0, 3000.0), self.start_streaming)

    def start_streaming(self) -> None:
        """Start what a person has stopped."""
        lanes = self._facility.lanes
        self._session("start streaming", "a", lambda tx, row: streaming.start_job(tx, lanes, row, "class2d_streaming"))

    def _fit(self, tx: Transaction, row: Any) -> None:
        """Ask for the workers that the session had: who was killed is replaced."""
        wanted = session_pb2.ComputeResources.FromString(row["compute_next"] or row["compute"])
        sessions.update_compute(tx, self._facility.lanes, row, wanted, now=True)

    # ------------------------------------------------------------------------------------------------ when all is well
    def clear_slots(self) -> None:
        """Put every slot back into service."""
        facility = self._facility
        for slot in facility.rows(tables.slot):
            key = slot["slot_key"]
            if slot["quarantined"] or slot["drained"]:
                facility.person(f"clear {key}", lambda tx: gpus.clear(tx, key))  # noqa: B023 at once

    def put_right(self) -> None:
        """Do what the page asks of a careful person: clear, start, requeue, retry."""
        facility = self._facility
        self.clear_slots()
        for name, session_id in facility.sessions.items():
            facility.empty_disk(name)
            (row,) = facility.rows(tables.session, tables.session.c.session_id == session_id)
            if row["state"] in ("PAUSED", "COMPLETED"):
                self._session("start", name, sessions.start)
            self._session("take slots back", name, lambda tx, row: switching.cancel(tx, row, "a person took it back."))
            self._session("fit", name, self._fit)
            if any(line.startswith(f"{name}/") for line in facility.left_to_do()):
                self._session("retry", name, lambda tx, row: exposures.retry_quarantined(tx, row["session_id"]))
        for job in facility.rows(tables.job, tables.job.c.state == "FAILED"):
            facility.person(f"requeue {job['job_id']}", lambda tx: control.requeue(tx, job))  # noqa: B023 at once
