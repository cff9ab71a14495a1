"""The agent's answers to the scheduler's messages."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from frazil.agent.control import Control, Node
from frazil.agent.inventory import Slot
from frazil.agent.nvml import Program, Use
from frazil.agent.out_of_memory import OomWatch
from frazil.api.agent.v1.agent_pb2 import ConnectRequest, ConnectResponse, Probe, Start, Stop, Welcome
from frazil.api.scheduler.v1.scheduler_pb2 import GpuSlot
from frazil.rpc.config import EXIT_OUT_OF_MEMORY


class Memory:
    def __init__(self) -> None:
        self.used = 0
        self.new: list[tuple[str, int]] = []
        self.programs_of: dict[str, list[Program]] = {}

    def programs(self, uuid: str) -> tuple[Program, ...]:
        return tuple(self.programs_of.get(uuid, ()))

    def used_mib(self, uuid: str) -> int | None:
        return self.used

    def free_mib(self, uuid: str) -> int | None:
        return 8000 - self.used

    def use(self, uuid: str) -> Use | None:
        return Use(memory_used_mib=self.used, memory_total_mib=8000, utilization_percent=42)

    def errors(self) -> list[tuple[str, int]]:
        new, self.new = self.new, []
        return new


class Works:
    def poll(self) -> str | None:
        return ""

    def stop(self) -> None:
        pass


class Desk:
    """A control over the rig's children, with one processor slot and one GPU slot."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self.memory = Memory()
        self.gpu = Slot(slot_key="GPU-a#0", device_name="A100", memory_mib=6000, gpu_uuid="GPU-a", gpu_memory_mib=8000)
        self.beside = Slot(slot_key="GPU-a#1", device_name="A100", memory_mib=2000, gpu_uuid="GPU-a", gpu_memory_mib=8000)
        self.kills = 0
        self.control = self.successor(rig.children)

    def successor(self, children: Any, once_idle_seconds: float = 0.0) -> Control:
        node = Node(
            node_id="node",
            boot_id="boot",
            incarnation="i",
            slots=(self.rig.slot, self.gpu, self.beside),
            programs=("frazil-toy",),
            baselines_mib={"GPU-a": 0},
            once_idle_seconds=once_idle_seconds,
        )
        oom = OomWatch(lambda: self.kills)
        return Control(node, self.rig.locks, children, self.memory, self.rig.clock, oom=oom, trial=lambda *_: Works())

    def tell(self, message: Start | Stop | Probe | Welcome, term: int = 1) -> list[ConnectRequest]:
        kind = type(message).__name__.lower()
        return self.control.handle(ConnectResponse(term=term, **{kind: message}))

    def until(self, kind: str, control: Control | None = None) -> Any:
        """Tick, with the clock, until a message of a kind comes."""
        seen: list[ConnectRequest] = []

        def ticked() -> bool:
            seen.extend((control or self.control).tick())
            self.rig.clock.now += 0.05
            return any(message.WhichOneof("message") == kind for message in seen)

        self.rig.until(ticked)
        return next(getattr(message, kind) for message in seen if message.WhichOneof("message") == kind)


@pytest.fixture
def desk(rig: Any) -> Desk:
    return Desk(rig)


def test_hello_says_who_it_is_and_what_it_has(desk: Desk) -> None:
    hello = desk.control.hello().hello
    assert (hello.node_id, hello.boot_id, hello.incarnation, list(hello.programs)) == ("node", "boot", "i", ["frazil-toy"])
    assert [(s.slot_key, s.node_id, s.kind, s.memory_mib) for s in hello.slots] == [
        ("cpu:node#0", "node", GpuSlot.KIND_CPU, 1000),
        ("GPU-a#0", "node", GpuSlot.KIND_GPU, 6000),
        ("GPU-a#1", "node", GpuSlot.KIND_GPU, 2000),
    ]
    assert [slot.gpu_memory_total_mib for slot in hello.slots] == [0, 8000, 8000]
    assert list(hello.held) == []


