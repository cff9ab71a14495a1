"""Sessions and jobs: start, pause, resume, complete; deaths, back-offs, silent nodes."""

from __future__ import annotations

import pytest

from frazil.api.agent.v1 import agent_pb2
from frazil.api.event.v1 import event_pb2
from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import limits, nodes, queue, reconstruction, sessions, workers
from frazil_scheduler.ledger import tables
from model.world import World


def job(world: World, job_type: str = "preprocess") -> dict[str, object]:
    (row,) = world.rows(tables.job, tables.job.c.job_type == job_type)
    return dict(row)


def session(world: World) -> dict[str, object]:
    (row,) = world.rows(tables.session)
    return dict(row)


def up(world: World, *, until: str = "preprocess", slots: int = 1) -> str:
    session_id = world.create("s", until=until)
    world.change(session_id, "start")
    world.hello("node", {f"GPU-{number}#0": 24_000 for number in range(slots)})
    world.settle("node")
    return session_id


def notices(world: World) -> list[str]:
    events = [event_pb2.Event.FromString(row["body"]) for row in world.rows(tables.event)]
    return [event.notice.sentence for event in events if event.kind == "notice"]


def test_a_session_has_the_jobs_it_needs(world: World) -> None:
    for name, until, workers_wanted, expected in (
        ("a", "", 2, ["preprocess", "preprocess", "class2d_streaming"]),
        ("b", "class2d", 1, ["preprocess", "class2d_streaming"]),
        ("c", "preprocess", 1, ["preprocess"]),
    ):
        session_id = world.create(name, until=until, workers_wanted=workers_wanted)
        assert world.change(session_id, "start") == "RUNNING"
        rows = world.rows(tables.job, tables.job.c.session_id == session_id)
        assert [row["job_type"] for row in sorted(rows, key=lambda row: row["sequence"])] == expected
    assert sorted(row["sequence"] for row in world.rows(tables.job)) == [1, 2, 3, 4, 5, 6]


def test_starting_twice_changes_nothing(world: World) -> None:
    session_id = up(world)
    before = world.rows(tables.job)
    assert world.change(session_id, "start") == "RUNNING"
    assert world.rows(tables.job) == before


def test_nothing_is_registered_before_the_start(world: World) -> None:
    session_id = world.create("s")
    assert "is paused" in world.register(session_id, "m1").refused


def test_a_session_without_running_jobs_pauses_at_once(world: World) -> None:
    session_id = world.create("s")
    world.change(session_id, "start")
    assert world.change(session_id, "pause") == "PAUSED"
    assert {row["state"] for row in world.rows(tables.job)} == {"PAUSED"}


def test_pausing_ends_when_every_slot_is_proven_free(world: World) -> None:
    session_id = up(world)
    assert world.change(session_id, "pause") == "PAUSING"
    world.deliver("node")
    worker = world.worker_of("preprocess")
    assert worker.draining
    assert world.change(session_id, "pause") == "PAUSING"
    with pytest.raises(FrazilError) as caught:
        world.change(session_id, "start")
    assert caught.value.kind is ErrorKind.CONFLICT
    world.end(worker, 0)
    assert session(world)["state"] == "PAUSING"  # dead, but not yet proven
    world.settle("node")
    assert session(world)["state"] == "PAUSED"


def test_a_worker_that_does_not_stop_is_killed_and_its_exposure_goes_back_uncounted(world: World) -> None:
    session_id = up(world)
    world.register(session_id, "m1")
    world.claim(world.worker_of("preprocess"))
    world.change(session_id, "pause")
    world.deliver("node")
    world.advance(limits.DRAIN_PREPROCESSING_SECONDS + 1)
    world.settle("node")
    (exposure,) = world.rows(tables.exposure)
    assert (exposure["state"], exposure["attempts"]) == ("READY", 0)
    assert session(world)["state"] == "PAUSED"


def test_a_pause_ends_even_if_no_proof_comes(world: World) -> None:
    session_id = up(world)
    world.change(session_id, "pause")
    for _ in range(24):  # the agent answers but never proves anything: 240 s
        world.advance(10)
    assert session(world)["state"] == "PAUSED"
    (slot,) = world.rows(tables.slot)
    assert slot["quarantine_kind"] == "OVERDUE"
    world.settle("node")  # the worker is killed and proven dead at last
    (slot,) = world.rows(tables.slot)
    assert slot["quarantined"] == ""
    world.change(session_id, "start")
    assert job(world)["state"] == "STARTING"


