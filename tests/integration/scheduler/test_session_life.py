"""Cloning, deleting, scaling and profiles of sessions over the wire, on a real scheduler and a real disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from frazil.api.agent.v1 import agent_pb2
from frazil.api.event.v1 import event_pb2
from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind
from frazil.rpc.client import new_request_id
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.service import Scheduler, running
from integration.scheduler.fakes import WAIT_SECONDS, Agent, Client
from integration.scheduler.test_service import refused

LANES = [LaneSettings(name="default")]


async def ask(client: Client, rpc: str, /, **values: Any) -> Any:
    request = getattr(session_pb2, f"{rpc}Request")(request_id=new_request_id(), **values)
    return await getattr(client.sessions, rpc)(request)


async def told(client: Client, session_id: str, kind: str) -> None:
    """Wait for an event of a session, one that was told before included."""
    async with asyncio.timeout(WAIT_SECONDS):
        call = client.events.WatchEvents(event_pb2.WatchEventsRequest())
        async for reply in call:
            if (session_id, kind) in [(event.session_id, event.kind) for event in reply.events]:
                call.cancel()
                return


def is_there(path: str | Path) -> bool:
    return Path(path).exists()


async def test_a_clone_has_the_values_and_none_of_the_results(client: Client, movies: Path, tmp_path: Path) -> None:
    source = await client.create(movies, until="", workers=3)
    await client.start("grid1")
    await client.register(source.session_id, "a.tiff")
    await ask(client, "UpdateCompute", session="grid1", compute=session_pb2.ComputeResources(preprocessing_workers=5))
    (tmp_path / "other movies").mkdir()
    clone = await ask(client, "CloneSession", session="grid1", name="grid2", movie_folder=str(tmp_path / "other movies"))
    assert clone.state == session_pb2.Session.STATE_PAUSED
    assert clone.counts == session_pb2.SessionCounts()
    assert clone.compute.preprocessing_workers == 5  # what the source will have
    expected = session_pb2.SessionParameters()
    expected.CopyFrom(source.parameters)
    expected.movie_folder = str(tmp_path / "other movies")
    assert clone.parameters == expected
    assert Path(clone.folder) == tmp_path / "data" / "grid2"
    error = await refused(ask(client, "CloneSession", session="grid1", name="grid2"))
    assert error.kind is ErrorKind.ALREADY_EXISTS


@pytest.mark.parametrize("delete_results", [True, False])
async def test_a_deleted_session_is_forgotten_with_or_without_its_results(
    client: Client, movies: Path, delete_results: bool
) -> None:
    (movies / "a.tiff").write_bytes(b"movie")
    session = await client.create(movies)
    result = Path(session.folder) / "results" / "x"
    result.mkdir(parents=True)
    reply = await ask(client, "DeleteSession", session="grid1", delete_results=delete_results)
    assert reply == session_pb2.DeleteSessionResponse(folder=session.folder, results_deleted=delete_results)
    await told(client, session.session_id, "session_deleted")
    assert (await refused(client.get("grid1"))).kind is ErrorKind.NOT_FOUND
    assert is_there(result) is not delete_results
    assert (movies / "a.tiff").read_bytes() == b"movie"
    if delete_results:
        assert (await client.create(movies)).session_id != session.session_id
    else:
        error = await refused(client.create(movies))
        assert "holds the results of a session that was deleted" in error.sentence


async def test_a_deletion_goes_on_after_a_restart(settings: Settings, movies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: object) -> None:
        """Nothing is deleted by this scheduler."""

    with monkeypatch.context() as patched:
        patched.setattr("frazil_scheduler.deleting.Deleter.tick", never)
        async with running(settings, LANES, grace_seconds=0.2) as (_, address), Client(address) as client:
            session = await client.create(movies)
            await ask(client, "DeleteSession", session="grid1", delete_results=True)
            state = (await client.sessions.GetSession(session_pb2.GetSessionRequest(session="grid1"))).state
            assert state == session_pb2.Session.STATE_DELETING
    assert is_there(session.folder)
    async with running(settings, LANES, grace_seconds=0.2) as (_, address), Client(address) as client:
        await told(client, session.session_id, "session_deleted")
    assert not is_there(session.folder)


async def test_a_folder_that_cannot_be_deleted_is_told_and_kept(client: Client, movies: Path) -> None:
    session = await client.create(movies)
    (Path(session.folder) / ".frazil-session").write_text("somebody else\n")
    error = await refused(ask(client, "DeleteSession", session="grid1", delete_results=True))
    assert error.kind is ErrorKind.CONFLICT
    assert "then the folder by hand" in error.sentence
    assert is_there(session.folder)


async def test_what_fits_no_gpu_is_refused_at_once_and_a_missing_node_is_waited_for(client: Client, movies: Path) -> None:
    wanted = session_pb2.Session(name="k3")
    wanted.parameters.movie_folder = str(movies)
    wanted.parameters.particle_diameter_angstrom = 140
    wanted.parameters.camera = "k3"
    waiting = await ask(client, "CreateSession", session=wanted)
    assert (await client.start("k3")).state == session_pb2.Session.STATE_RUNNING
    advice = await client.sessions.AdviseCompute(session_pb2.AdviseComputeRequest(session=waiting.session_id))
    assert {job.reason for job in advice.jobs} == {"NO_NODE"}
    agent = Agent(client, memory_mib=9_000)
    await agent.dial()
    wanted.name = "k3b"
    error = await refused(ask(client, "CreateSession", session=wanted))
    assert (error.reason, error.sentence.split(":")[0]) == ("NO_SLOT_FITS", "No slot of lane 'default' is large enough")


async def test_profiles_are_saved_listed_applied_and_deleted(client: Client, movies: Path) -> None:
    source = await client.create(movies, until="", workers=4)
    saved = await ask(client, "SaveProfile", profile=session_pb2.Profile(name="krios", description="K3"), session="grid1")
    assert (saved.parameters.movie_folder, saved.compute.preprocessing_workers) == ("", 4)
    lean = session_pb2.Profile(name="lean")
    lean.parameters.pixel_size_angstrom = 0.83
    lean.compute.preprocessing_workers = 2
    await ask(client, "SaveProfile", profile=lean)
    listed = await client.sessions.ListProfiles(session_pb2.ListProfilesRequest())
    assert [profile.name for profile in listed.profiles] == ["krios", "lean"]
    target = await client.create(movies, "grid2", until="preprocess")
    applied = await ask(client, "ApplyProfile", profile="krios", session="grid2")
    assert applied.parameters == source.parameters
    assert applied.compute.preprocessing_workers == 4
    applied = await ask(client, "ApplyProfile", profile="lean", session="grid2")
    assert applied.parameters.pixel_size_angstrom == 0.83
    assert applied.parameters.particle_diameter_angstrom == target.parameters.particle_diameter_angstrom
    assert applied.parameters.movie_folder == str(movies)
    await client.start("grid2")
    assert "pause it" in (await refused(ask(client, "ApplyProfile", profile="lean", session="grid2"))).sentence
    await ask(client, "DeleteProfile", name="lean")
    assert (await refused(ask(client, "DeleteProfile", name="lean"))).kind is ErrorKind.NOT_FOUND
    bad = session_pb2.Profile(name="bad")
    bad.compute.preprocessing_lane = "nowhere"
    assert "There is no lane 'nowhere'" in (await refused(ask(client, "SaveProfile", profile=bad))).sentence


async def test_a_session_with_results_is_not_given_other_parameters(
    served: tuple[Scheduler, str], client: Client, movies: Path
) -> None:
    session = await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    lease = await agent.start()
    await client.register(session.session_id, "a.tiff")
    await client.commit(lease, (await client.claim(lease)).claims[0])
    await client.pause("grid1")
    await agent.end(lease)
    await client.until("grid1", "PAUSED")
    other = session_pb2.Profile(name="other")
    other.parameters.pixel_size_angstrom = 0.5
    await ask(client, "SaveProfile", profile=other)
    error = await refused(ask(client, "ApplyProfile", profile="other", session="grid1"))
    assert error.reason == "SESSION_HAS_RESULTS"


async def test_a_hand_over_and_streaming_jobs_over_the_wire(client: Client, movies: Path) -> None:
    session = await client.create(movies, until="")
    agent = Agent(client, slots=1)
    await agent.dial()
    await client.start("grid1")
    preprocessing = await agent.start()
    switched = await ask(client, "SwitchPlan", session="grid1", jobs={"class2d_streaming": 1})
    assert switched.slot_switch.sentence == "Handing over to streaming 2D classification."
    assert (await agent.expect("stop")).stop.mode == agent_pb2.Stop.MODE_DRAIN
    await agent.end(preprocessing)
    await agent.start()
    await told(client, session.session_id, "session_slots_done")
    assert [job.job_type for job in await client.jobs("grid1") if job.parked] == ["preprocess"]
    taken_back = await ask(client, "SwitchPlan", session="grid1")
    assert taken_back.slot_switch.state == session_pb2.SlotSwitch.STATE_CANCELLED
    await ask(client, "StopStreamingJob", session="grid1", job_type="class2d_streaming")
    await ask(client, "StartStreamingJob", session="grid1", job_type="class2d_streaming")
    error = await refused(ask(client, "StartStreamingJob", session="grid1", job_type="preprocess"))
    assert error.reason == "JOB_TYPE_NOT_STREAMING"