def test_life_of_a_worker(desk: Desk) -> None:
    (message,) = desk.tell(desk.rig.order())
    assert (message.started.lease_id, message.started.epoch) == ("lease", 7)
    (again,) = desk.tell(desk.rig.order())
    assert again == message
    beat = desk.control.beat().beat
    assert beat.number == 1
    assert [(h.slot_key, h.lease_id, h.epoch, h.pid) for h in beat.held] == [("cpu:node#0", "lease", 7, message.started.pid)]
    assert [(u.gpu_uuid, u.memory_used_mib, u.memory_total_mib, u.utilization_percent) for u in beat.gpus] == [
        ("GPU-a", 0, 8000, 42)
    ]
    desk.rig.until_ready()
    assert desk.tell(Stop(lease_id="lease", epoch=7, mode=Stop.MODE_DRAIN, deadline_seconds=30)) == []
    exited = desk.until("exited")
    assert (exited.lease_id, exited.epoch, exited.exit_code, exited.refused) == ("lease", 7, 0, "")
    assert "toy ready" in exited.log_tail
    assert list(desk.control.beat().beat.held) == []


def test_death_is_followed_by_proof_unasked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "exits1")
    desk.tell(desk.rig.order())
    proved = desk.until("proved_free")
    assert (proved.slot_key, proved.lease_id, proved.epoch, proved.problem) == ("cpu:node#0", "lease", 7, "")
    assert not desk.control.busy


def test_an_agent_of_a_cluster_job_is_over_when_its_lease_is_proven_free(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "exits1")
    desk.control = desk.successor(desk.rig.children, once_idle_seconds=1000.0)
    assert desk.control.hello().hello.cluster_job_name == "node"
    assert not desk.control.over
    desk.tell(desk.rig.order())
    assert not desk.control.over
    desk.until("proved_free")
    assert desk.control.over


def test_an_agent_of_a_cluster_job_is_over_when_nobody_wants_it(desk: Desk) -> None:
    desk.control = desk.successor(desk.rig.children, once_idle_seconds=60.0)
    desk.rig.clock.now += 59.0
    desk.control.tick()
    assert not desk.control.over
    desk.rig.clock.now += 1.0
    assert desk.control.over


def test_an_agent_of_a_machine_is_never_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "exits1")
    desk.tell(desk.rig.order())
    desk.until("proved_free")
    desk.rig.clock.now += 1e6
    assert not desk.control.over
    assert desk.control.hello().hello.cluster_job_name == ""


def test_start_and_stop_of_a_worker_that_ended_are_answered_with_its_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "exits4")
    desk.tell(desk.rig.order())
    exited = desk.until("exited")
    assert desk.tell(desk.rig.order()) == [ConnectRequest(exited=exited)]
    assert desk.tell(Stop(lease_id="lease", epoch=7)) == [ConnectRequest(exited=exited)]


def test_stop_of_an_unknown_lease_is_answered_without_a_code(desk: Desk) -> None:
    (message,) = desk.tell(Stop(lease_id="who", epoch=3, mode=Stop.MODE_KILL))
    assert (message.exited.lease_id, message.exited.epoch) == ("who", 3)
    assert not message.exited.HasField("exit_code")
    assert message.exited.refused == ""


def test_kill_is_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "stubborn")
    desk.tell(desk.rig.order())
    desk.tell(Stop(lease_id="lease", epoch=7, mode=Stop.MODE_KILL))
    assert desk.until("exited").exit_code == -signal.SIGKILL


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"program": "rm"}, "NO_PROGRAM"), ({"slot_key": "cpu:node#9"}, "NO_SLOT"), ({}, "STALE_EPOCH")],
)
def test_refused_starts(desk: Desk, change: dict[str, str], reason: str) -> None:
    desk.rig.locks.raise_amax("cpu:node#0", 50)
    order = desk.rig.order()
    order.MergeFrom(Start(**change))  # type: ignore[arg-type]
    (message,) = desk.tell(order)
    assert message.exited.refused == reason
    assert message.exited.log_tail != ""
    assert not desk.control.busy


def test_older_scheduler_is_not_obeyed(desk: Desk) -> None:
    desk.tell(Welcome(), term=5)
    (message,) = desk.tell(desk.rig.order(), term=4)
    assert message.exited.refused == "STALE_TERM"
    assert desk.rig.locks.read("cpu:node#0").amax == 0
    desk.tell(desk.rig.order(), term=5)
    assert desk.tell(Stop(lease_id="lease", epoch=7, mode=Stop.MODE_KILL), term=4) == []
    assert len(desk.control.workers) == 1


def test_gpu_that_others_use_is_refused_before_anything_starts(desk: Desk) -> None:
    desk.memory.used = 6000
    order = desk.rig.order()
    order.slot_key, order.memory_mib = "GPU-a#0", 6000
    (message,) = desk.tell(order)
    assert message.exited.refused == "GPU_BUSY_EXTERNAL"
    assert "2,000 MiB are free, 6,000 MiB are needed" in message.exited.log_tail
    assert desk.rig.locks.read("GPU-a#0").amax == 0  # the same order may come again
    desk.memory.used = 200
    assert desk.tell(order)[0].HasField("started")


