"""A session's life over the wire: a scripted agent and worker against the real scheduler."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from frazil.api.agent.v1 import agent_pb2
from frazil.api.event.v1 import event_pb2
from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.client import new_request_id
from frazil.rpc.errors import from_rpc_error
from frazil_scheduler.config import LaneSettings, Settings
from frazil_scheduler.domain import retention
from frazil_scheduler.service import Scheduler, running
from integration.scheduler.fakes import Agent, Client, commit_request


async def refused(call: object) -> FrazilError:
    """Await a call that must fail and return its error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_rpc_error(caught.value)


async def test_a_session_from_start_to_completed(client: Client, movies: Path, tmp_path: Path) -> None:
    session = await client.create(movies, until="")
    assert session.state == session_pb2.Session.STATE_PAUSED
    assert Path(session.folder) == tmp_path / "data" / "grid1"
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    first, second = await agent.start(), await agent.start()
    attached = await client.workers.Attach(worker_pb2.AttachRequest(lease=first))
    assert (attached.job_type, attached.session.folder) == ("preprocess", session.folder)
    assert (await client.workers.Attach(worker_pb2.AttachRequest(lease=second))).job_type == "class2d_streaming"
    replies = await client.register(session.session_id, "a.tiff", "b.tiff", "a.tiff")
    assert [reply.created for reply in replies] == [True, True, False]
    for expected in (1, 2):
        claimed = await client.claim(first)
        assert await client.commit(first, claimed.claims[0]) == expected
    await client.complete("grid1")
    assert (await client.claim(first)).drained
    await client.workers.FinishJob(worker_pb2.FinishJobRequest(request_id=new_request_id(), lease=first))
    await agent.end(first)
    blocks = await client.workers.ReadParticleBlocks(worker_pb2.ReadParticleBlocksRequest(lease=second))
    assert [block.sequence for block in blocks.blocks] == [1, 2]
    assert blocks.end_of_input
    averages = reconstruction_pb2.ClassAverages(
        averages="classes.mrcs", particle_count=10, particle_block_sequence=2, final=True
    )
    published = await client.workers.PublishClassAverages(
        worker_pb2.PublishClassAveragesRequest(request_id=new_request_id(), lease=second, class_averages=averages)
    )
    assert published.revision == 1
    await client.workers.FinishJob(worker_pb2.FinishJobRequest(request_id=new_request_id(), lease=second))
    await agent.end(second)
    done = await client.until("grid1", "COMPLETED")
    assert (done.counts.found, done.counts.done, done.counts.particles, done.counts.particles_classified) == (2, 2, 10, 10)
    newest = await client.reconstruction.GetClassAverages(reconstruction_pb2.GetClassAveragesRequest(session="grid1"))
    assert (newest.revision, newest.session_id, newest.final) == (1, session.session_id, True)
    jobs = await client.jobs("grid1")
    assert {job.state for job in jobs} == {scheduler_pb2.Job.STATE_DONE}


async def test_a_claim_waits_for_a_movie_and_a_repeat_returns_the_same(client: Client, movies: Path) -> None:
    session = await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    token = await agent.start()
    request = worker_pb2.ClaimExposuresRequest(lease=token, max_count=2, wait_seconds=20, request_id="claim-1")
    waiting = asyncio.ensure_future(client.workers.ClaimExposures(request))
    await asyncio.sleep(0)
    await client.register(session.session_id, "a.tiff")
    reply = await asyncio.wait_for(waiting, 5)
    assert [claim.exposure.file.relative_path for claim in reply.claims] == ["a.tiff"]
    assert await client.workers.ClaimExposures(request) == reply


async def test_a_lost_reply_changes_nothing(client: Client, movies: Path) -> None:
    session = await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    token = await agent.start()
    await client.register(session.session_id, "a.tiff")
    claim = (await client.claim(token)).claims[0]
    request = commit_request(token, claim)
    first = await client.workers.CommitExposure(request)
    assert await client.workers.CommitExposure(request) == first
    request.result.particle_count += 1
    error = await refused(client.workers.CommitExposure(request))
    assert (error.reason, error.kind) == ("REQUEST_ID_REUSED", ErrorKind.INVALID)
    again = await refused(client.workers.FailExposure(worker_pb2.FailExposureRequest(lease=token)))
    assert again.reason == "REQUEST_ID_MISSING"
    assert (await client.get("grid1")).counts.particles == 5


