"""Real processes under real locks; only the clock is a toy."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from frazil.agent.children import find_programs, reap_orphans
from frazil.agent.inventory import Slot
from frazil.agent.locks import LockRecord
from frazil.model.errors import FrazilError


def test_worker_holds_the_lock_exactly_as_long_as_it_lives(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    assert rig.locks.held(rig.slot.slot_key)
    record = rig.locks.read(rig.slot.slot_key)
    assert record == LockRecord(lease_id="lease", epoch=7, job_id="job", pid=worker.pid, boot_id="boot", amax=7)
    rig.children.stop(worker, kill=False, deadline_seconds=30)
    ended = rig.until_ended()
    assert (ended.worker, ended.exit_code) == (worker, 0)
    assert not rig.locks.held(rig.slot.slot_key)
    assert rig.children.workers == ()
    assert "toy lease begins" in worker.log.tail()


def test_environment_of_a_worker(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "reports")
    gpu = Slot(slot_key="GPU-1#0", device_name="X", memory_mib=4000, gpu_uuid="GPU-1")
    worker = rig.children.start(rig.order(), gpu)
    rig.until_ended()
    said = dict(line.split("=", 1) for line in worker.log.tail().splitlines() if "=" in line)
    fd = said.pop("FRAZIL_LOCK_FD")
    assert int(fd) > 2
    assert said == {
        "CUDA_VISIBLE_DEVICES": "GPU-1",
        "FRAZIL_DEVICE": "gpu",
        "FRAZIL_EPOCH": "7",
        "FRAZIL_LEASE_ID": "lease",
        "FRAZIL_MEMORY_MIB": "900",
        "FRAZIL_SCHEDULER_ADDRESS": "127.0.0.1:9",
        "FRAZIL_SLOT_KEY": "GPU-1#0",
        "FRAZIL_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
    }


def test_cpu_worker_sees_no_gpu(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "reports")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ended()
    assert "CUDA_VISIBLE_DEVICES=\n" in worker.log.tail()
    assert "FRAZIL_DEVICE=cpu\n" in worker.log.tail()


@pytest.mark.parametrize("code", [0, 3, 4])
def test_exit_code_is_told(rig: Any, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setenv("TOY", f"exits{code}")
    rig.children.start(rig.order(), rig.slot)
    assert rig.until_ended().exit_code == code


def test_signal_is_told_as_a_negative_code(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    os.kill(worker.pid, signal.SIGSEGV)
    assert rig.until_ended().exit_code == -signal.SIGSEGV


def test_stubborn_worker_is_killed_at_the_first_deadline(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "stubborn")
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    rig.children.stop(worker, kill=False, deadline_seconds=30)
    rig.clock.now += 29
    rig.children.stop(worker, kill=False, deadline_seconds=30)  # the scheduler says it again
    assert rig.children.poll() == ()
    rig.clock.now += 1
    assert rig.until_ended().exit_code == -signal.SIGKILL


def test_stopped_worker_can_be_killed(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    os.kill(worker.pid, signal.SIGSTOP)
    rig.children.stop(worker, kill=True)
    assert rig.until_ended().exit_code == -signal.SIGKILL


def test_telling_the_dead_to_drain_still_reports_their_end(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    rig.children.stop(worker, kill=True)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    rig.children.stop(worker, kill=False, deadline_seconds=30)
    assert [ended.exit_code for ended in rig.children.poll()] == [-signal.SIGKILL]


def test_helpers_die_with_their_worker(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "helped")
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    rig.children.stop(worker, kill=False, deadline_seconds=30)
    assert rig.until_ended().exit_code == 0
    rig.until(lambda: not rig.locks.held(rig.slot.slot_key))


def test_repeated_order_starts_nothing(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    assert rig.children.start(rig.order(), rig.slot) is worker
    assert len(rig.children.workers) == 1


@pytest.mark.parametrize(
    ("epoch", "program", "reason"),
    [(8, "frazil-other", "NO_PROGRAM"), (8, "/bin/sh", "NO_PROGRAM"), (8, "frazil-toy", "SLOT_HELD")],
)
def test_refusals_while_a_worker_runs(rig: Any, epoch: int, program: str, reason: str) -> None:
    rig.children.start(rig.order(), rig.slot)
    with pytest.raises(FrazilError) as refusal:
        rig.children.start(rig.order(epoch, "next", program), rig.slot)
    assert refusal.value.reason == reason


def test_second_agent_cannot_take_the_slot(rig: Any) -> None:
    rig.children.start(rig.order(), rig.slot)
    with pytest.raises(FrazilError) as refusal:
        rig.another().start(rig.order(8, "next"), rig.slot)
    assert refusal.value.reason == "SLOT_HELD"
    assert rig.locks.read(rig.slot.slot_key).epoch == 7


@pytest.mark.parametrize("epoch", [6, 7])
def test_old_epochs_are_refused_even_by_a_new_agent(rig: Any, monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    monkeypatch.setenv("TOY", "exits0")
    rig.children.start(rig.order(), rig.slot)
    rig.until_ended()
    with pytest.raises(FrazilError) as refusal:
        rig.another().start(rig.order(epoch, "old"), rig.slot)
    assert refusal.value.reason == "STALE_EPOCH"
    rig.children.start(rig.order(8, "next"), rig.slot)


def test_epoch_counts_even_when_the_program_cannot_be_started(rig: Any) -> None:
    rig.launch.programs["frazil-toy"].chmod(0o644)
    with pytest.raises(FrazilError) as refusal:
        rig.children.start(rig.order(), rig.slot)
    assert refusal.value.reason == "NO_PROGRAM"
    assert rig.locks.read(rig.slot.slot_key).amax == 7
    assert not rig.locks.held(rig.slot.slot_key)


def test_new_agent_adopts_by_the_lock_and_stops_the_worker(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    successor = rig.another()
    (adopted,) = successor.adopt([rig.slot.slot_key, "cpu:node#1"])
    assert (adopted.lease_id, adopted.epoch, adopted.pid, adopted.process) == ("lease", 7, worker.pid, None)
    assert successor.adopt([rig.slot.slot_key]) == ()
    assert successor.poll() == ()
    successor.stop(adopted, kill=False, deadline_seconds=30)
    assert rig.until_ended().exit_code == 0
    ended = rig.until_ended(successor)
    assert (ended.worker.lease_id, ended.exit_code) == ("lease", None)
    assert "toy ready" in ended.worker.log.tail()


def test_adopted_worker_is_killed_at_the_deadline(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "stubborn")
    rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    successor = rig.another()
    (adopted,) = successor.adopt([rig.slot.slot_key])
    successor.stop(adopted, kill=False, deadline_seconds=5)
    assert successor.poll() == ()
    rig.clock.now += 5
    assert rig.until_ended(successor).exit_code is None  # its polls kill and notice
    assert rig.until_ended().exit_code == -signal.SIGKILL


def test_agent_that_died_before_it_wrote_the_pid_is_survived(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    path = rig.locks.path(rig.slot.slot_key)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 0}))
    (adopted,) = rig.another().adopt([rig.slot.slot_key])
    assert adopted.pid == worker.pid


def test_helpers_of_a_dead_adopted_worker_do_not_keep_the_slot(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "helped")
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    successor = rig.another()
    successor.adopt([rig.slot.slot_key])
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait()
    rig.children._workers.clear()
    assert rig.until_ended(successor).exit_code is None
    assert not rig.locks.held(rig.slot.slot_key)


def test_process_that_reuses_an_old_number_is_never_signalled(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    path = rig.locks.path(rig.slot.slot_key)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": os.getppid()}))
    (adopted,) = rig.another().adopt([rig.slot.slot_key])
    assert adopted.pid == worker.pid


def test_programs_are_found_beside_the_interpreter() -> None:
    assert set(find_programs(["frazil-agent", "no-such-program"])) == {"frazil-agent"}


def test_program_may_be_given_by_its_path(rig: Any) -> None:
    toy = rig.launch.programs["frazil-toy"]
    assert find_programs([str(toy), str(toy.with_name("absent"))]) == {"frazil-toy": toy}


def test_orphans_are_reaped_and_workers_are_not(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "exits5")
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until(lambda: os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    reap_orphans([worker.pid])
    assert rig.until_ended().exit_code == 5
    orphan = os.posix_spawn("/bin/true", ["true"], {})
    rig.until(lambda: os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    reap_orphans([])
    with pytest.raises(ChildProcessError):
        os.waitpid(orphan, os.WNOHANG)