def test_programs_that_use_a_gpu_are_named_but_not_our_own_workers(desk: Desk) -> None:
    order = desk.rig.order()
    order.slot_key, order.memory_mib = "GPU-a#1", 2000
    (started,) = desk.tell(order)
    ours = started.started.pid
    desk.memory.used = 6000
    others = [Program(pid=9, memory_mib=None), *(Program(pid=pid, memory_mib=900) for pid in range(11, 16))]
    desk.memory.programs_of["GPU-a"] = [Program(pid=ours, memory_mib=2000), *others]
    second = Start(lease_id="second", epoch=8, slot_key="GPU-a#0", program=order.program, memory_mib=6000)
    (refused,) = desk.tell(second)
    named = "pid 9, pid 11 (900 MiB), pid 12 (900 MiB), pid 13 (900 MiB), pid 14 (900 MiB), 1 more"
    assert refused.exited.log_tail.endswith(f"6,000 MiB are needed; on it: {named}.")


def test_memory_of_a_dead_worker_is_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "exits0")
    order = desk.rig.order()
    order.slot_key = "GPU-a#0"
    desk.tell(order)
    desk.memory.used = 5000
    desk.until("exited")
    desk.rig.clock.now += 30
    assert desk.control.tick() == []
    desk.memory.used = 100
    assert desk.until("proved_free").problem == ""


def test_memory_that_is_not_released_is_told_with_who_holds_it(desk: Desk) -> None:
    desk.memory.used = 5000
    desk.memory.programs_of["GPU-a"] = [Program(pid=4242, memory_mib=4900)]
    desk.tell(Probe(slot_key="GPU-a#0", lease_id="lease", epoch=7))
    desk.control.tick()
    desk.rig.clock.now += 61
    (message,) = desk.control.tick()
    assert message.proved_free.problem.endswith("MiB more in use than before; on it: pid 4242 (4,900 MiB)")


def test_probe_while_the_lock_is_held_says_why_after_a_minute(desk: Desk) -> None:
    desk.tell(desk.rig.order())
    for _ in range(3):  # it is sent again and again
        assert desk.tell(Probe(slot_key="cpu:node#0", lease_id="lease", epoch=7)) == []
        desk.rig.clock.now += 25
        messages = desk.control.tick()
    (message,) = messages
    assert "still held" in message.proved_free.problem


def test_probe_of_a_slot_without_lease_or_configuration(desk: Desk) -> None:
    desk.tell(Probe(slot_key="cpu:node#0"))
    assert desk.until("proved_free").lease_id == ""
    desk.tell(Probe(slot_key="cpu:node#77", lease_id="l", epoch=3))
    proved = desk.until("proved_free")
    assert (proved.slot_key, proved.epoch, proved.problem) == ("cpu:node#77", 3, "")


def test_start_that_was_under_way_during_the_proof_is_refused(desk: Desk) -> None:
    desk.tell(Probe(slot_key="cpu:node#0", lease_id="lease", epoch=7))
    assert desk.until("proved_free").problem == ""
    (message,) = desk.tell(desk.rig.order())
    assert message.exited.refused == "STALE_EPOCH"


def test_restarted_agent_reports_adopts_and_kills_what_is_disowned(desk: Desk) -> None:
    (message,) = desk.tell(desk.rig.order())
    successor = desk.successor(desk.rig.another())
    (held,) = successor.hello().hello.held
    assert (held.lease_id, held.epoch, held.pid) == ("lease", 7, message.started.pid)
    successor.handle(ConnectResponse(term=1, welcome=Welcome(adopt=["lease"])))
    assert len(successor.workers) == 1
    assert desk.control.tick() == []
    successor.handle(ConnectResponse(term=1, welcome=Welcome(kill=["lease"])))
    assert desk.until("exited").exit_code == -signal.SIGKILL
    exited = desk.until("exited", successor)
    assert not exited.HasField("exit_code")


def test_draining_agent_starts_nothing(desk: Desk) -> None:
    desk.tell(desk.rig.order())
    desk.rig.until_ready()
    desk.control.drain(30.0)
    assert desk.tell(desk.rig.order(epoch=8, lease="next")) == []
    assert desk.until("exited").exit_code == 0

    def idle() -> bool:  # the proof that the slot is free may take another tick
        desk.control.tick()
        return not desk.control.busy

    desk.rig.until(idle)