async def test_pausing_stops_the_worker_and_resuming_keeps_the_job(client: Client, movies: Path) -> None:
    session = await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    token = await agent.start()
    await client.register(session.session_id, "a.tiff", "b.tiff")
    claim = (await client.claim(token)).claims[0]
    waiting = asyncio.ensure_future(client.pause("grid1"))
    stop = (await agent.expect("stop")).stop
    assert (stop.lease_id, stop.mode) == (token.lease_id, agent_pb2.Stop.MODE_DRAIN)
    assert 100 < stop.deadline_seconds <= 120
    assert (await waiting).state == session_pb2.Session.STATE_PAUSING
    assert (await client.workers.Heartbeat(worker_pb2.HeartbeatRequest(lease=token))).stop
    assert (await client.claim(token)).stop
    assert await client.commit(token, claim) == 1  # the current exposure is finished
    await agent.end(token)
    await client.until("grid1", "PAUSED")
    (before,) = await client.jobs("grid1")
    assert before.state == scheduler_pb2.Job.STATE_PAUSED
    await client.start("grid1")
    again = await agent.start()
    (after,) = await client.jobs("grid1")
    assert (after.job_id, after.sequence) == (before.job_id, before.sequence)
    assert again.epoch > token.epoch
    error = await refused(client.claim(token))
    assert (error.reason, error.kind) == ("EPOCH_STALE", ErrorKind.CONFLICT)


async def test_a_dead_worker_returns_its_exposure_and_is_started_again(client: Client, movies: Path) -> None:
    session = await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    token = await agent.start()
    await client.register(session.session_id, "a.tiff")
    claim = (await client.claim(token)).claims[0]
    await agent.end(token, -11)
    second = await agent.start()  # after a back-off of one second
    (job,) = await client.jobs("grid1")
    assert job.failures == 1
    exposure = await client.exposures.GetExposure(exposure_pb2.GetExposureRequest(exposure_id=claim.exposure.exposure_id))
    assert (exposure.state, exposure.attempts) == (exposure_pb2.Exposure.STATE_READY, 1)
    error = await refused(client.workers.CommitExposure(commit_request(second, claim)))
    assert error.reason == "ATTEMPT_SUPERSEDED"


async def test_a_returning_agent_keeps_its_workers_and_kills_strangers(client: Client, movies: Path) -> None:
    await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    token = await agent.start()
    await agent.hang_up()
    agent.held["stranger"] = agent_pb2.HeldSlot(slot_key=agent.slots[1], lease_id="stranger", epoch=99)
    welcome = await agent.dial()
    assert (list(welcome.adopt), list(welcome.kill)) == ([token.lease_id], ["stranger"])
    probe = (await agent.expect("probe")).probe
    assert (probe.slot_key, probe.lease_id, probe.epoch) == (agent.slots[1], "stranger", 99)
    (job,) = await client.jobs("grid1")
    assert job.state == scheduler_pb2.Job.STATE_RUNNING


async def test_a_start_is_said_again_to_an_agent_that_dials_in_anew(client: Client, movies: Path) -> None:
    await client.create(movies)
    agent = Agent(client)
    await agent.dial()
    await client.start("grid1")
    first = (await agent.expect("start")).start
    await agent.hang_up()
    await agent.dial()
    assert (await agent.expect("start")).start == first


async def test_a_rebooted_node_frees_its_slots(client: Client, movies: Path) -> None:
    await client.create(movies)
    agent = Agent(client, slots=1)
    await agent.dial()
    await client.start("grid1")
    token = await agent.start()
    await agent.hang_up()
    agent.boot_id, agent.held = "another boot", {}
    await agent.dial()
    again = await agent.start()
    assert again.epoch > token.epoch


async def test_a_waiting_job_is_told_why(client: Client, movies: Path) -> None:
    await client.create(movies, workers=2)
    await client.start("grid1")
    first, second = await client.jobs("grid1")
    reply = await client.scheduler.ExplainWait(scheduler_pb2.ExplainWaitRequest(job_id=first.job_id))
    assert reply.reason == "NO_NODE"
    assert reply.sentence == first.reason
    agent = Agent(client, slots=1)
    await agent.dial()
    await agent.start()
    reply = await client.scheduler.ExplainWait(scheduler_pb2.ExplainWaitRequest(job_id=second.job_id))
    assert (reply.reason, reply.position) == ("LANE_HELD", 0)
    assert [(b.job_id, b.indefinite) for b in reply.blockers] == [(first.job_id, True)]
    reply = await client.scheduler.ExplainWait(scheduler_pb2.ExplainWaitRequest(job_id=first.job_id))
    assert reply.reason == "NOT_WAITING"


