"""Eight hours of a session on few GPUs whose jobs take turns: the real ledger, agents and policy on a virtual clock.

Movies come in bursts, sometimes faster than one GPU can take them. Classes must never be much older than the interval while
there is something new for them, and preprocessing must never starve.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from conftest import MEMORY_FOLDER
from frazil_scheduler.ledger import tables
from model.world import Worker, World

STEP_SECONDS = 30.0  # also what one movie takes
CAPACITY = 3600 / STEP_SECONDS  # movies an hour on one GPU
INTERVAL_MINUTES = 20
TURN_MINUTES = 5
START_SECONDS = 60.0  # of a streaming worker, until it has read what it had
UPDATE_SECONDS = 60.0
SWITCH_SECONDS = 60.0  # the longest a change of hands takes here: drain, proof, start
BURSTS = ((0, 60, 80), (75, 100, 240), (130, 300, 60), (330, 345, 480), (390, 450, 100))  # from, to (minutes), movies an hour


@dataclass
class Microscope:
    """Movies by the hour, in bursts."""

    owed: float = 0.0
    sent: int = 0

    def movies(self, minute: float) -> int:
        rate = sum(rate for start, end, rate in BURSTS if start <= minute < end)
        self.owed += rate * STEP_SECONDS / 3600
        count, self.owed = int(self.owed), self.owed - int(self.owed)
        self.sent += count
        return count


@dataclass
class Facility:
    """One node with some GPUs, one session, workers that take their time."""

    world: World
    session_id: str
    microscope: Microscope = field(default_factory=Microscope)
    registered: int = 0
    started: dict[str, float] = field(default_factory=dict)  # by lease
    saved: dict[str, float] = field(default_factory=dict)
    block_times: list[float] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)

    def step(self) -> None:
        world = self.world
        for _ in range(self.microscope.movies((world.mono - 1000.0) / 60)):
            self.registered += 1
            world.register(self.session_id, f"m{self.registered}.tiff")
        world.advance(STEP_SECONDS)
        world.settle("node")
        leased = select(tables.lease.c.lease_id, tables.job.c.job_type).join(tables.job).subquery()
        types = {row["lease_id"]: row["job_type"] for row in world.rows(leased)}
        for worker in list(world.workers.values()):
            kind = types[worker.token.lease_id]
            if worker.token.lease_id not in self.started:
                self.started[worker.token.lease_id] = world.mono
                self.turns.append(kind)
            (self.preprocess if kind == "preprocess" else self.classify)(worker)
        world.settle("node")
        (row,) = world.rows(tables.session)
        self.block_times += [world.mono] * (row["block_sequence"] - len(self.block_times))

    def preprocess(self, worker: Worker) -> None:
        if worker.claims:
            self.world.commit(worker)
        if worker.draining:
            self.world.end(worker, 0)
        else:
            self.world.claim(worker, 1)

    def classify(self, worker: Worker) -> None:
        lease_id, now = worker.token.lease_id, self.world.mono
        ready = now - self.started[lease_id] >= START_SECONDS
        if ready and (worker.draining or now - self.saved.get(lease_id, 0.0) >= UPDATE_SECONDS):
            self.world.checkpoint(worker)
            self.saved[lease_id] = now
        if worker.draining:
            self.world.end(worker, 0)

    def oldest_unseen(self) -> float:
        """Return for how long the oldest particle block has waited for the classes."""
        cursor = max((row["cursor_sequence"] for row in self.world.rows(tables.checkpoint)), default=0)
        return self.world.mono - self.block_times[cursor] if cursor < len(self.block_times) else 0.0

    def backlog(self) -> int:
        (row,) = self.world.rows(tables.session)
        return int(row["ready"] + row["running"])


def begin(folder: Path, gpus: int, *, workers_wanted: int = 1, enabled: bool = True) -> Facility:
    world = World(folder, str(folder / "ledger.sqlite"))
    alternation = {"enabled": enabled, "update_interval_minutes": INTERVAL_MINUTES, "turn_minutes_min": TURN_MINUTES}
    session_id = world.create("s", workers_wanted=workers_wanted, alternation=alternation)
    world.change(session_id, "start")
    world.hello("node", {f"GPU-{number}#0": 24_000 for number in range(gpus)})
    world.settle("node")
    return Facility(world, session_id)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory: what a disk takes to flush is not the matter here."""
    with tempfile.TemporaryDirectory(dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None) as name:
        yield Path(name)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("gpus", "hours"), [(1, 8.0), (2, 2.1)])
def test_few_gpus_give_fresh_classes_without_hands(folder: Path, gpus: int, hours: float) -> None:
    facility = begin(folder, gpus, workers_wanted=gpus)
    stalest, longest_queue, starved, starving = 0.0, 0, 0.0, 0.0
    for _ in range(int(hours * 3600 / STEP_SECONDS)):
        done = len(facility.block_times)
        facility.step()
        stalest = max(stalest, facility.oldest_unseen())
        longest_queue = max(longest_queue, facility.backlog())
        starving = starving + STEP_SECONDS if facility.backlog() and len(facility.block_times) == done else 0.0
        starved = max(starved, starving)
    turn = 60.0 * max(TURN_MINUTES, INTERVAL_MINUTES / 2)
    first_update = START_SECONDS + UPDATE_SECONDS + STEP_SECONDS
    assert 0 < stalest <= 60.0 * (INTERVAL_MINUTES + TURN_MINUTES) + SWITCH_SECONDS + first_update
    assert starved <= turn + SWITCH_SECONDS + first_update
    share = 60.0 * INTERVAL_MINUTES / (60.0 * INTERVAL_MINUTES + turn + 2 * SWITCH_SECONDS + first_update)
    beyond = max((rate - share * CAPACITY) * (end - start) / 60 for start, end, rate in BURSTS)
    assert longest_queue <= beyond + CAPACITY * turn / 3600
    assert facility.backlog() == 0
    assert len(facility.block_times) == facility.microscope.sent
    assert min(facility.turns.count(kind) for kind in ("preprocess", "class2d_streaming")) > hours
    facility.world.store.close()


def test_without_alternation_one_gpu_never_gives_classes(folder: Path) -> None:
    facility = begin(folder, 1, enabled=False)
    for _ in range(int(2400 / STEP_SECONDS)):
        facility.step()
    assert facility.oldest_unseen() > 60.0 * (INTERVAL_MINUTES + TURN_MINUTES) + 4 * SWITCH_SECONDS
    facility.world.store.close()