# --------------------------------------------------------------------------------------------------------------- GPUs
OFF_THE_BUS = 79
PAGE_FAULT = 31


def on_gpu(desk: Desk, slot_key: str = "GPU-a#0", epoch: int = 7, lease: str = "lease") -> Start:
    order = desk.rig.order(epoch=epoch, lease=lease)
    order.slot_key, order.memory_mib = slot_key, 2000
    desk.tell(order)
    desk.rig.until_ready(lease, epoch)
    return order


def faults(messages: list[ConnectRequest]) -> list[tuple[str, int]]:
    found = [message.gpu_fault for message in messages if message.HasField("gpu_fault")]
    return [(fault.gpu_uuid, fault.xid) for fault in found]


def test_grave_error_is_told_once_and_again_to_every_new_scheduler(desk: Desk) -> None:
    desk.memory.new = [("GPU-a", OFF_THE_BUS)]
    (message,) = desk.control.tick()
    assert message.gpu_fault.sentence == "Xid 79: fallen off the bus"
    desk.memory.new = [("GPU-a", OFF_THE_BUS)]
    assert desk.control.tick() == []
    assert faults(desk.tell(Welcome())) == [("GPU-a", OFF_THE_BUS)]


def test_gpu_with_a_grave_error_is_not_proven_free_until_a_person_asks(desk: Desk) -> None:
    desk.memory.new = [("GPU-a", OFF_THE_BUS)]
    desk.control.tick()
    desk.tell(Probe(slot_key="GPU-a#0", lease_id="lease", epoch=7))
    desk.rig.clock.now += 61
    assert desk.until("proved_free").problem == "Xid 79: fallen off the bus"
    desk.tell(Probe(slot_key="GPU-a#0", lease_id="lease", epoch=7, afresh=True))
    assert desk.until("proved_free").problem == ""
    assert desk.tell(Welcome()) == []


def test_end_of_a_worker_tells_the_errors_of_its_gpu_while_it_ran(desk: Desk) -> None:
    desk.memory.new = [("GPU-a", 43)]
    desk.control.tick()
    on_gpu(desk)
    on_gpu(desk, "GPU-a#1", 8, "beside")
    desk.memory.new = [("GPU-a", PAGE_FAULT), ("GPU-b", 45)]
    desk.control.tick()
    for lease, epoch in (("lease", 7), ("beside", 8)):
        desk.tell(Stop(lease_id=lease, epoch=epoch, mode=Stop.MODE_KILL))
        exited = desk.until("exited")
        assert (exited.lease_id, list(exited.xids)) == (lease, [PAGE_FAULT])
    assert list(desk.tell(Stop(lease_id="lease", epoch=7))[0].exited.xids) == [PAGE_FAULT]  # remembered with its end


def test_worker_alone_on_its_gpu_ends_after_its_own_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "stubborn")
    on_gpu(desk)
    desk.memory.new = [("GPU-a", PAGE_FAULT)]
    desk.control.tick()
    assert len(desk.control.workers) == 1
    desk.rig.clock.now += 10
    assert desk.until("exited").exit_code == -signal.SIGKILL


def test_workers_that_share_a_gpu_are_not_ended_for_an_error_of_one_of_them(desk: Desk) -> None:
    on_gpu(desk)
    on_gpu(desk, "GPU-a#1", 8, "beside")
    desk.memory.new = [("GPU-a", PAGE_FAULT)]
    assert faults(desk.control.tick()) == []  # its end will tell
    assert [worker.kill_at for worker in desk.control.workers] == [None, None]


@pytest.mark.parametrize(("killed", "told"), [(True, True), (False, False)])
def test_worker_that_the_kernel_killed_for_memory_is_told_apart(desk: Desk, killed: bool, told: bool) -> None:
    desk.tell(desk.rig.order())
    (worker,) = desk.control.workers
    desk.kills += killed
    os.kill(worker.pid, signal.SIGKILL)
    assert desk.until("exited").out_of_memory is told


def test_worker_that_says_it_ran_out_of_memory_is_believed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", f"exits{EXIT_OUT_OF_MEMORY}")
    desk.tell(desk.rig.order())
    assert desk.until("exited").out_of_memory


def test_worker_that_we_killed_was_not_out_of_memory(desk: Desk) -> None:
    desk.tell(desk.rig.order())
    desk.kills += 1
    desk.tell(Stop(lease_id="lease", epoch=7, mode=Stop.MODE_KILL))
    assert not desk.until("exited").out_of_memory
