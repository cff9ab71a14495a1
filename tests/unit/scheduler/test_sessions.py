"""Sessions and jobs: start, pause, resume, complete; deaths and back-offs."""

from __future__ import annotations

import pytest

from frazil.api.agent.v1 import agent_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import limits, nodes, sessions, workers
from frazil_scheduler.ledger import records, tables
from model.world import World
from unit.scheduler.stories import job, notices, session, up


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


def test_a_completing_session_hears_of_changes_to_what_is_queued(world: World) -> None:
    session_id = up(world)
    for path in ("done", "queued", "gone"):
        world.register(session_id, path)
    preprocess = world.worker_of("preprocess")
    world.claim(preprocess, 1)
    world.commit(preprocess)
    (done,) = [row["relative_path"] for row in world.rows(tables.exposure) if row["state"] == "DONE"]
    waiting, gone = sorted({"done", "queued", "gone"} - {done})
    world.change(session_id, "complete")
    assert "is completing" in world.register(session_id, done, size=200).refused
    assert not world.register(session_id, waiting, size=200).refused
    assert not world.register(session_id, gone, defect="It was moved or deleted.").refused
    states = {row["relative_path"]: (row["state"], row["generation"]) for row in world.rows(tables.exposure)}
    assert states == {done: ("DONE", 1), waiting: ("READY", 2), gone: ("QUARANTINED", 2)}


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
    assert report(sweeps=8, files_seen=4, omission="A folder cannot be read.") == 1
    (row,) = world.rows(tables.session)
    assert records.session_record(row).state_reason == "A folder cannot be read."