async def test_quarantine_and_clear(client: Client, movies: Path) -> None:
    await client.create(movies)
    agent = Agent(client, slots=1)
    await agent.dial()
    slot = agent.slots[0]
    await client.scheduler.QuarantineGpu(
        scheduler_pb2.QuarantineGpuRequest(request_id=new_request_id(), slot_key=slot, reason="fan broken")
    )
    await client.start("grid1")
    (job,) = await client.jobs("grid1")
    assert "out of service" in job.reason
    cleared = await client.scheduler.ClearGpu(scheduler_pb2.ClearGpuRequest(request_id=new_request_id(), slot_key=slot))
    assert cleared.quarantined == "fan broken"  # until its agent has proven it free
    probe = (await agent.expect("probe")).probe
    assert (probe.slot_key, probe.lease_id) == (slot, "")
    await agent.say(proved_free=agent_pb2.ProvedFree(slot_key=slot))
    await agent.start()
    (node,) = (await client.scheduler.ListNodes(scheduler_pb2.ListNodesRequest())).nodes
    assert node.slots[0].quarantined == ""
    assert node.slots[0].lease.state in (scheduler_pb2.Lease.STATE_RESERVED, scheduler_pb2.Lease.STATE_HELD)


async def test_an_operators_levers_on_jobs_and_gpus(client: Client, movies: Path, more_jobs: None) -> None:
    await client.create(movies)
    agent = Agent(client, slots=2)
    await agent.dial()
    await client.start("grid1")
    preprocess = await agent.start()
    gpu, other = (key.partition("#")[0] for key in agent.slots)
    scheduler = client.scheduler
    await scheduler.DrainGpu(scheduler_pb2.DrainGpuRequest(request_id="drain", slot_key=f"{other}#0", reason="fan"))
    submit = scheduler_pb2.SubmitJobRequest(request_id="submit", session="grid1", job_type="count", gpus=[other])
    job = await scheduler.SubmitJob(submit)
    assert await scheduler.SubmitJob(submit) == job  # once, however often it is asked
    assert (job.state, list(job.gpus), job.parameters["classes"]) == (scheduler_pb2.Job.STATE_WAITING, [other], "3")
    submit.request_id, submit.parameters["classes"] = "submit-2", "0"
    assert (await refused(scheduler.SubmitJob(submit))).reason == "PARAMETER_INVALID"
    ranked = await scheduler.SetJobPriority(
        scheduler_pb2.SetJobPriorityRequest(request_id="rank", job_id=job.job_id, priority=60)
    )
    assert ranked.priority == 60
    await scheduler.ClearGpu(scheduler_pb2.ClearGpuRequest(request_id="clear", slot_key=f"{other}#0"))
    count = await agent.start()
    killed = await scheduler.KillJob(scheduler_pb2.KillJobRequest(request_id="kill", job_id=job.job_id))
    assert killed.state == scheduler_pb2.Job.STATE_STOPPING
    stop = (await agent.expect("stop")).stop
    assert (stop.lease_id, stop.mode) == (count.lease_id, agent_pb2.Stop.MODE_KILL)
    await agent.end(count, -9)
    again = await scheduler.RequeueJob(scheduler_pb2.RequeueJobRequest(request_id="requeue", job_id=job.job_id))
    assert again.state in (scheduler_pb2.Job.STATE_WAITING, scheduler_pb2.Job.STATE_STARTING)
    await agent.start()
    use = agent_pb2.GpuUse(gpu_uuid=gpu, memory_used_mib=9_000, memory_total_mib=24_000, utilization_percent=87)
    await agent.say(beat=agent_pb2.Beat(number=1, gpus=[use]))
    await agent.say(gpu_fault=agent_pb2.GpuFault(gpu_uuid=gpu, xid=79, sentence="Xid 79: fallen off the bus"))
    assert (await agent.expect("stop")).stop.lease_id == preprocess.lease_id
    (node,) = (await scheduler.ListNodes(scheduler_pb2.ListNodesRequest())).nodes
    assert [slot.quarantined for slot in node.slots] == ["Xid 79: fallen off the bus", ""]
    slot = node.slots[0]
    assert (slot.gpu_memory_used_mib, slot.gpu_memory_total_mib, slot.gpu_utilization_percent) == (9_000, 24_000, 87)


async def test_events_are_resumable_and_filtered(client: Client, movies: Path) -> None:
    first = await client.create(movies, "one")
    await client.create(movies, "two")
    await client.start("one")
    await client.register(first.session_id, *(f"m{number}.tiff" for number in range(20)))
    everything = await client.history()
    assert [event.sequence for event in everything] == list(range(1, len(everything) + 1))
    assert await client.history(after=7) == everything[7:]
    mine = await client.history(session="two")
    assert mine == [event for event in everything if event.session_id in ("", mine[0].session_id)]
    assert {event.session_id for event in mine} == {mine[0].session_id}


async def test_live_events_come_without_polling(client: Client, movies: Path) -> None:
    await client.create(movies)
    call = client.events.WatchEvents(event_pb2.WatchEventsRequest())
    assert [event.kind for event in (await call.read()).events] == ["session_created"]
    await client.start("grid1")
    reply = await asyncio.wait_for(call.read(), 5)
    assert [event.kind for event in reply.events] == ["job_waiting", "session_running"]
    call.cancel()


