"""Every lane backend of a cluster keeps the contract, on a cluster that really runs what it is given."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from clusters.batch_system import BatchSystem
from clusters.kubernetes_api import KubernetesApi
from clusters.real_kubernetes import Namespace
from frazil.model.errors import FrazilError
from frazil_scheduler import lanes
from frazil_scheduler.lanes import ClusterBackend, ClusterEntry, ClusterRequest, ClusterState

EXAMPLES = Path(__file__).parents[2] / "examples/cluster"
SECONDS = 15.0
AGENT = """#!/bin/sh
echo "$@" > {folder}/$3.arguments
trap 'echo TERM >> {folder}/$3.signals; exit 0' TERM
code=$(cat {folder}/exit_code)
[ -z "$code" ] || exit $code
echo $$ > {folder}/$3.pid
while :; do sleep 0.05; done
"""


class Site:
    """A cluster, an agent's stand-in on it, and how its operator makes it misbehave."""

    backend: str
    options: Mapping[str, Any]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent = folder / "programs/frazil-agent"
        self.agent.parent.mkdir(parents=True)
        self.agent.write_text(AGENT.format(folder=folder))
        self.agent.chmod(0o755)
        self.exit_code("")

    def exit_code(self, code: str) -> None:
        """Let agents end at once with this code."""
        (self.folder / "exit_code").write_text(code)

    def arguments(self, name: str) -> str:
        """Return what an agent was started with."""
        return (self.folder / f"{name}.arguments").read_text()

    def alive(self, name: str) -> bool:
        """Tell whether an agent runs."""
        try:
            os.kill(int((self.folder / f"{name}.pid").read_text()), 0)
        except (OSError, ValueError):
            return False
        return True

    def request(self, name: str) -> ClusterRequest:
        """Return a request for an agent."""
        return ClusterRequest(
            name=name,
            program="frazil-preprocess",
            scheduler_address="head:50051",
            folder=self.folder / "lane" / name,
            gpu_memory_min_mib=8000,
            session_id="s1",
            job_id="s1-preprocess-1",
        )

    def make(self) -> ClusterBackend:
        """Return the lane, as after a restart of the scheduler."""
        backend = lanes.cluster_of(lanes.load(self.backend)("big", self.options))
        assert backend is not None
        return backend

    def slots(self, count: int) -> None: ...
    def walltime(self, seconds: float) -> None: ...
    def lose_reply(self) -> None: ...
    def full(self) -> str: ...
    def refuse(self) -> str: ...
    def lists(self) -> int: ...
    def break_down(self) -> None: ...
    def close(self) -> None: ...


