"""Exposures and their attempts: order, exactly once, whose fault a failure was."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy

from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import exposures, limits, sessions, workers
from frazil_scheduler.ledger import tables
from model.world import Worker, World

Fail = worker_pb2.FailExposureRequest


def running(world: World, movies: int = 1, *, slots: int = 1, until: str = "preprocess") -> str:
    """Start a session with movies and a node; return its identity."""
    session_id = world.create("s", until=until, workers_wanted=slots)
    world.change(session_id, "start")
    for number in range(1, movies + 1):
        world.register(session_id, f"m{number}")
    world.hello("node", {f"GPU-{number}#0": 24_000 for number in range(slots)})
    world.settle("node")
    return session_id


def session(world: World) -> dict[str, object]:
    (row,) = world.rows(tables.session)
    return dict(row)


def exposure(world: World, path: str = "m1") -> dict[str, object]:
    (row,) = world.rows(tables.exposure, tables.exposure.c.relative_path == path)
    return dict(row)


def blocks(world: World) -> list[tuple[int, str, int, int]]:
    rows = sorted(world.rows(tables.particle_block), key=lambda row: row["sequence"])
    return [(row["sequence"], row["kind"], row["particle_count"], row["retracts_sequence"]) for row in rows]


def claimed(world: World, worker: Worker) -> list[str]:
    """Claim one and return its path, or nothing."""
    reply = world.claim(worker, 1)
    assert reply is not None
    return [claim.exposure.file.relative_path for claim in reply.claims]


def try_once(world: World, failure: Fail.FailureClass.ValueType) -> dict[str, object]:
    worker = world.worker_of("preprocess")
    assert claimed(world, worker) == ["m1"]
    world.fail(worker, failure)
    return exposure(world)


def test_while_files_arrive_the_newest_goes_first_and_each_fifth_time_the_oldest(world: World) -> None:
    running(world, 8)
    worker = world.worker_of("preprocess")
    assert [claimed(world, worker)[0] for _ in range(8)] == ["m8", "m7", "m6", "m5", "m1", "m4", "m3", "m2"]


def test_once_no_files_arrive_the_oldest_goes_first(world: World) -> None:
    running(world, 3)
    world.advance(1)
    world.mono += limits.ARRIVING_SECONDS
    worker = world.worker_of("preprocess")
    assert [claimed(world, worker)[0] for _ in range(3)] == ["m1", "m2", "m3"]


def test_an_attempt_folder_names_generation_epoch_and_attempt(world: World) -> None:
    running(world)
    worker = world.worker_of("preprocess")
    reply = world.claim(worker)
    assert reply is not None
    assert reply.claims[0].attempt_folder == f"1.{worker.token.epoch}.1"
    world.fail(worker, Fail.FAILURE_CLASS_RETURNED)
    reply = world.claim(worker)
    assert reply is not None
    assert reply.claims[0].attempt_folder == f"1.{worker.token.epoch}.2"


def test_registering_is_idempotent_and_new_content_is_a_new_generation(world: World) -> None:
    session_id = running(world)
    worker = world.worker_of("preprocess")
    assert not world.register(session_id, "m1").created
    assert exposure(world)["generation"] == 1
    claimed(world, worker)
    world.commit(worker, 5)
    world.register(session_id, "m1", size=200)
    row = exposure(world)
    assert (row["generation"], row["state"]) == (2, "READY")
    assert blocks(world) == [(1, "ADD", 5, 0)]  # the old result counts until the new one is there
    claimed(world, worker)
    world.commit(worker, 7)
    assert blocks(world) == [(1, "ADD", 5, 0), (2, "RETRACT", 5, 1), (3, "ADD", 7, 0)]
    assert session(world)["particles"] == 7


def test_a_result_without_particles_makes_no_block_but_withdraws_the_old_one(world: World) -> None:
    session_id = running(world)
    worker = world.worker_of("preprocess")
    claimed(world, worker)
    world.commit(worker, 4)
    world.register(session_id, "m1", size=200)
    claimed(world, worker)
    reply = world.commit(worker, 0)
    assert reply is not None
    assert reply.particle_block_sequence == 0
    assert blocks(world) == [(1, "ADD", 4, 0), (2, "RETRACT", 4, 1)]
    assert session(world)["particles"] == 0


def test_content_that_changes_under_way_supersedes_the_attempt(world: World) -> None:
    session_id = running(world)
    worker = world.worker_of("preprocess")
    claimed(world, worker)
    world.register(session_id, "m1", size=200)
    assert world.commit(worker, 5) is None
    assert exposure(world)["state"] == "READY"
    assert blocks(world) == []


def test_an_inode_that_changes_is_no_new_content(world: World) -> None:
    session_id = running(world)
    file = exposure(world)["file"]
    world.register(session_id, "m1")
    assert exposure(world)["file"] == file


def test_a_defect_is_quarantined_at_once_with_its_sentence_and_cured_by_new_content(world: World) -> None:
    session_id = running(world, 0)
    world.register(session_id, "m1", defect="It is truncated: 812 of 1,004 MB.")
    row = exposure(world)
    assert (row["state"], row["failure"]) == ("QUARANTINED", "It is truncated: 812 of 1,004 MB.")
    assert (session(world)["found"], session(world)["quarantined"]) == (1, 1)
    world.register(session_id, "m1", size=200)
    row = exposure(world)
    assert (row["state"], row["failure"], row["generation"]) == ("READY", "", 2)


def test_a_movie_damaged_after_it_was_processed_keeps_its_result(world: World) -> None:
    session_id = running(world)
    worker = world.worker_of("preprocess")
    claimed(world, worker)
    world.commit(worker, 5)
    world.register(session_id, "m1", size=1, defect="It is truncated.")
    assert (exposure(world)["state"], exposure(world)["generation"]) == ("DONE", 1)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../m1", "a/../../m1", "a\0b"])
def test_a_path_outside_the_movie_folder_is_refused(world: World, path: str) -> None:
    assert world.register(running(world, 0), path).refused


def test_bad_input_is_quarantined_at_once(world: World) -> None:
    running(world)
    row = try_once(world, Fail.FAILURE_CLASS_INPUT)
    assert (row["state"], row["attempts"], row["failure"]) == ("QUARANTINED", 1, "It does not work.")


def test_a_crash_is_tried_three_times_with_growing_patience(world: World) -> None:
    running(world)
    worker = world.worker_of("preprocess")
    for attempts, patience in ((1, 10), (2, 60)):
        assert try_once(world, Fail.FAILURE_CLASS_CRASH)["attempts"] == attempts
        world.advance(patience - 1)
        assert claimed(world, worker) == []
        world.advance(1)
    row = try_once(world, Fail.FAILURE_CLASS_CRASH)
    assert (row["state"], row["attempts"]) == ("QUARANTINED", 3)


def test_want_of_memory_is_tried_once_more_and_then_once_elsewhere(world: World) -> None:
    running(world)
    assert try_once(world, Fail.FAILURE_CLASS_RESOURCE)["failed_on"] == ""
    assert try_once(world, Fail.FAILURE_CLASS_RESOURCE)["failed_on"] == "GPU-0"
    assert try_once(world, Fail.FAILURE_CLASS_RESOURCE)["state"] == "QUARANTINED"  # there is no other GPU: tried here again


def on_gpus(world: World) -> dict[str, Worker]:
    return {worker.slot_key: worker for worker in world.workers.values()}


@pytest.mark.parametrize(("failure", "times"), [(Fail.FAILURE_CLASS_CRASH, 1), (Fail.FAILURE_CLASS_RESOURCE, 2)])
def test_what_failed_on_a_gpu_is_left_to_another_while_there_is_one(
    world: World, failure: Fail.FailureClass.ValueType, times: int
) -> None:
    running(world, 2, slots=2)
    workers = on_gpus(world)
    for _ in range(times):
        assert claimed(world, workers["GPU-0#0"]) == ["m2"]
        world.fail(workers["GPU-0#0"], failure)
        world.advance(60)
    assert claimed(world, workers["GPU-0#0"]) == ["m1"]
    world.fail(workers["GPU-0#0"], Fail.FAILURE_CLASS_INPUT)
    assert claimed(world, workers["GPU-0#0"]) == []
    assert claimed(world, workers["GPU-1#0"]) == ["m2"]


def test_what_failed_on_every_gpu_is_for_whoever_asks(world: World) -> None:
    running(world, 1, slots=2)
    for key in ("GPU-0#0", "GPU-1#0"):
        assert claimed(world, on_gpus(world)[key]) == ["m1"]
        world.fail(on_gpus(world)[key], Fail.FAILURE_CLASS_CRASH)
        world.advance(60)
    assert exposure(world)["failed_on"] == "GPU-0\nGPU-1"
    assert claimed(world, on_gpus(world)["GPU-0#0"]) == ["m1"]


def test_another_slot_of_the_same_gpu_is_no_other_gpu_and_one_that_is_gone_is_not_waited_for(world: World) -> None:
    session_id = world.create("s", until="preprocess", workers_wanted=3)
    world.change(session_id, "start")
    world.register(session_id, "m1")
    world.hello("node", {"GPU-0#0": 24_000, "GPU-0#1": 24_000})
    world.hello("other", {"GPU-1#0": 24_000})
    for node in ("node", "other"):
        world.settle(node)
    workers = on_gpus(world)
    claimed(world, workers["GPU-0#0"])
    world.fail(workers["GPU-0#0"], Fail.FAILURE_CLASS_CRASH)
    world.advance(60)
    assert claimed(world, workers["GPU-0#1"]) == []
    world.unlink("other")
    world.advance(limits.LOST_SECONDS)
    assert claimed(world, workers["GPU-0#1"]) == ["m1"]


def test_a_worker_that_runs_out_of_memory_costs_its_exposure_a_try_of_that_kind(world: World) -> None:
    running(world)
    worker = world.worker_of("preprocess")
    claimed(world, worker)
    world.end(worker, -9, out_of_memory=True)
    row = exposure(world)
    assert (row["state"], row["attempts"], row["resource_failures"]) == ("READY", 1, 1)
    (job,) = world.rows(tables.job)
    assert "out of memory" in job["reason"]


def test_retrying_forgets_where_it_failed(world: World) -> None:
    session_id = running(world)
    for _ in range(3):
        world.advance(60)
        try_once(world, Fail.FAILURE_CLASS_CRASH)
    assert exposure(world)["failed_on"] == "GPU-0"
    world.store.transact(lambda tx: exposures.retry_quarantined(tx, session_id))
    assert exposure(world)["failed_on"] == ""


def test_what_is_not_the_exposures_fault_never_counts_but_is_told(world: World) -> None:
    running(world)
    for _ in range(limits.INFRA_ALARM):
        row = try_once(world, Fail.FAILURE_CLASS_INFRA)
        assert (row["state"], row["attempts"]) == ("READY", 0)
        world.advance(limits.INFRA_BACKOFF_SECONDS)
    (notice,) = [event for event in events(world) if event.kind == "notice" and "m1 could not" in event.notice.sentence]
    assert notice.notice.level == "warning"


def test_what_is_given_back_is_ready_at_once(world: World) -> None:
    running(world)
    assert try_once(world, Fail.FAILURE_CLASS_RETURNED)["attempts"] == 0
    assert claimed(world, world.worker_of("preprocess")) == ["m1"]


def test_a_death_counts_only_against_the_exposure_that_was_claimed_first(world: World) -> None:
    running(world, 2)
    worker = world.worker_of("preprocess")
    reply = world.claim(worker, 2)
    assert reply is not None
    first, second = (claim.exposure.file.relative_path for claim in reply.claims)
    world.end(worker, -11)
    assert exposure(world, first)["attempts"] == 1
    assert exposure(world, second)["attempts"] == 0
    assert exposure(world, first)["state"] == exposure(world, second)["state"] == "READY"


def test_a_poisonous_exposure_is_quarantined_and_the_others_are_done(world: World) -> None:
    session_id = running(world, 6)
    for _ in range(60):
        world.settle("node")
        for worker in list(world.workers.values()):
            reply = world.claim(worker, 1)
            if reply is not None and reply.claims:
                poisonous = reply.claims[0].exposure.file.relative_path == "m4"
                world.end(worker, -11) if poisonous else world.commit(worker)
        world.advance(5)
    row = exposure(world, "m4")
    assert row["state"] == "QUARANTINED"
    assert "signal 11" in str(row["failure"])
    assert "last words" in str(row["failure"])
    assert session(world)["done"] == 5
    assert {job["state"] for job in world.rows(tables.job)} == {"RUNNING"}
    assert session_id


def test_quarantined_ones_can_be_tried_again_except_defects(world: World) -> None:
    session_id = running(world)
    world.register(session_id, "bad", defect="It is empty.")
    try_once(world, Fail.FAILURE_CLASS_INPUT)
    assert world.store.transact(lambda tx: exposures.retry_quarantined(tx, session_id)) == 1
    assert (exposure(world)["state"], exposure(world)["attempts"]) == ("READY", 0)
    assert exposure(world, "bad")["state"] == "QUARANTINED"


def test_when_most_fail_one_a_minute_is_tried_until_one_succeeds(world: World) -> None:
    running(world, 30)
    worker = world.worker_of("preprocess")
    failed = 0
    while claimed(world, worker):
        world.fail(worker, Fail.FAILURE_CLASS_INPUT)
        failed += 1
    assert failed == limits.OUTCOME_WINDOW // 2 + 1
    assert "It does not work." in str(session(world)["outcome_problem"])
    world.advance(limits.PROBE_SECONDS)
    assert claimed(world, worker)
    assert claimed(world, worker) == []
    world.commit(worker)
    assert session(world)["outcome_problem"] == ""
    assert claimed(world, worker)


def test_a_worker_on_which_everything_fails_is_stopped_and_its_exposures_are_not_blamed(world: World) -> None:
    running(world, 8)
    worker = world.worker_of("preprocess")
    for _ in range(limits.WORKER_FAILURES_MAX):
        assert claimed(world, worker)
        world.fail(worker, Fail.FAILURE_CLASS_CRASH)
    assert {row["attempts"] for row in world.rows(tables.exposure)} == {0}
    assert {row["state"] for row in world.rows(tables.exposure)} == {"READY"}
    assert claimed(world, worker) == []  # it is told to stop
    (job,) = world.rows(tables.job)
    assert (job["state"], job["failures"]) == ("STOPPING", 1)
    assert any("5 exposures in a row failed on GPU-0#0" in event.notice.sentence for event in events(world))
    world.settle("node")
    world.end(world.worker_of("preprocess"), 0)
    world.settle("node")
    world.advance(31)
    world.settle("node")
    assert world.worker_of("preprocess").token.epoch > worker.token.epoch


def test_a_success_in_between_keeps_the_trust(world: World) -> None:
    running(world, 12)
    worker = world.worker_of("preprocess")
    for number in range(10):
        assert claimed(world, worker)
        if number == 4:
            world.commit(worker)
        else:
            world.fail(worker, Fail.FAILURE_CLASS_CRASH)
            if number < 9:
                assert world.rows(tables.job)[0]["state"] == "RUNNING"


def test_a_full_disk_stops_claims_and_is_told_once(world: World) -> None:
    session_id = running(world)
    worker = world.worker_of("preprocess")
    for _ in range(2):
        world.store.transact(lambda tx: sessions.set_disk_problem(tx, session_id, "Disk nearly full: make room."))
    assert claimed(world, worker) == []
    world.store.transact(lambda tx: sessions.set_disk_problem(tx, session_id, ""))
    assert claimed(world, worker) == ["m1"]
    told = [event.notice.sentence for event in events(world) if event.kind == "notice"]
    assert told == ["Disk nearly full: make room.", "The disk has room again; processing goes on."]


def test_a_commit_repeated_after_its_reply_was_forgotten_is_still_known(world: World) -> None:
    running(world)
    worker = world.worker_of("preprocess")
    claimed(world, worker)
    first = world.commit(worker, 5)
    request = world.commits[0]
    world.store.transact(lambda tx: tx.run(tables.request.delete()))
    assert world.store.transact(lambda tx: workers.commit(tx, request)) == first
    assert blocks(world) == [(1, "ADD", 5, 0)]


def test_a_result_in_another_folder_is_refused(world: World) -> None:
    running(world)
    worker = world.worker_of("preprocess")
    claimed(world, worker)
    request = worker_pb2.CommitExposureRequest(request_id="r", lease=worker.token, attempt_id=worker.claims[0].attempt_id)
    request.result.folder = "results/somewhere/else"
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: workers.commit(tx, request))
    assert caught.value.reason == "RESULT_FOLDER_WRONG"


def events(world: World) -> list:
    from frazil.api.event.v1 import event_pb2

    return [event_pb2.Event.FromString(row["body"]) for row in world.rows(tables.event)]


def test_the_statements_of_the_daily_work_use_indexes(world: World) -> None:
    """With a million exposures no claim, commit or registration may read a whole table."""
    session_id = running(world, 3)
    statements: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        statements.append((statement, values))

    engine = world.store.read(lambda tx: tx.connection.engine)
    sqlalchemy.event.listen(engine, "before_cursor_execute", keep)
    worker = world.worker_of("preprocess")
    world.register(session_id, "m9")
    world.register(session_id, "m1", size=200)
    assert claimed(world, worker) == ["m9"]
    world.commit(worker)
    claimed(world, worker)
    world.end(worker, 1)
    sqlalchemy.event.remove(engine, "before_cursor_execute", keep)
    asked = [pair for pair in statements if pair[0].startswith(("SELECT", "UPDATE", "DELETE"))]
    plans = world.store.read(lambda tx: [(text, line) for text, values in asked for line in plan(tx.connection, text, values)])
    large = ("exposure", "attempt", "particle_block", "event", "request")
    assert len(plans) > 20
    assert [
        (text, table) for text, line in plans for table in re.findall(r"^(?:SCAN|.*Seq Scan on) (\w+)", line) if table in large
    ] == []


def plan(connection: sqlalchemy.Connection, statement: str, values: Any) -> list[str]:
    """Return how the database would do it, with a scan of a whole table only where there is no other way."""
    if connection.dialect.name == "sqlite":
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    return [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", values)]
