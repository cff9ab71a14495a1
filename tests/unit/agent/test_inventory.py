from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frazil.agent.__main__ import AgentSettings, find_slots, least_used
from frazil.agent.inventory import (
    DeclaredGpu,
    Gpu,
    GpuShares,
    core_count,
    cpu_slots,
    gpu_slots,
    host_memory_mib,
    visible_gpus,
)
from frazil.agent.locks import LockFolder
from frazil.agent.nvml import Nvml
from frazil.agent.prove_free import Baselines
from frazil.model.errors import FrazilError
from frazil.rpc.config import read_section
from unit.agent.fake_nvml import A100, RTX, Library

MIB = 2**20


@pytest.mark.parametrize(
    ("variable", "uuids"),
    [
        (None, ["GPU-a", "GPU-b"]),
        ("all", ["GPU-a", "GPU-b"]),
        ("", []),
        ("1", ["GPU-b"]),
        ("GPU-a", ["GPU-a"]),
        ("0,1", ["GPU-a", "GPU-b"]),
    ],
)
def test_hidden_gpus_are_left_out(variable: str | None, uuids: list[str]) -> None:
    environ = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert [gpu.uuid for gpu in visible_gpus(Nvml(Library(A100, RTX)).gpus(), environ)] == uuids


def test_one_slot_takes_all_that_is_free_of_strangers() -> None:
    gpu = Gpu(uuid="GPU-a", name="A100", memory_mib=40960)
    (slot,) = gpu_slots(gpu, 1000)
    assert (slot.slot_key, slot.memory_mib, slot.gpu_uuid, slot.is_gpu) == ("GPU-a#0", 39960, "GPU-a", True)


def test_several_slots_share_a_gpu() -> None:
    gpu = Gpu(uuid="GPU-a", name="A100", memory_mib=40960)
    assert [(s.slot_key, s.memory_mib) for s in gpu_slots(gpu, 960, count=2)] == [("GPU-a#0", 20000), ("GPU-a#1", 20000)]
    assert [s.memory_mib for s in gpu_slots(gpu, 960, shares_mib=(30000, 10000))] == [30000, 10000]
    with pytest.raises(FrazilError, match="declare less"):
        gpu_slots(gpu, 961, shares_mib=(30000, 10000))


@pytest.mark.parametrize(
    ("cores", "memory", "count", "slots", "share"),
    [(2, 8000, 0, 2, 4000), (1, 3000, 0, 2, 1500), (16, 65536, 0, 4, 16384), (64, 16384, 0, 4, 4096), (4, 8000, 1, 1, 8000)],
)
def test_slots_on_the_processors(cores: int, memory: int, count: int, slots: int, share: int) -> None:
    made = cpu_slots("node", cores=cores, memory_mib=memory, count=count)
    assert [s.slot_key for s in made] == [f"cpu:node#{n}" for n in range(slots)]
    assert {s.memory_mib for s in made} == {share}
    assert not any(s.is_gpu for s in made)


def test_container_limits_count(tmp_path: Path) -> None:
    assert core_count(tmp_path) >= 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    unlimited = host_memory_mib(tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{512 * MIB}\n")
    assert (core_count(tmp_path), host_memory_mib(tmp_path)) == (1, 512)
    assert unlimited > 512


def test_older_container_limits_count(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(f"{256 * MIB}\n")
    assert (core_count(tmp_path), host_memory_mib(tmp_path)) == (1, 256)
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert core_count(tmp_path) >= 1


def find(tmp_path: Path, library: Library, **settings: Any) -> Any:
    nvml = Nvml(library)
    return find_slots(AgentSettings(**settings), "node", nvml, Baselines(LockFolder(tmp_path), nvml, "boot"))


def test_processors_are_slots_only_where_there_is_no_gpu_or_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slots, baselines = find(tmp_path, Library(A100))
    assert ([s.slot_key for s in slots], baselines) == (["GPU-a#0"], {"GPU-a": 1000})
    slots, _ = find(tmp_path, Library(A100), cpu_slots=1, memory_mib=2000)
    assert [s.slot_key for s in slots] == ["GPU-a#0", "cpu:node#0"]
    slots, baselines = find(tmp_path, Library(driver=False), memory_mib=8000)
    assert len(slots) >= 2
    assert {s.is_gpu for s in slots} == {False}
    assert baselines == {}


def test_where_a_gpu_is_required_processors_do_not_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(FrazilError, match="shows no GPU here"):
        find(tmp_path, Library(A100), require_gpu=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    slots, _ = find(tmp_path, Library(A100), require_gpu=True)
    assert [s.slot_key for s in slots] == ["GPU-a#0"]


def test_an_agent_for_one_lease_takes_the_gpu_that_others_leave_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml, locks = Nvml(Library(A100, RTX)), LockFolder(tmp_path)
    slots, _ = find_slots(AgentSettings(once=True), "node", nvml, Baselines(locks, nvml, "boot"))
    free = least_used(slots, nvml, locks)
    assert free.slot_key == max(slots, key=lambda slot: slot.memory_mib).slot_key
    lock = locks.take(free.slot_key)
    assert lock is not None
    with lock:
        assert least_used(slots, nvml, locks) != free


def test_declared_gpus_replace_the_drivers(tmp_path: Path) -> None:
    declared = (DeclaredGpu(name="H200", memory_mib=143_000), DeclaredGpu(name="T4", memory_mib=15_000, uuid="GPU-t4"))
    slots, _ = find(tmp_path, Library(A100), gpus=declared)
    assert [(s.slot_key, s.memory_mib) for s in slots] == [("GPU-node-0#0", 143_000), ("GPU-t4#0", 15_000)]


def test_operator_divides_gpus_by_name_uuid_or_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shares = (GpuShares(gpu="A1*", memory_mib=(30_000, 9_000)), GpuShares(gpu="*", memory_mib=(1,)))
    slots, _ = find(tmp_path, Library(A100), shares=shares)
    assert [(s.slot_key, s.memory_mib, s.gpu_memory_mib) for s in slots] == [
        ("GPU-a#0", 30_000, 40_960),
        ("GPU-a#1", 9_000, 40_960),
    ]
    for pattern in ("GPU-b", "1"):
        slots, _ = find(tmp_path, Library(A100, RTX), shares=(GpuShares(gpu=pattern, memory_mib=(12_000, 12_000)),))
        assert [s.slot_key for s in slots] == ["GPU-a#0", "GPU-b#0", "GPU-b#1"]
    with pytest.raises(FrazilError, match="declare less"):
        find(tmp_path, Library(A100), shares=(GpuShares(gpu="GPU-a", memory_mib=(30_000, 10_000)),))


def test_shares_are_read_from_the_file() -> None:
    toml = {"agent": {"shares": [{"gpu": "A100*", "memory_mib": [30_000, 9_000]}]}}
    settings = read_section(AgentSettings, "agent", environ={}, toml=toml)
    assert settings.shares == (GpuShares(gpu="A100*", memory_mib=(30_000, 9_000)),)