def test_completing_works_off_the_queue_then_ends_streaming_then_the_session(world: World) -> None:
    session_id = up(world, until="", slots=2)
    world.register(session_id, "m1")
    assert world.change(session_id, "complete") == "COMPLETING"
    assert "is completing" in world.register(session_id, "m2").refused
    preprocess, streaming = world.worker_of("preprocess"), world.worker_of("class2d_streaming")
    assert not read(world, streaming.token, 0).end_of_input
    reply = world.claim(preprocess)
    assert reply is not None
    assert not reply.drained
    empty = world.claim(preprocess)
    assert empty is not None
    assert not empty.drained  # its own exposure may yet come back
    world.commit(preprocess, 5)
    assert read(world, streaming.token, 1).end_of_input
    drained = world.claim(preprocess)
    assert drained is not None
    assert drained.drained
    world.finish(preprocess)
    world.finish(streaming)
    assert session(world)["state"] == "COMPLETING"
    world.settle("node")
    assert session(world)["state"] == "COMPLETED"


def test_a_completed_session_can_be_started_again_for_more_movies(world: World) -> None:
    session_id = up(world, until="", slots=2)
    world.change(session_id, "complete")
    for worker in list(world.workers.values()):
        world.finish(worker)
    world.settle("node")
    assert session(world)["state"] == "COMPLETED"
    assert "is completed" in world.register(session_id, "m1").refused
    assert world.change(session_id, "start") == "RUNNING"
    world.settle("node")
    assert {row["state"] for row in world.rows(tables.job)} == {"RUNNING"}
    assert world.register(session_id, "m1").created


@pytest.mark.parametrize("problem", [True, False], ids=["problem told", "nothing told"])
def test_a_session_is_paused_when_its_last_slot_is_quarantined(world: World, problem: bool) -> None:
    session_id = up(world)
    world.change(session_id, "pause")
    world.deliver("node")
    worker = world.worker_of("preprocess")
    world.end(worker, 0)
    assert session(world)["state"] == "PAUSING"
    if problem:
        said = agent_pb2.ProvedFree(
            slot_key="GPU-0#0", lease_id=worker.token.lease_id, epoch=worker.token.epoch, problem="memory not released"
        )
        world.store.transact(lambda tx: nodes.proved_free(tx, "node", said))
    else:
        world.advance(limits.PROOF_SECONDS)
    assert session(world)["state"] == "PAUSED"
    (slot,) = world.rows(tables.slot)
    assert slot["quarantine_kind"] == ("PROOF" if problem else "OVERDUE")


def read(world: World, token: worker_pb2.LeaseToken, after: int) -> worker_pb2.ReadParticleBlocksResponse:
    request = worker_pb2.ReadParticleBlocksRequest(lease=token, after_sequence=after)
    return world.store.read(lambda tx: workers.read_blocks(tx, request))


def test_completing_an_empty_session_that_never_ran_needs_no_preprocessing(world: World) -> None:
    session_id = world.create("s", until="preprocess")
    assert world.change(session_id, "complete") == "COMPLETED"
    assert job(world)["state"] == "DONE"


def test_waiting_preprocessing_jobs_are_done_once_the_queue_is_empty(world: World) -> None:
    session_id = world.create("s", until="preprocess", workers_wanted=3)
    world.change(session_id, "start")
    world.hello("node", {"GPU-0#0": 24_000})
    world.settle("node")
    world.register(session_id, "m1")
    world.change(session_id, "complete")
    worker = world.worker_of("preprocess")
    world.claim(worker)
    world.commit(worker)
    world.finish(worker)
    world.settle("node")
    assert session(world)["state"] == "COMPLETED"


def test_a_streaming_job_that_finishes_while_its_input_goes_on_is_put_back(world: World) -> None:
    up(world)
    epoch = job(world)["epoch"]
    world.finish(world.worker_of("preprocess"))
    world.settle("node")
    assert (job(world)["state"], job(world)["failures"]) == ("RUNNING", 0)
    assert job(world)["epoch"] != epoch