@pytest.mark.parametrize("from_ledger", [False, True])
async def test_events_travel_together_as_long_as_they_fit(
    client: Client, served: tuple[Scheduler, str], *, from_ledger: bool
) -> None:
    small, large = ["x"] * 40, ["x" * 700_000] * 3  # gRPC takes 4 MiB for one message
    await served[0].store.run(lambda tx: [tx.notice("info", sentence) for sentence in (*small, *large, *small)])
    await client.history()  # the events have come
    if from_ledger:
        served[0].hub.tail.clear()
    call = client.events.WatchEvents(event_pb2.WatchEventsRequest(until_now=True))
    responses = [[event.sequence for event in reply.events] async for reply in call]
    assert [number for response in responses for number in response] == list(range(1, 84))
    assert [len(response) for response in responses] == [41, 1, 41]


async def test_a_long_history_is_read_from_the_ledger(client: Client, served: tuple[Scheduler, str], movies: Path) -> None:
    session = await client.create(movies)
    await client.start("grid1")
    await client.register(session.session_id, *(f"m{number}.tiff" for number in range(1200)))
    served[0].hub.tail.clear()
    events = await client.history()
    assert len([event for event in events if event.kind == "exposure_ready"]) == 1200
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_a_watcher_whose_token_is_older_than_the_log_is_told_to_read_anew(settings: Settings, movies: Path) -> None:
    count = 5
    async with (
        running(replace(settings, events_kept_count=count), [LaneSettings(name="default")]) as (scheduler, address),
        Client(address) as client,
    ):
        session = await client.create(movies)
        await client.start("grid1")
        token = (await client.history())[-1].sequence
        await client.register(session.session_id, "m1.tiff", "m2.tiff")
        await scheduler.store.run(lambda tx: [tx.notice("info", "something") for _ in range(retention.PIECE)])
        await scheduler.tick()
        scheduler.hub.tail.clear()
        error = await refused(client.history(token))
        assert (error.reason, error.kind) == ("EVENTS_FORGOTTEN", ErrorKind.EXPIRED)
        newest = int(error.metadata["newest_sequence"])
        kept = await client.history()
        assert [kept[0].sequence, kept[-1].sequence] == [retention.PIECE + 1, newest]
        assert [event.sequence for event in await client.history(retention.PIECE)] == [event.sequence for event in kept]
        assert (await client.get("grid1")).counts.found == 2  # what is read anew
        await client.pause("grid1")
        assert (await client.history(newest))[0].sequence == newest + 1


async def test_listing_pages_through_everything(client: Client, movies: Path) -> None:
    session = await client.create(movies)
    await client.start("grid1")
    await client.register(session.session_id, *(f"m{number}.tiff" for number in range(5)))
    seen: list[int] = []
    token = ""
    while True:
        request = exposure_pb2.ListExposuresRequest(session="grid1", page_size=2, page_token=token, newest_first=True)
        page = await client.exposures.ListExposures(request)
        seen += [exposure.number for exposure in page.exposures]
        token = page.next_page_token
        if not token:
            break
    assert seen == [5, 4, 3, 2, 1]
    error = await refused(client.exposures.ListExposures(exposure_pb2.ListExposuresRequest(session="grid1", page_token="x")))
    assert error.reason == "PAGE_TOKEN_INVALID"


async def test_unknown_things_are_not_found_and_wrong_ones_refused(client: Client, movies: Path) -> None:
    assert (await refused(client.get("nobody"))).kind is ErrorKind.NOT_FOUND
    assert (await refused(client.jobs("nobody"))).reason == "SESSION_UNKNOWN"
    await client.create(movies)
    assert (await refused(client.create(movies))).kind is ErrorKind.ALREADY_EXISTS
    assert (await refused(client.create(movies / "missing", "other"))).reason == "PATH_UNUSABLE"
    (reply,) = await client.register("nobody", "a.tiff")
    assert reply.refused
    stream = client.agents.Connect()
    await stream.write(agent_pb2.ConnectRequest(beat=agent_pb2.Beat()))
    assert (await refused(stream.read())).reason == "HELLO_MISSING"


async def test_health_is_served(served: tuple[Scheduler, str], client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    reply = await stub.Check(health_pb2.HealthCheckRequest(service="frazil.api.session.v1.SessionService"))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_session_inside_the_movie_folder_is_refused(client: Client, tmp_path: Path) -> None:
    error = await refused(client.create(tmp_path, "inside"))
    assert error.reason == "SESSION_INSIDE_MOVIES"
