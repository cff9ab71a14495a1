"""NVML read beside the agent's own work."""

from __future__ import annotations

import threading
from typing import Any

from frazil.agent import gpu_poll
from frazil.agent.gpu_poll import HANGS_SECONDS, GpuPoll
from frazil.agent.nvml import Nvml
from frazil.model.gpu_errors import NO_ANSWER
from unit.agent.fake_nvml import A100, RTX, Library


def polling(library: Library, clock: Any) -> GpuPoll:
    nvml = Nvml(library)
    uuids = [gpu.uuid for gpu in nvml.gpus()]
    nvml.watch()
    return GpuPoll(nvml, uuids, clock)


def test_readings_are_told_as_they_were(rig: Any) -> None:
    library = Library({**A100, "percent": 87}, RTX)
    poll = polling(library, rig.clock)
    assert (poll.use("GPU-a"), poll.errors()) == (None, [])
    library.pending = [("GPU-b", 31)]
    poll.read()
    use = poll.use("GPU-a")
    assert use is not None
    assert (use.memory_used_mib, use.utilization_percent) == (1000, 87)
    assert poll.errors() == [("GPU-b", 31)]
    assert poll.errors() == []


def test_gpus_whose_driver_hangs_no_longer_answer(rig: Any) -> None:
    poll = polling(Library(A100, RTX), rig.clock)
    poll.read()
    rig.clock.now += HANGS_SECONDS - 0.1
    assert poll.errors() == []
    rig.clock.now += 0.1
    assert poll.errors() == [("GPU-a", NO_ANSWER), ("GPU-b", NO_ANSWER)]
    poll.read()
    assert poll.errors() == []


def test_machine_without_gpus_is_never_silent(rig: Any) -> None:
    poll = polling(Library(driver=False), rig.clock)
    poll.start()
    rig.clock.now += 1e6
    assert poll.errors() == []
    assert "nvml" not in {thread.name for thread in threading.enumerate()}


def test_thread_reads_until_it_is_stopped(rig: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu_poll, "POLL_SECONDS", 0.01)
    library = Library(A100)
    poll = polling(library, rig.clock)
    poll.start()
    library.pending = [("GPU-a", 79)]
    rig.until(lambda: ("GPU-a", 79) in poll.errors())
    poll.stop()
    rig.until(lambda: "nvml" not in {thread.name for thread in threading.enumerate()})