def test_deaths_without_progress_back_off_and_after_five_the_job_has_failed(world: World) -> None:
    up(world)
    delays = []
    for _ in range(5):
        world.end(world.worker_of("preprocess"), 1)
        world.settle("node")
        delay = 0.0
        while job(world)["state"] == "WAITING":
            world.advance(0.5)
            delay += 0.5
        delays.append(delay)
        world.settle("node")
    row = job(world)
    assert delays[:4] == [1.0, 5.0, 15.0, 30.0]
    assert (row["state"], row["failures"]) == ("FAILED", 5)
    assert "last words" in str(row["reason"])
    assert "Preprocessing worker has failed" in str(session(world)["job_problem"])
    assert any("5 times in a row" in sentence for sentence in notices(world))
    world.change(session(world)["session_id"], "pause")
    world.change(session(world)["session_id"], "start")
    assert (job(world)["state"], session(world)["job_problem"]) == ("STARTING", "")


def test_progress_forgives_earlier_deaths(world: World) -> None:
    session_id = up(world)
    for number in range(7):
        world.register(session_id, f"m{number}")
        worker = world.worker_of("preprocess")
        world.claim(worker, 1)
        world.commit(worker)
        world.end(worker, 1)
        world.settle("node")
        world.advance(2)
        world.settle("node")
    assert (job(world)["state"], job(world)["failures"]) == ("RUNNING", 7)


def test_a_job_that_cannot_go_on_has_failed_with_its_sentence(world: World) -> None:
    up(world)
    world.finish(world.worker_of("preprocess"), "The gain reference has another shape than the movies.")
    assert (job(world)["state"], job(world)["reason"]) == ("FAILED", "The gain reference has another shape than the movies.")
    assert "another shape" in str(session(world)["job_problem"])


def test_a_worker_that_stays_after_its_job_is_over_is_killed(world: World) -> None:
    session_id = up(world)
    worker = world.worker_of("preprocess")
    world.change(session_id, "complete")
    request = worker_pb2.FinishJobRequest(request_id="f", lease=worker.token)
    world.store.transact(lambda tx: workers.finish(tx, request))
    world.advance(limits.FINISH_SECONDS + 1)
    world.settle("node")
    assert world.workers == {}
    assert session(world)["state"] == "COMPLETED"


def test_cancelling_a_running_job_stops_its_worker(world: World) -> None:
    up(world)
    (row,) = world.rows(tables.job)
    world.store.transact(lambda tx: sessions.stop(tx, row, "CANCELLED", "Cancelled by a person."))
    assert job(world)["state"] == "STOPPING"
    world.deliver("node")
    world.end(world.worker_of("preprocess"), 0)
    assert (job(world)["state"], job(world)["reason"]) == ("CANCELLED", "Cancelled by a person.")


def test_a_silent_nodes_job_goes_on_elsewhere_and_its_old_worker_can_do_no_harm(world: World) -> None:
    session_id = up(world)
    world.register(session_id, "m1")
    old = world.worker_of("preprocess")
    world.claim(old)
    world.unlink("node")
    world.hello("spare", {"GPU-9#0": 24_000})
    world.advance(limits.SUSPECT_SECONDS)
    assert {row["node_id"]: row["state"] for row in world.rows(tables.node)} == {"node": "SUSPECT", "spare": "UP"}
    assert job(world)["state"] == "RUNNING"
    world.advance(limits.LOST_SECONDS)
    assert job(world)["state"] == "STARTING"
    world.settle("spare")
    assert world.commit(old) is None  # refused as stale: it exits
    assert old.token.lease_id not in world.workers
    (exposure,) = world.rows(tables.exposure)
    assert (exposure["state"], exposure["attempts"]) == ("READY", 0)
    lost = world.rows(tables.lease, tables.lease.c.state == "LOST")
    assert [row["slot_key"] for row in lost] == ["GPU-0#0"]  # time frees no slot


def test_a_short_blip_restarts_nothing(world: World) -> None:
    up(world)
    worker = world.worker_of("preprocess")
    world.unlink("node")
    world.advance(limits.LOST_SECONDS)
    assert job(world)["state"] == "WAITING"
    welcome = world.hello("node")
    assert list(welcome.adopt) == [worker.token.lease_id]
    assert (job(world)["state"], job(world)["epoch"]) == ("RUNNING", worker.token.epoch)


def test_a_scheduler_restart_keeps_leases_and_grants_nothing_before_hello(world: World) -> None:
    session_id = up(world)
    worker = world.worker_of("preprocess")
    world.restart()
    other = world.create("other", until="preprocess")
    world.change(other, "start")
    (waiting,) = world.rows(tables.job, tables.job.c.session_id == other)
    assert waiting["state"] == "WAITING"
    world.register(session_id, "m1")
    world.claim(worker)
    assert world.commit(worker) is not None  # work goes on before the agent is back
    assert list(world.hello("node").adopt) == [worker.token.lease_id]
    (running,) = world.rows(tables.job, tables.job.c.session_id == session_id)
    assert (running["state"], running["epoch"]) == ("RUNNING", worker.token.epoch)


