"""Every process dies at every point before and after a commit or a send, once each, in one run; nothing is lost or doubled."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from frazil.api.agent.v1 import agent_pb2, agent_pb2_grpc
from frazil.api.exposure.v1.exposure_pb2 import OVERRIDE_ACCEPT, Exposure
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.scheduler.v1.scheduler_pb2 import Job, Node
from frazil.api.session.v1.session_pb2 import ComputeResources, Profile, Session, SessionParameters
from frazil.client import Client
from frazil.model.errors import ErrorKind, FrazilError
from integration.ingest.test_live_folder import movie
from model import laws
from system.crash_house import CrashHouse, failpoints

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]

MOVIES = 8
PARTICLES = 3


@pytest.fixture
def house(tmp_path: Path) -> Iterator[CrashHouse]:
    house = CrashHouse(tmp_path)
    house.open()
    try:
        yield house
    finally:
        house.close()


@pytest.fixture
def client(house: CrashHouse) -> Iterator[Client]:
    with Client(house.address, patience_seconds=3600.0) as client:
        yield client


def patiently(house: CrashHouse, what: str, body: Any) -> Any:
    """Repeat what a passing state refuses."""
    found: list[Any] = []

    def done() -> bool:
        try:
            found.append(body())
        except FrazilError as error:
            if error.kind is not ErrorKind.CONFLICT:
                raise
            return False
        return True

    house.until(done, what)
    return found[0]


class Ghost:
    """A node that dials in, says what it is told to, and is never seen again."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def say(self, *messages: agent_pb2.ConnectRequest) -> None:
        slot = scheduler_pb2.GpuSlot(slot_key="GPU-ghost#0", kind=scheduler_pb2.GpuSlot.KIND_GPU, memory_mib=100)
        hello = agent_pb2.Hello(node_id="ghost", boot_id="boot", incarnation="1", slots=[slot], programs=["frazil-nothing"])
        ended = threading.Event()

        def speak() -> Iterator[agent_pb2.ConnectRequest]:
            yield agent_pb2.ConnectRequest(hello=hello)
            yield from messages
            ended.wait(2.0)

        try:
            next(iter(agent_pb2_grpc.AgentServiceStub(self.channel).Connect(speak(), timeout=10.0)))
        except grpc.RpcError:
            pass  # the scheduler died of it, as it should
        finally:
            ended.set()


def state_of(client: Client, session: str) -> Session.State.ValueType:
    return client.get_session(session).state


def job_of(client: Client, session: str, job_type: str) -> Job:
    return next(job for job in client.jobs(session) if job.job_type == job_type)


def parameters(house: CrashHouse, **more: Any) -> SessionParameters:
    return SessionParameters(movie_folder=str(house.movies), particle_diameter_angstrom=140.0, pixel_size_angstrom=1.0, **more)


def administer(house: CrashHouse, client: Client) -> None:
    """Use every lever that does not touch the session of the run."""
    client.create_lane("spare", "node", {"nodes": ["nowhere*"]})
    client.update_lane("spare", {"nodes": ["elsewhere*"]})
    client.delete_lane("spare")
    client.create_session("side", parameters(house))
    client.save_profile(Profile(name="usual"), session="side")
    client.apply_profile("usual", "side")
    client.delete_profile("usual")
    client.clone_session("side", "copy")
    for name in ("side", "copy"):
        patiently(house, f"delete {name}", lambda name=name: client.delete_session(name, delete_results=True))


def run_jobs(house: CrashHouse, client: Client) -> None:
    """Use every lever on jobs, with an auxiliary one."""
    slot = "GPU-d#0"
    house.until(lambda: any(slot in (one.slot_key for one in node.slots) for node in client.nodes()), "the agent")
    client.drain_gpu(slot, "maintenance")
    job = client.submit_job("grid", "count", gpus=["GPU-d"], priority=1)
    client.set_job_priority(job.job_id, 7)
    client.clear_gpu(slot, "done")
    house.until(lambda: client.get_job(job.job_id).state in (Job.STATE_RUNNING, Job.STATE_DONE), "the auxiliary job")
    client.kill_job(job.job_id)
    house.until(lambda: client.get_job(job.job_id).state in (Job.STATE_CANCELLED, Job.STATE_DONE), "its end")
    if client.get_job(job.job_id).state == Job.STATE_CANCELLED:
        client.requeue_job(job.job_id)
    house.until(lambda: client.get_job(job.job_id).state == Job.STATE_DONE, "its second run")
    client.choose_templates("grid", job.job_id, new_exposures_only=True)
    other = client.submit_job("grid", "count", gpus=["GPU-nowhere", "GPU-d"])
    client.cancel_job(other.job_id)


