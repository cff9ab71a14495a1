"""NVML over GPUs that are not there."""

from __future__ import annotations

from frazil.agent.inventory import Gpu
from frazil.agent.nvml import Nvml, Program, Use
from frazil.model.gpu_errors import NO_ANSWER
from unit.agent.fake_nvml import A100, RTX, Library


def test_gpus_as_the_driver_reports_them() -> None:
    nvml = Nvml(Library(A100, RTX))
    assert nvml.gpus() == (
        Gpu(uuid="GPU-a", name="A100", memory_mib=40960, index=0),
        Gpu(uuid="GPU-b", name="RTX", memory_mib=24576, index=1),
    )
    assert (nvml.used_mib("GPU-a"), nvml.free_mib("GPU-a")) == (1000, 39960)
    assert nvml.used_mib("GPU-zz") is None


def test_machine_without_a_driver_has_no_gpus() -> None:
    nvml = Nvml(Library(driver=False))
    assert nvml.gpus() == ()
    assert nvml.used_mib("GPU-a") is None
    assert nvml.free_mib("GPU-a") is None


def test_lost_gpu_is_no_slot_and_the_others_are() -> None:
    assert [gpu.uuid for gpu in Nvml(Library({**A100, "lost": True}, RTX)).gpus()] == ["GPU-b"]


def test_divided_gpu_is_replaced_by_its_instances() -> None:
    parts = [{"uuid": "MIG-1", "mib": 9856}, None, {"uuid": "MIG-2", "mib": 9856}]
    gpus = Nvml(Library({**A100, "mig": parts})).gpus()
    assert [(gpu.uuid, gpu.name, gpu.memory_mib) for gpu in gpus] == [("MIG-1", "A100", 9856), ("MIG-2", "A100", 9856)]


def watching(library: Library) -> Nvml:
    nvml = Nvml(library)
    nvml.gpus()
    nvml.watch()
    return nvml


def test_use_of_a_gpu() -> None:
    nvml = Nvml(Library({**A100, "percent": 87}, RTX))
    assert nvml.use("GPU-a") == Use(memory_used_mib=1000, memory_total_mib=40960, utilization_percent=87)
    assert nvml.use("GPU-b") == Use(memory_used_mib=0, memory_total_mib=24576, utilization_percent=0)
    assert nvml.use("GPU-zz") is None


def test_programs_on_a_gpu_with_their_memory_where_the_driver_knows_it() -> None:
    nvml = Nvml(Library({**A100, "programs": {4242: 18_000, 7: None}}, RTX))
    assert nvml.programs("GPU-a") == (Program(pid=7, memory_mib=None), Program(pid=4242, memory_mib=18_000))
    assert nvml.programs("GPU-b") == nvml.programs("GPU-zz") == ()
    assert Nvml(Library(driver=False)).programs("GPU-a") == ()


def test_errors_are_told_once() -> None:
    library = Library(A100, RTX)
    nvml = watching(library)
    assert library.watched == ["GPU-a", "GPU-b"]
    assert nvml.errors() == []
    library.pending = [("GPU-b", 31), ("GPU-a", 79), ("GPU-b", 45)]
    assert nvml.errors() == [("GPU-b", 31), ("GPU-a", 79), ("GPU-b", 45)]
    assert nvml.errors() == []


def test_error_of_a_divided_gpu_is_that_of_all_its_instances() -> None:
    library = Library({**A100, "mig": [{"uuid": "MIG-1", "mib": 9856}, None, {"uuid": "MIG-2", "mib": 9856}]}, RTX)
    nvml = watching(library)
    library.pending = [("GPU-a", 48)]
    assert nvml.errors() == [("MIG-1", 48), ("MIG-2", 48)]


def test_board_that_reports_no_errors_hides_not_those_of_the_others() -> None:
    library = Library({**A100, "events": False}, RTX)
    nvml = watching(library)
    library.pending = [("GPU-b", 79)]
    assert nvml.errors() == [("GPU-b", 79)]


def test_gpu_that_is_lost_no_longer_answers() -> None:
    card = dict(RTX)
    nvml = watching(Library(A100, card))
    assert nvml.errors() == []
    card["error"] = Library.NVML_ERROR_GPU_IS_LOST
    assert nvml.errors() == [("GPU-b", NO_ANSWER)]
    card["error"] = 999  # a passing fault of the reading is no loss
    assert nvml.errors() == []


def test_when_nvml_itself_fails_no_gpu_is_trusted() -> None:
    library = Library(A100, RTX)
    nvml = watching(library)
    library.pending = [("GPU-a", 31), 999]
    assert nvml.errors() == [("GPU-a", 31), ("GPU-a", NO_ANSWER), ("GPU-b", NO_ANSWER)]
    library.pending = [("GPU-a", 31)]
    assert nvml.errors() == []  # it is not asked again


def test_machine_without_a_driver_has_no_errors() -> None:
    assert watching(Library(driver=False)).errors() == []