def test_fencing_frees_a_lost_nodes_slots_on_a_persons_word(world: World) -> None:
    up(world)
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: nodes.fence(tx, "node", "me"))
    assert caught.value.reason == "NODE_NOT_LOST"
    world.unlink("node")
    world.advance(limits.LOST_SECONDS)
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: nodes.fence(tx, "node", " "))
    assert caught.value.reason == "ATTESTATION_MISSING"
    world.store.transact(lambda tx: nodes.fence(tx, "node", "me: the power is off"))
    assert world.rows(tables.lease, tables.lease.c.state != "CLOSED") == []
    assert any("me: the power is off" in sentence for sentence in notices(world))


def test_quarantining_a_gpu_takes_all_its_slots_and_moves_its_jobs(world: World) -> None:
    session_id = world.create("s", until="preprocess", workers_wanted=2)
    world.change(session_id, "start")
    world.hello("node", {"GPU-1#0": 9_000, "GPU-1#1": 9_000, "GPU-2#0": 80_000})
    world.settle("node")
    world.store.transact(lambda tx: nodes.quarantine_gpu(tx, "GPU-1#1", "fan broken"))
    slots = {row["slot_key"]: row["quarantined"] for row in world.rows(tables.slot)}
    assert slots == {"GPU-1#0": "fan broken", "GPU-1#1": "fan broken", "GPU-2#0": ""}
    assert {row["state"] for row in world.rows(tables.job)} == {"STOPPING"}
    world.deliver("node")
    for worker in list(world.workers.values()):
        world.end(worker, 0)
    world.settle("node")
    assert sorted(row["state"] for row in world.rows(tables.job)) == ["RUNNING", "WAITING"]
    world.store.transact(lambda tx: nodes.clear_gpu(tx, "GPU-1#0"))
    world.settle("node")
    assert {row["quarantined"] for row in world.rows(tables.slot)} == {""}
    assert {row["state"] for row in world.rows(tables.job)} == {"RUNNING"}


def test_a_gpu_used_by_another_program_comes_back_by_itself(world: World) -> None:
    up(world)
    world.end(world.worker_of("preprocess"), 1)
    world.settle("node")
    world.advance(1)
    (lease,) = world.rows(tables.lease, tables.lease.c.state == "RESERVED")
    said = agent_pb2.Exited(
        lease_id=lease["lease_id"], epoch=lease["epoch"], refused="GPU_BUSY_EXTERNAL", log_tail="3,000 MiB are free."
    )
    world.store.transact(lambda tx: nodes.exited(tx, "node", said))
    (slot,) = world.rows(tables.slot)
    assert (slot["quarantined"], slot["quarantine_kind"]) == ("3,000 MiB are free.", "EXTERNAL")
    assert (job(world)["state"], job(world)["failures"]) == ("WAITING", 1)
    still = agent_pb2.ProvedFree(slot_key="GPU-0#0", lease_id=lease["lease_id"], epoch=lease["epoch"], problem="memory")
    world.store.transact(lambda tx: nodes.proved_free(tx, "node", still))
    (slot,) = world.rows(tables.slot)
    assert slot["quarantine_kind"] == "EXTERNAL"
    world.settle("node")
    (slot,) = world.rows(tables.slot)
    assert slot["quarantined"] == ""


def test_a_scan_is_told_when_something_has_happened_not_with_every_sweep(world: World) -> None:
    session_id = up(world)

    def report(**scan: object) -> int:
        request = session_pb2.ReportScanRequest(session_id=session_id, scan=session_pb2.ScanStatus(**scan))
        before = len(world.rows(tables.event))
        world.store.transact(lambda tx: sessions.report_scan(tx, request))
        world.advance(1)
        return len(world.rows(tables.event)) - before

    assert report(sweeps=1, files_seen=3) == 1
    assert [report(sweeps=n, files_seen=3, seconds_since_change=float(n)) for n in range(2, 6)] == [0, 0, 0, 0]
    assert report(sweeps=6, files_seen=4) == 1
    assert report(sweeps=7, files_seen=4, problem="The folder is gone.") == 1


def test_two_containers_that_offer_one_gpu_get_it_once(world: World) -> None:
    session_id = world.create("s", until="preprocess", workers_wanted=2)
    world.change(session_id, "start")
    world.hello("one", {"GPU-1#0": 24_000})
    world.hello("two", {"GPU-1#0": 24_000})
    assert sorted(row["state"] for row in world.rows(tables.job)) == ["STARTING", "WAITING"]


