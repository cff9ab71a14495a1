from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from frazil.agent.inventory import Slot
from frazil.agent.locks import LockFolder
from frazil.agent.prove_free import Baselines, Claim, GpuChecks, Proof, allowed_mib

GPU = Slot(slot_key="GPU-a#0", device_name="A100", memory_mib=8000, gpu_uuid="GPU-a")
CPU = Slot(slot_key="cpu:n#0", device_name="CPU", memory_mib=8000)


class Memory:
    def __init__(self, used: int | None = 0) -> None:
        self.used = used

    def used_mib(self, uuid: str) -> int | None:
        return self.used

    def free_mib(self, uuid: str) -> int | None:
        return None if self.used is None else 8000 - self.used


def prove(tmp_path: Path, slot: Slot, memory: Memory, epoch: int = 5, **checks: Any) -> Proof:
    claim = Claim(slot=slot, lease_id="l", epoch=epoch)
    return Proof(claim, LockFolder(tmp_path), memory, GpuChecks(allowed_mib=lambda: allowed_mib(slot, 100, ()), **checks), 0.0)


def test_free_processor_slot_is_proven_at_once_and_old_starts_are_barred(tmp_path: Path) -> None:
    assert prove(tmp_path, CPU, Memory(None)).step(0.0) == ""
    assert LockFolder(tmp_path).read(CPU.slot_key).amax == 5


def test_gpu_needs_two_good_readings_a_second_apart(tmp_path: Path) -> None:
    proof = prove(tmp_path, GPU, Memory(356))
    assert [proof.step(t) for t in (0.0, 0.5, 0.99, 1.0)] == [None, None, None, ""]


def test_memory_that_comes_back_late_is_waited_for(tmp_path: Path) -> None:
    memory = Memory(5000)
    proof = prove(tmp_path, GPU, memory)
    assert all(proof.step(float(t)) is None for t in range(59))
    memory.used = 300
    assert (proof.step(59.0), proof.step(60.0)) == (None, "")


def test_memory_that_does_not_come_back_is_a_problem_after_a_minute(tmp_path: Path) -> None:
    proof = prove(tmp_path, GPU, Memory(5100))
    assert all(proof.step(float(t)) is None for t in range(60))
    assert proof.step(60.0) == "memory not released: 5,000 MiB more in use than before"


def test_flickering_memory_is_no_proof(tmp_path: Path) -> None:
    memory = Memory()
    proof = prove(tmp_path, GPU, memory)
    for t in range(20):
        memory.used = 5000 if t % 2 else 0
        assert proof.step(float(t)) is None


def test_gpu_that_cannot_be_read_is_proven_by_its_lock(tmp_path: Path) -> None:
    proof = prove(tmp_path, GPU, Memory(None))
    assert (proof.step(0.0), proof.step(1.0)) == (None, "")


def test_gpu_that_is_out_of_order_is_no_proof(tmp_path: Path) -> None:
    problems = ["Xid 79: fallen off the bus"]
    proof = prove(tmp_path, GPU, Memory(), problem=lambda: "".join(problems))
    assert all(proof.step(float(t)) is None for t in range(60))
    assert proof.step(60.0) == "Xid 79: fallen off the bus"
    problems.clear()
    assert (proof.step(61.0), proof.step(62.0)) == (None, "")


class Answer:
    """A trial that answers after some looks, and takes memory meanwhile."""

    def __init__(self, memory: Memory, answer: str, looks: int = 3) -> None:
        self.memory, self.answer, self.looks = memory, answer, looks
        memory.used = 600

    def poll(self) -> str | None:
        self.looks -= 1
        return None if self.looks else self.answer

    def stop(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("answer", ["", "a first use of the GPU failed"])
def test_gpu_is_used_once_before_it_is_given_again(tmp_path: Path, answer: str) -> None:
    memory = Memory()
    proof = prove(tmp_path, GPU, memory, trial=lambda: Answer(memory, answer))
    assert [proof.step(float(t)) for t in range(5)] == [None, None, None, None, answer]


def test_trial_is_only_for_gpus_that_can_be_asked(tmp_path: Path) -> None:
    def never() -> Any:
        raise AssertionError

    assert prove(tmp_path, CPU, Memory(), trial=never).step(0.0) == ""
    proof = prove(tmp_path, GPU, Memory(None), trial=never)
    assert (proof.step(0.0), proof.step(1.0)) == (None, "")


def test_shares_of_held_slots_on_the_same_gpu_are_allowed() -> None:
    beside = Slot(slot_key="GPU-a#1", device_name="A100", memory_mib=2000, gpu_uuid="GPU-a")
    other = Slot(slot_key="GPU-b#0", device_name="A100", memory_mib=4000, gpu_uuid="GPU-b")
    assert allowed_mib(GPU, 100, [GPU, beside, other]) == 100 + 256 + 2000


def test_stopped_worker_is_never_proven_free(rig: Any) -> None:
    worker = rig.children.start(rig.order(), rig.slot)
    rig.until_ready()
    os.kill(worker.pid, signal.SIGSTOP)
    rig.until(lambda: "T (stopped)" in Path(f"/proc/{worker.pid}/status").read_text())
    claim = Claim(slot=rig.slot, lease_id="lease", epoch=7)
    proof = Proof(claim, rig.locks, Memory(None), GpuChecks(allowed_mib=lambda: 0), 0.0)
    assert all(proof.step(float(t)) is None for t in range(60))
    assert proof.step(60.0) == f"its lock is still held by process {worker.pid} (T (stopped))"
    os.kill(worker.pid, signal.SIGKILL)
    rig.until_ended()
    assert Proof(claim, rig.locks, Memory(None), GpuChecks(allowed_mib=lambda: 0), 0.0).step(0.0) == ""


@pytest.mark.parametrize(("boot", "expected"), [("boot", 700), ("next boot", 0)])
def test_baseline_is_not_measured_over_a_running_worker(tmp_path: Path, boot: str, expected: int) -> None:
    locks, memory = LockFolder(tmp_path), Memory(700)
    assert Baselines(locks, memory, "boot").measure("GPU-a") == 700
    memory.used = 6000
    lock = locks.take("GPU-a#1")
    assert lock is not None
    with lock:
        assert Baselines(locks, memory, boot).measure("GPU-a") == expected
    assert Baselines(locks, memory, boot).measure("GPU-a") == 6000


def test_damaged_note_of_a_baseline_is_ignored(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path)
    (tmp_path / "GPU-a.baseline").write_text("{")
    lock = locks.take("GPU-a#0")
    assert lock is not None
    with lock:
        assert Baselines(locks, Memory(9), "boot").measure("GPU-a") == 0
