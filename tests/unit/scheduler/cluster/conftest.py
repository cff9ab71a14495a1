"""A facility with a lane on a cluster whose every word is the test's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from frazil_scheduler.cluster import pilots
from frazil_scheduler.cluster.loop import provision
from frazil_scheduler.lanes import ClusterEntry, ClusterPolicy, ClusterState
from frazil_scheduler.ledger import tables
from model.world import World


class Lane:
    """The scheduler's side of a cluster's lane."""

    operator_options: frozenset[str] = frozenset()

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.policy = ClusterPolicy(
            title="Slurm",
            gpus=True,
            max_jobs=4,
            list_seconds=10.0,
            idle_seconds=60.0,
            walltime_seconds=0.0,
            handover_seconds=900.0,
            drain_seconds=180.0,
            scheduler_address="",
        )

    def accepts(self, node_id: str) -> bool:
        return False

    def node_globs(self) -> Sequence[str]:
        return ()


class Cluster:
    """The ledger, with a lane "cluster" beside the default one, and the cluster's answers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lane = Lane("cluster", {})
        world.lanes["cluster"] = self.lane  # type: ignore[assignment]
        self._numbers = iter(range(1, 1000))
        self.asked_for: list[str] = []

    def session(self, name: str = "s", *, until: str = "preprocess", movies: int = 1) -> str:
        """Start a session in the lane, with movies that wait."""
        lanes = dict.fromkeys(("preprocessing_lane", "reconstruction_lane", "auxiliary_lane"), "cluster")
        session_id = self.world.create(name, until=until, **lanes)
        self.world.change(session_id, "start")
        for number in range(movies):
            self.world.register(session_id, f"{name}-{number}")
        return session_id

    def ask(self) -> tuple[list[str], list[str]]:
        """Decide; return what is to be submitted and what is to be cancelled."""
        return self.world.store.transact(partial(provision, lane="cluster", policy=self.lane.policy))

    def submit(self) -> list[str]:
        """Decide, and let the cluster take all of it."""
        names, _ = self.ask()
        for name in names:
            self.world.store.transact(partial(pilots.submitted, name=name, cluster_job_id=str(next(self._numbers))))
        return names

    def says(self, *entries: ClusterEntry) -> tuple[list[str], list[str]]:
        """Take in a list; return the identities to cancel and the names to submit again."""
        observe = partial(pilots.observe, lane="cluster", policy=self.lane.policy, entries=entries)
        return self.world.store.transact(observe)

    def entry(self, name: str, state: ClusterState = ClusterState.RUNNING, number: str = "", **more: Any) -> ClusterEntry:
        """Return what a list says of a cluster job."""
        return ClusterEntry(cluster_job_id=number or self.row(name)["cluster_job_id"], name=name, state=state, **more)

    def row(self, name: str) -> Any:
        """Return a cluster job's row."""
        (row,) = self.world.rows(tables.cluster_job, tables.cluster_job.c.name == name)
        return row

    def come(self, name: str, memory_mib: int = 24_000) -> None:
        """Let a cluster job's agent dial in and do as it is told."""
        self.world.hello(name, {f"GPU-{name}#0": memory_mib})
        self.world.settle(name)

    def serving(self) -> str:
        """Start a session's worker in the lane; return its cluster job."""
        (name,) = self.submit()
        self.come(name)
        return name


@pytest.fixture
def cluster(tmp_path: Path, ledger: str) -> Iterator[Cluster]:
    """An empty facility with a cluster's lane."""
    world = World(tmp_path, ledger)
    yield Cluster(world)
    world.store.close()