def test_a_waiting_jobs_reason_changes_only_with_its_cause(world: World) -> None:
    world.change(world.create("s", until="preprocess"), "start")
    assert "No node of lane 'default' has dialled in" in str(job(world)["reason"])
    events = len(world.rows(tables.event))
    for _ in range(5):
        world.advance(1)
    assert len(world.rows(tables.event)) == events
    world.hello("small", {"GPU-1#0": 1_000})
    assert "No slot of lane 'default' is large enough" in str(job(world)["reason"])
    (row,) = world.rows(tables.job)
    reply = world.store.read(lambda tx: queue.explain_wait(tx, world.lanes, row))
    assert (reply.reason, reply.sentence) == ("LANE_TOO_SMALL", row["reason"])
    assert reply.remedy


def checkpoint(world: World, token: worker_pb2.LeaseToken, number: int, cursor: int) -> list[str]:
    request = worker_pb2.CommitCheckpointRequest(request_id=world.request_id(), lease=token)
    request.checkpoint.number, request.checkpoint.cursor_sequence = number, cursor
    request.checkpoint.path = f"checkpoints/{token.epoch}.{number}"
    return list(world.store.transact(lambda tx: workers.commit_checkpoint(tx, request)).expired_paths)


def test_the_last_three_checkpoints_are_kept_and_come_back_newest_first(world: World) -> None:
    up(world, until="", slots=2)
    token = world.worker_of("class2d_streaming").token
    expired = [checkpoint(world, token, number, 10 * number) for number in range(1, 6)]
    assert expired == [[], [], [], [f"checkpoints/{token.epoch}.1"], [f"checkpoints/{token.epoch}.2"]]
    reply = world.store.read(lambda tx: workers.attach(tx, worker_pb2.AttachRequest(lease=token)))
    assert [(c.number, c.cursor_sequence) for c in reply.checkpoints] == [(5, 50), (4, 40), (3, 30)]
    for number, cursor in ((5, 60), (6, 40)):
        with pytest.raises(FrazilError) as caught:
            checkpoint(world, token, number, cursor)
        assert caught.value.reason == "CHECKPOINT_OUT_OF_ORDER"


def test_a_worker_that_resumed_from_an_older_checkpoint_drops_the_damaged_ones(world: World) -> None:
    up(world, until="", slots=2)
    old = world.worker_of("class2d_streaming")
    for number in (1, 2):
        checkpoint(world, old.token, number, 10 * number)
    world.end(old, 1)
    world.settle("node")
    world.advance(2)
    world.settle("node")
    token = world.worker_of("class2d_streaming").token
    assert checkpoint(world, token, 2, 15) == [f"checkpoints/{old.token.epoch}.2"]
    rows = world.rows(tables.checkpoint)
    assert sorted((row["number"], row["epoch"]) for row in rows) == [(1, old.token.epoch), (2, token.epoch)]


def test_the_last_two_class_averages_are_kept(world: World) -> None:
    session_id = up(world, until="", slots=2)
    token = world.worker_of("class2d_streaming").token

    def publish(number: int) -> worker_pb2.PublishClassAveragesResponse:
        averages = reconstruction_pb2.ClassAverages(averages=f"{number}.mrcs", sheet=f"{number}.png", particle_count=number)
        request = worker_pb2.PublishClassAveragesRequest(request_id=f"p{number}", lease=token, class_averages=averages)
        return world.store.transact(lambda tx: workers.publish(tx, request))

    assert [(publish(number).revision) for number in (1, 2)] == [1, 2]
    third = publish(3)
    assert (third.revision, list(third.expired_paths)) == (3, ["1.mrcs", "1.png"])
    newest = world.store.read(lambda tx: reconstruction.newest_averages(tx, session_id))
    assert newest is not None
    assert (newest.revision, newest.averages, newest.session_id) == (3, "3.mrcs", session_id)
    assert session(world)["particles_classified"] == 3


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/averages.mrcs"])
def test_a_path_out_of_the_session_folder_is_refused(world: World, path: str) -> None:
    up(world, until="", slots=2)
    token = world.worker_of("class2d_streaming").token
    request = worker_pb2.PublishClassAveragesRequest(request_id="p", lease=token)
    request.class_averages.averages = path
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: workers.publish(tx, request))
    assert caught.value.reason == "PATH_INVALID"