def steer(house: CrashHouse, client: Client) -> None:
    """Scale, hand slots over, pause and resume the session of the run."""
    client.update_compute("grid", ComputeResources(preprocessing_workers=2), now=True)
    client.select_classes("grid", all_particles=True)
    client.reset_classes("grid")
    patiently(house, "stop 2D", lambda: client.stop_streaming_job("grid", "class2d_streaming"))
    patiently(house, "start 2D", lambda: client.start_streaming_job("grid", "class2d_streaming"))
    patiently(house, "hand over", lambda: client.switch_plan("grid", {"preprocess": 1, "class2d_streaming": 1}))
    patiently(house, "pause", lambda: client.pause("grid"))
    house.until(lambda: state_of(client, "grid") == Session.STATE_PAUSED, "the pause")
    patiently(house, "resume", lambda: client.start("grid"))


def curate(house: CrashHouse, client: Client) -> None:
    """Use every lever on parameters and exposures, in ways that redo nothing."""
    client.set_thresholds("grid", [])
    client.update_parameters("grid", parameters(house), new_exposures_only=True)
    done = next(iter(client.exposures("grid", states=[Exposure.STATE_DONE])))
    client.curate("grid", [done.exposure_id], OVERRIDE_ACCEPT)
    client.test_exposure(done.exposure_id, parameters(house))


def heal(client: Client) -> None:
    """Do what an operator would after so many deaths: try again what was given up."""
    for job in client.jobs("grid"):
        if job.state == Job.STATE_FAILED:
            client.requeue_job(job.job_id)
    counts = client.get_session("grid").counts
    if counts.quarantined > 1:  # more than the one that is bad
        client.retry_quarantined("grid")


def provoke(house: CrashHouse, client: Client, missing: set[str]) -> None:
    """Bring about what does not come by itself."""
    if any("leaving" in point for point in missing):
        house.terminate("agent")
    if any("gpu_fault" in point for point in missing):
        with house.xids.open("a") as file:
            file.write("GPU-d 79\n")
        Ghost(house.address).say(agent_pb2.ConnectRequest(gpu_fault=agent_pb2.GpuFault(gpu_uuid="GPU-ghost", xid=79)))
    if any("QuarantineGpu" in point for point in missing):
        client.quarantine_gpu("GPU-d#0", "test")
        client.clear_gpu("GPU-d#0", "test")
    if any("RetryQuarantined" in point for point in missing):
        client.retry_quarantined("grid")
    if any("FenceNode" in point for point in missing) and not any("Tick" in point for point in missing):
        ghost = next((node for node in client.nodes() if node.node_id == "ghost"), None)
        if ghost is not None and ghost.state == Node.STATE_LOST:
            client.fence_node("ghost", "nobody lives there")


def snapshot(ledger: Path) -> laws.Snapshot:
    with sqlite3.connect(ledger) as connection:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}  # noqa: S608


def test_nothing_is_lost_or_doubled_whatever_dies_wherever(house: CrashHouse, client: Client) -> None:
    expected = failpoints()
    compute = ComputeResources(preprocessing_workers=1)
    client.create_session("grid", parameters(house), compute=compute)
    patiently(house, "start", lambda: client.start("grid"))
    (house.movies / "bad.mrc").write_bytes(movie())
    for number in range(MOVIES // 2):
        (house.movies / f"m{number}.mrc").write_bytes(movie())
    administer(house, client)
    run_jobs(house, client)
    steer(house, client)
    for number in range(MOVIES // 2, MOVIES):
        (house.movies / f"m{number}.mrc").write_bytes(movie())

    def settled() -> bool:
        heal(client)
        counts = client.get_session("grid").counts
        return (counts.done, counts.quarantined, counts.ready, counts.running) == (MOVIES, 1, 0, 0)

    house.until(settled, "every movie")
    curate(house, client)
    finishing = {point for point in expected if "FinishJob" in point or "CompleteSession" in point}

    def all_but_finishing() -> bool:
        missing = expected - house.crashed() - finishing
        heal(client)
        if missing:
            provoke(house, client, missing)
        return not missing

    try:
        house.until(all_but_finishing, "the other failpoints")
    except AssertionError as error:
        raise AssertionError(f"never reached: {sorted(expected - house.crashed())}") from error
    client.clear_gpu("GPU-d#0", "test")
    client.complete("grid")
    house.until(lambda: (heal(client), state_of(client, "grid"))[1] == Session.STATE_COMPLETED, "the completion")
    house.until(lambda: house.workers() == [], "the workers' ends")
    assert expected - house.crashed() == set()
    assert house.odd_ends == []

    counts = client.get_session("grid").counts
    blocks = list(client.particle_blocks("grid"))
    assert counts.particles == MOVIES * PARTICLES
    assert [block.sequence for block in blocks] == list(range(1, MOVIES + 1))
    assert len({block.exposure_id for block in blocks}) == MOVIES
    house.close()
    now = snapshot(house.data / "ledger.sqlite")
    laws.check_leases(now)
    laws.check_sessions(now)
    laws.check_exposures(now)
    assert [row["sequence"] for row in now["event"]] == list(range(1, len(now["event"]) + 1))
    newest = max(now["checkpoint"], key=lambda row: row["number"])
    assert newest["cursor_sequence"] == MOVIES