class BatchSite(Site):
    """A batch system by its commands."""

    backend = "slurm"

    def __init__(self, folder: Path, dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self.dialect = dialect
        self.system = BatchSystem(folder / "batch")
        self.options = {"agent": str(self.agent), "drain_seconds": 1.0, "walltime_seconds": 3600}
        if dialect != "slurm":
            self.options["templates"] = str(EXAMPLES / dialect)
        monkeypatch.setenv("PATH", f"{self.system.bin}:{os.environ['PATH']}")

    def slots(self, count: int) -> None:
        self.system.rule(slots=count)

    def walltime(self, seconds: float) -> None:
        self.system.rule(walltime=seconds)

    def lose_reply(self) -> None:
        self.system.rule(lose_replies=1)

    def full(self) -> str:
        return "Resources" if self.dialect == "slurm" else ""

    def refuse(self) -> str:
        words = "Batch job submission failed: Job violates accounting/QOS policy"
        self.system.rule(refuse=words)
        return words

    def lists(self) -> int:
        return sum(self.system.calls(name) for name in ("squeue", "qstat", "bjobs"))

    def break_down(self) -> None:
        self.system.rule(down=True)

    def close(self) -> None:
        self.system.close()


class KubernetesSite(Site):
    """A Kubernetes cluster."""

    backend = "kubernetes"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        path = f"{self.agent.parent}:{os.environ['PATH']}"
        self.api = KubernetesApi(folder / "api", os.environ | {"PATH": path})
        self.options = self.api.options

    def slots(self, count: int) -> None:
        self.api.slots = count

    def walltime(self, seconds: float) -> None:
        self.api.walltime = seconds

    def lose_reply(self) -> None:
        self.api.lose_replies = 1

    def full(self) -> str:
        return "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."

    def refuse(self) -> str:
        self.api.refuse = "exceeded quota"
        return self.api.refuse

    def lists(self) -> int:
        return self.api.lists // 2  # of jobs and of their pods

    def break_down(self) -> None:
        self.api.server.shutdown()
        self.api.server.server_close()

    def close(self) -> None:
        self.api.close()


class RealKubernetesSite(Site):
    """A Kubernetes control plane of the real programs."""

    backend = "kubernetes"

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        super().__init__(folder)
        path = f"{self.agent.parent}:{os.environ['PATH']}"
        self.namespace = Namespace(kubeconfig, folder / "namespace", os.environ | {"PATH": path})
        self.options = self.namespace.options

    def slots(self, count: int) -> None:
        self.namespace.gpus(count)

    def walltime(self, seconds: float) -> None:
        self.options = {**self.options, "walltime_seconds": seconds}

    def lose_reply(self) -> None:
        self.namespace.proxy.lose_replies = 1

    def full(self) -> str:
        return "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."

    def refuse(self) -> str:
        return self.namespace.refuse()

    def lists(self) -> int:
        return self.namespace.proxy.lists // 2  # of jobs and of their pods

    def break_down(self) -> None:
        self.namespace.proxy.break_down()

    def close(self) -> None:
        self.namespace.close()


SITES: dict[str, Callable[[Path, pytest.MonkeyPatch], Site]] = {
    "slurm-slurm": lambda folder, monkeypatch: BatchSite(folder, "slurm", monkeypatch),
    "slurm-pbs": lambda folder, monkeypatch: BatchSite(folder, "pbs", monkeypatch),
    "slurm-lsf": lambda folder, monkeypatch: BatchSite(folder, "lsf", monkeypatch),
    "kubernetes": lambda folder, _: KubernetesSite(folder),
}


@pytest.fixture(params=[*sorted(SITES), pytest.param("real-kubernetes", marks=pytest.mark.long)])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    if request.param == "real-kubernetes":
        site: Site = RealKubernetesSite(tmp_path, request.getfixturevalue("real_kubernetes"))
    else:
        site = SITES[request.param](tmp_path, monkeypatch)
    yield site
    site.close()


async def listed(backend: ClusterBackend, name: str) -> list[ClusterEntry]:
    entries = await backend.list([name])
    ids = {entry.cluster_job_id for entry in entries if entry.name == name}
    return [entry for entry in entries if entry.cluster_job_id in ids]


async def until(backend: ClusterBackend, name: str, *states: ClusterState | None) -> ClusterEntry | None:
    """Poll the list until a job is in one of the states; None stands for not listed."""
    end = time.monotonic() + SECONDS
    while True:
        entries = await listed(backend, name)
        found = entries[0] if entries else None
        if (found.state if found else None) in states:
            return found
        assert time.monotonic() < end, f"{name} is {found}, not {states}"
        await asyncio.sleep(0.05)


async def runs(site: Site, backend: ClusterBackend, name: str) -> ClusterEntry:
    entry = await until(backend, name, ClusterState.RUNNING)
    assert entry is not None
    end = time.monotonic() + SECONDS
    while not site.alive(name):
        assert time.monotonic() < end, f"the agent of {name} does not start"
        await asyncio.sleep(0.02)
    return entry


def test_every_cluster_backend_has_a_site() -> None:
    clusters = {name for name in lanes.names() if lanes.load(name)("x", {}).policy is not None}
    assert clusters == {name.partition("-")[0] for name in SITES}


async def test_a_job_carries_an_agent_that_dials_home(site: Site) -> None:
    backend = site.make()
    number = await backend.submit(site.request("frazil-00000001"))
    entry = await runs(site, backend, "frazil-00000001")
    assert (entry.cluster_job_id, entry.name) == (number, "frazil-00000001")
    given = site.arguments("frazil-00000001")
    for wanted in ("--once", "--node-id frazil-00000001", "--scheduler head:50051", "--programs frazil-preprocess"):
        assert wanted in given


async def test_all_are_listed_in_one_call_and_a_waiting_one_with_the_clusters_own_words(site: Site) -> None:
    site.slots(1)
    backend = site.make()
    names = [f"frazil-0000000{number}" for number in range(1, 5)]
    for name in names:
        await backend.submit(site.request(name))
    await until(backend, names[0], ClusterState.RUNNING)
    before = site.lists()
    entries = {entry.name: entry for entry in await backend.list(names)}
    assert site.lists() == before + 1
    assert [entries[name].state for name in names] == [ClusterState.RUNNING, *[ClusterState.PENDING] * 3]
    assert entries[names[3]].reason == site.full()


@pytest.mark.parametrize("running", [True, False])
async def test_a_cancelled_job_is_dead_when_the_cluster_says_so(site: Site, running: bool) -> None:
    site.slots(1 if running else 0)
    backend = site.make()
    number = await backend.submit(site.request("frazil-00000001"))
    if running:
        await runs(site, backend, "frazil-00000001")
    await backend.cancel([number])
    await until(backend, "frazil-00000001", None, ClusterState.CANCELLED, ClusterState.FAILED, ClusterState.COMPLETED)
    assert not site.alive("frazil-00000001")


@pytest.mark.parametrize(("code", "state"), [("0", ClusterState.COMPLETED), ("3", ClusterState.FAILED)])
async def test_an_ended_agent_is_an_ended_job(site: Site, code: str, state: ClusterState) -> None:
    site.exit_code(code)
    backend = site.make()
    await backend.submit(site.request("frazil-00000001"))
    ended = (state, ClusterState.COMPLETED) if getattr(site, "dialect", "") == "pbs" else (state,)  # qstat says only that
    await until(backend, "frazil-00000001", *ended)


async def test_at_the_end_of_its_time_a_job_is_over(site: Site) -> None:
    site.walltime(1.5)
    backend = site.make()
    await backend.submit(site.request("frazil-00000001"))
    await runs(site, backend, "frazil-00000001")
    entry = await until(backend, "frazil-00000001", *[state for state in ClusterState if state.terminal])
    assert not site.alive("frazil-00000001")
    assert "TERM" in (site.folder / "frazil-00000001.signals").read_text()
    if site.backend == "kubernetes":
        assert entry is not None
        assert entry.state is ClusterState.TIMEOUT


async def test_a_submission_without_an_answer_is_found_by_its_name(site: Site) -> None:
    site.lose_reply()
    backend = site.make()
    with pytest.raises(FrazilError) as caught:
        await backend.submit(site.request("frazil-00000001"))
    assert caught.value.reason == "CLUSTER_UNAVAILABLE"
    (entry,) = await listed(site.make(), "frazil-00000001")
    assert entry.name == "frazil-00000001"
    await backend.cancel([entry.cluster_job_id])
    await until(backend, "frazil-00000001", None, *[state for state in ClusterState if state.terminal])


async def test_a_second_submission_is_the_same_job_or_shows_as_a_second_one(site: Site) -> None:
    backend = site.make()
    numbers = {await backend.submit(site.request("frazil-00000001")) for _ in range(2)}
    assert {entry.cluster_job_id for entry in await listed(backend, "frazil-00000001")} == numbers


async def test_a_refusal_is_told_in_the_clusters_words(site: Site) -> None:
    words = site.refuse()
    with pytest.raises(FrazilError) as caught:
        await site.make().submit(site.request("frazil-00000001"))
    assert caught.value.reason == "CLUSTER_REFUSED"
    assert words in caught.value.sentence


async def test_a_cluster_that_does_not_answer_is_one_sentence_and_no_empty_list(site: Site) -> None:
    backend = site.make()
    site.break_down()
    with pytest.raises(FrazilError) as caught:
        await backend.list(["frazil-00000001"])
    assert caught.value.reason == "CLUSTER_UNAVAILABLE"
    assert "\n" not in caught.value.sentence


async def test_unknown_jobs_are_not_listed_and_may_be_cancelled(site: Site) -> None:
    backend = site.make()
    assert await listed(backend, "frazil-0000000f") == []
    await backend.cancel(["77"])


async def test_the_lane_after_our_restart_knows_the_job(site: Site) -> None:
    number = await site.make().submit(site.request("frazil-00000001"))
    entry = await runs(site, site.make(), "frazil-00000001")
    assert entry.cluster_job_id == number
