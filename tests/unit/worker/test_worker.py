"""The worker shell before a scheduler in memory."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from frazil import worker as module
from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages
from frazil.api.worker.v1 import worker_pb2 as wire
from frazil.model.errors import ErrorKind, FailureClass, FrazilError, InputError
from frazil.rpc.client import open_channel
from frazil.rpc.config import EXIT_OUT_OF_MEMORY, WorkerEnvironment
from frazil.worker import (
    EXIT_CRASHED,
    EXIT_FAILED,
    EXIT_LEASE_LOST,
    EXIT_OK,
    EXIT_USAGE,
    AttemptSuperseded,
    LeaseLost,
    WorkerContext,
    run_worker,
    runners_in,
)

AWAY = FrazilError("AWAY", "The scheduler is away.", kind=ErrorKind.UNAVAILABLE)
STALE = FrazilError("STALE_EPOCH", "Another worker has the job.", kind=ErrorKind.CONFLICT)
SUPERSEDED = FrazilError("ATTEMPT_SUPERSEDED", "The movie has changed.", kind=ErrorKind.CONFLICT)
CLAIM = wire.Claim(exposure=Exposure(exposure_id="e1"), attempt_id="a1", attempt_folder="1.7.1")


def run(stage: Any, runner: Callable[[WorkerContext], None]) -> int:
    return run_worker("frazil-toy", {"toy": runner}, environ=stage.environ)


@pytest.fixture
def context(stage: Any) -> Any:
    from frazil.api.worker.v1.worker_pb2_grpc import WorkerServiceStub

    with open_channel(stage.environ["FRAZIL_SCHEDULER_ADDRESS"]) as channel:
        environment = WorkerEnvironment.from_environ(stage.environ)
        yield WorkerContext(WorkerServiceStub(channel), environment, sleep=lambda _: None)


def test_runner_gets_its_job_and_the_job_is_finished(stage: Any) -> None:
    stage.ledger.checkpoints = [wire.Checkpoint(number=2, path="b"), wire.Checkpoint(number=1, path="a")]
    seen: list[Any] = []

    def runner(context: WorkerContext) -> None:
        seen.append((context.job_id, context.job_type, context.session.name, context.session_folder))
        seen.append([checkpoint.number for checkpoint in context.checkpoints])

    assert run(stage, runner) == EXIT_OK
    assert seen == [("job", "toy", "grid 7", Path(stage.ledger.folder)), [2, 1]]
    assert [request.failure for request in stage.ledger.of("FinishJob")] == [""]


def test_stopped_runner_does_not_finish_its_job(stage: Any) -> None:
    assert run(stage, lambda context: context.request_stop()) == EXIT_OK
    assert stage.ledger.of("FinishJob") == []


def test_bad_input_ends_the_job_with_its_sentence(stage: Any) -> None:
    def runner(context: WorkerContext) -> None:
        raise InputError("GAIN_WRONG", "The gain reference has another size than the movies.")

    assert run(stage, runner) == EXIT_FAILED
    assert [r.failure for r in stage.ledger.of("FinishJob")] == ["The gain reference has another size than the movies."]


def test_other_foreseen_errors_leave_the_job_to_the_scheduler(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def runner(context: WorkerContext) -> None:
        raise FrazilError("DISK_FULL", "The disk is full.", kind=ErrorKind.EXHAUSTED)

    assert run(stage, runner) == EXIT_FAILED
    assert stage.ledger.of("FinishJob") == []
    said = capsys.readouterr()
    assert (said.out + said.err).count("The disk is full.") == 1
    assert "Traceback" not in said.out + said.err


def test_unforeseen_errors_are_logged_once_with_their_traceback(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def runner(context: WorkerContext) -> None:
        raise ZeroDivisionError("bug")

    assert run(stage, runner) == EXIT_CRASHED
    said = capsys.readouterr()
    assert (said.out + said.err).count("Traceback") == 1
    assert stage.ledger.of("FinishJob") == []


def test_unknown_job_type_fails_the_job_and_names_the_known(stage: Any) -> None:
    stage.ledger.job_type = "other"
    assert run(stage, lambda context: None) == EXIT_FAILED
    assert "toy" in stage.ledger.of("FinishJob")[0].failure


def test_started_by_hand_it_says_how_it_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_worker("frazil-toy", {}, environ={}) == EXIT_USAGE
    said = capsys.readouterr()
    assert "frazil-agent" in said.out + said.err


def test_lease_that_is_not_current_is_left_quietly(stage: Any) -> None:
    stage.ledger.epoch = 8
    ran: list[bool] = []
    assert run(stage, lambda context: ran.append(True)) == EXIT_LEASE_LOST
    assert ran == []


def test_unknown_lease_is_left_quietly(stage: Any) -> None:
    stage.ledger.fault("Attach", FrazilError("LEASE_UNKNOWN", "There is no such lease.", kind=ErrorKind.NOT_FOUND))
    assert run(stage, lambda context: None) == EXIT_LEASE_LOST


def test_lease_lost_in_the_middle(stage: Any) -> None:
    def runner(context: WorkerContext) -> None:
        context.commit(CLAIM, ExposureResult(), "00")
        stage.ledger.epoch = 8
        context.commit(CLAIM, ExposureResult(), "00")

    assert run(stage, runner) == EXIT_LEASE_LOST
    assert len(stage.ledger.of("CommitExposure")) == 1


@pytest.mark.parametrize("lose_reply", [False, True])
def test_commit_counts_once_whatever_is_lost(stage: Any, context: Any, lose_reply: bool) -> None:
    stage.ledger.lose_reply = lose_reply
    stage.ledger.fault("CommitExposure", AWAY, AWAY, AWAY)
    result = ExposureResult(folder="results/e1/1.7.1")
    assert context.commit(CLAIM, result, "ab") == 41
    (request,) = stage.ledger.of("CommitExposure")
    assert (request.attempt_id, request.result, request.manifest_sha256) == ("a1", result, "ab")
    requests = [r for name, r in stage.ledger.calls if name == "CommitExposure"]
    assert len(requests) == 4
    assert len({r.request_id for r in requests}) == 1


def test_superseded_attempt_does_not_end_the_worker(stage: Any, context: Any) -> None:
    stage.ledger.fault("CommitExposure", SUPERSEDED)
    with pytest.raises(AttemptSuperseded):
        context.commit(CLAIM, ExposureResult(), "ab")
    assert not context.stop_requested
    assert context.commit(CLAIM, ExposureResult(), "ab") == 41


def test_failures_carry_class_and_reason(stage: Any, context: Any) -> None:
    context.fail(CLAIM, FailureClass.RESOURCE, "Out of memory.")
    context.give_back(CLAIM, "Stopping.")
    stage.ledger.fault("FailExposure", SUPERSEDED)
    context.fail(CLAIM, FailureClass.CRASH, "It had ended already.")
    first, second = stage.ledger.of("FailExposure")
    assert (first.failure_class, first.reason) == (wire.FailExposureRequest.FAILURE_CLASS_RESOURCE, "Out of memory.")
    assert second.failure_class == wire.FailExposureRequest.FAILURE_CLASS_RETURNED


def test_lost_lease_stays_lost(stage: Any, context: Any) -> None:
    stage.ledger.fault("ReadParticleBlocks", STALE)
    with pytest.raises(LeaseLost):
        context.read_blocks(0)
    assert context.stop_requested
    calls = len(stage.ledger.calls)
    for call in (lambda: context.claim(), lambda: context.finish(), lambda: context.read_blocks(0)):
        with pytest.raises(LeaseLost):
            call()
    assert len(stage.ledger.calls) == calls


def test_claims_that_were_not_received_are_not_taken_twice(stage: Any, context: Any) -> None:
    stage.ledger.claims.extend([CLAIM, wire.Claim(attempt_id="a2")])
    stage.ledger.lose_reply = True
    stage.ledger.fault("ClaimExposures", AWAY)
    reply = context.claim(max_count=1, wait_seconds=0.0)
    assert [claim.attempt_id for claim in reply.claims] == ["a1"]
    assert len(stage.ledger.claims) == 1


def test_stop_ends_a_claim_while_the_scheduler_is_away(stage: Any, context: Any) -> None:
    stage.ledger.fault("ClaimExposures", *[AWAY] * 1000)
    threading.Timer(0.2, context.request_stop).start()
    reply = context.claim()
    assert (reply.stop, list(reply.claims)) == (True, [])
    assert context.read_blocks(5).stop


def test_refusals_of_the_scheduler_reach_the_runner(stage: Any, context: Any) -> None:
    stage.ledger.fault("ClaimExposures", FrazilError("BAD", "Not so.", kind=ErrorKind.INVALID))
    with pytest.raises(FrazilError, match="Not so") as refusal:
        context.claim()
    assert refusal.value.reason == "BAD"


def test_checkpoints_and_what_may_be_deleted(stage: Any, context: Any) -> None:
    folder = Path(stage.ledger.folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "1.ck").touch()
    (folder.parent / "outside").touch()
    expired = context.commit_checkpoint(2, 99, "checkpoints/2.ck", "ff")
    assert expired == ("checkpoints/1.ck", "../outside")
    context.delete_expired(expired)
    context.delete_expired(expired)
    assert not (folder / "checkpoints" / "1.ck").exists()
    assert (folder.parent / "outside").exists()
    (request,) = stage.ledger.of("CommitCheckpoint")
    assert request.checkpoint == wire.Checkpoint(number=2, cursor_sequence=99, path="checkpoints/2.ck", sha256="ff")


def test_class_averages_and_finish(stage: Any, context: Any) -> None:
    assert context.publish_class_averages(ClassAverages(box_px=64)).revision == 3
    context.finish()
    context.finish("again")
    assert [r.failure for r in stage.ledger.of("FinishJob")] == [""]


def test_heartbeat_carries_progress_and_brings_the_stop(stage: Any, context: Any) -> None:
    context.report("12 of 30 exposures")
    context.heartbeat()
    assert stage.ledger.progress == ["12 of 30 exposures"]
    assert not context.stop_requested
    stage.ledger.stop_on_heartbeat = True
    context.heartbeat()
    assert context.stop_requested


def test_heartbeat_bears_an_absent_scheduler_and_notices_a_lost_lease(stage: Any, context: Any) -> None:
    stage.ledger.fault("Heartbeat", AWAY, FrazilError("ODD", "Odd.", kind=ErrorKind.INVALID))
    context.heartbeat()
    context.heartbeat()
    assert not context.stop_requested
    stage.ledger.epoch = 8
    context.heartbeat()
    assert context.stop_requested
    with pytest.raises(LeaseLost):
        context.finish()


def test_heartbeats_go_on_while_the_runner_computes(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    stage.ledger.stop_on_heartbeat = True
    assert run(stage, lambda context: context.wait_for_stop(10) or pytest.fail("no heartbeat")) == EXIT_OK


def test_memory_is_capped_on_a_gpu_only(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from frazil import array

    capped: list[int] = []
    monkeypatch.setattr(array, "cap_memory", capped.append)
    stage.environ |= {"FRAZIL_DEVICE": "cpu", "FRAZIL_MEMORY_MIB": "3000"}
    assert run(stage, lambda context: None) == EXIT_OK
    stage.environ |= {"FRAZIL_DEVICE": "gpu"}
    assert run(stage, lambda context: None) == EXIT_OK
    assert capped == [3000]


def test_pool_of_the_gpu_gets_no_more_than_the_share(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that refuses beyond its limit, as cupy's does: the worker ends as one that ran out of memory."""

    class Pool:
        limit = 0

        def set_limit(self, size: int) -> None:
            self.limit = size

        def malloc(self, size: int) -> None:
            if size > self.limit:
                raise MemoryError(f"Out of memory allocating {size:,} bytes (limit set to: {self.limit:,} bytes).")

    pool = Pool()
    cupy = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True), get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    stage.environ |= {"FRAZIL_DEVICE": "gpu", "FRAZIL_MEMORY_MIB": "3000"}
    assert run(stage, lambda context: pool.malloc(3000 * 2**20)) == EXIT_OK
    assert run(stage, lambda context: pool.malloc(3000 * 2**20 + 1)) == EXIT_OUT_OF_MEMORY


