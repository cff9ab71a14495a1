"""Messages as JSON: names, enums, times, unset values, numbers JSON does not know."""

from __future__ import annotations

import json

import pytest

from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult, MovieFile
from frazil.api.scheduler.v1.scheduler_pb2 import GpuSlot, Lease, Node
from frazil.api.session.v1.session_pb2 import Session, SessionParameters
from frazil_web.records import EXPOSURE_COLUMNS, enum_name, exposure_row, exposure_summary, result_version, to_json


def test_unset_is_null_and_zero_is_zero() -> None:
    parameters = SessionParameters(voltage_kv=0.0, particle_diameter_angstrom=140)
    found = to_json(Session(name="a", parameters=parameters, labels={"grid": "7"}))
    assert found["parameters"]["voltage_kv"] == 0.0
    assert found["parameters"]["pixel_size_angstrom"] is None
    assert found["compute"] is None
    assert found["create_time"] is None
    assert found["labels"] == {"grid": "7"}
    assert found["state"] == "unspecified"
    assert set(found) == {field.name for field in Session.DESCRIPTOR.fields}


def test_nested_and_repeated_messages_enums_and_times() -> None:
    lease = Lease(lease_id="l1", epoch=2**53 - 1, state=Lease.STATE_RELEASING)
    lease.grant_time.FromMilliseconds(1_700_000_000_123)
    node = Node(node_id="n", state=Node.STATE_UP, programs=["frazil-preprocess"])
    node.slots.add(slot_key="GPU-1#0", kind=GpuSlot.KIND_GPU, lease=lease)
    found = to_json(node)
    assert found["state"] == "up"
    assert found["programs"] == ["frazil-preprocess"]
    slot = found["slots"][0]
    assert (slot["kind"], slot["lease"]["state"], slot["lease"]["epoch"]) == ("gpu", "releasing", 2**53 - 1)
    assert slot["lease"]["grant_time"] == 1_700_000_000.123


def test_a_state_of_a_newer_scheduler_is_unknown() -> None:
    assert enum_name(Session.State.DESCRIPTOR, 99) == "unknown"


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_odd_numbers_never_break_json(odd: float) -> None:
    result = ExposureResult(defocus_u_angstrom=odd, ctf_fit_resolution_angstrom=odd, motion_total_angstrom=odd, ctf_score=odd)
    result.stage_seconds["ctf"] = odd
    exposure = Exposure(exposure_id="e", result=result)
    assert json.loads(json.dumps(to_json(exposure), allow_nan=False))["result"]["stage_seconds"] == {"ctf": None}
    assert json.loads(json.dumps(exposure_summary(exposure), allow_nan=False))["defocus_u_angstrom"] is None


def test_rows_have_one_value_per_column_with_and_without_a_result() -> None:
    bare = Exposure(exposure_id="e", number=3, file=MovieFile(relative_path="a/<b>.tiff"), state=Exposure.STATE_READY)
    assert len(exposure_row(bare)) == len(EXPOSURE_COLUMNS)
    assert exposure_summary(bare)["motion_total_angstrom"] is None
    whole = Exposure(
        exposure_id="e", state=Exposure.STATE_DONE, result=ExposureResult(folder="x", pick_count=7, warnings=["w"])
    )
    summary = exposure_summary(whole)
    assert (summary["pick_count"], summary["warning_count"], summary["ctf_fit_resolution_angstrom"]) == (7, 1, None)


def test_the_version_follows_the_attempt() -> None:
    first, second = (Exposure(result=ExposureResult(folder=folder)) for folder in ("e/1", "e/2"))
    assert result_version(first) != result_version(second)
    assert result_version(first) == result_version(Exposure(result=ExposureResult(folder="e/1", pick_count=3)))
    assert result_version(Exposure()) == ""