def test_lock_must_have_come_along(stage: Any, tmp_path: Path) -> None:
    path = tmp_path / "slot.lock"
    with path.open("w") as holder, path.open("r") as other:
        fcntl.flock(holder, fcntl.LOCK_EX)
        stage.environ["FRAZIL_LOCK_FD"] = str(other.fileno())
        assert run(stage, lambda context: None) == EXIT_USAGE
        stage.environ["FRAZIL_LOCK_FD"] = str(holder.fileno())
        os.set_inheritable(holder.fileno(), True)
        inheritable: list[bool] = []
        assert run(stage, lambda context: inheritable.append(os.get_inheritable(holder.fileno()))) == EXIT_OK
        assert inheritable == [False]  # no helper of the worker keeps the slot
    stage.environ["FRAZIL_LOCK_FD"] = "999"
    assert run(stage, lambda context: None) == EXIT_USAGE


def test_runners_are_found_by_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toy_runners_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_private.py").touch()
    (package / "sums.py").write_text("def run(context): context.append('ran')\n")
    (package / "heavy.py").write_text("raise RuntimeError('imported without need')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    runners = runners_in("toy_runners_package")
    assert sorted(runners) == ["heavy", "sums"]
    assert len(runners) == 2
    assert "other" not in runners
    with pytest.raises(KeyError):
        runners["_private"]
    notes: Any = []
    runners["sums"](notes)
    assert notes == ["ran"]


PROGRAM = """
import sys
from frazil.worker import run_worker
from frazil.api.worker.v1 import worker_pb2 as wire
from frazil.api.exposure.v1.exposure_pb2 import ExposureResult

def runner(context):
    print("running", flush=True)
    if len(sys.argv) > 1:
        context.commit(wire.Claim(attempt_id="a1"), ExposureResult(), "ab")
    context.wait_for_stop(30)

sys.exit(run_worker("frazil-toy", {"toy": runner}))
"""


def spawn(stage: Any, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments]
    return subprocess.Popen(command, env=os.environ | stage.environ | environ, stdout=subprocess.PIPE, text=True)


def test_sigterm_asks_the_runner_to_stop(stage: Any) -> None:
    with spawn(stage) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == EXIT_OK
    assert stage.ledger.of("FinishJob") == []


@pytest.mark.parametrize(("point", "effects"), [("worker.CommitExposure.before", 0), ("worker.CommitExposure.after", 1)])
def test_failpoints_kill_around_a_commit(stage: Any, point: str, effects: int) -> None:
    with spawn(stage, "commit", FRAZIL_FAILPOINT=point) as process:
        assert process.wait(20) == 137
    assert len(stage.ledger.of("CommitExposure")) == effects


def test_shell_needs_no_arrays() -> None:
    code = "import sys, frazil.worker; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
