"""Where jobs run, as flags: what is not said stays as it was."""

from __future__ import annotations

import pytest

from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.cli.compute import FLAGS, AutoPause, StreamingStart, compute_lines, compute_resources, print_advice
from frazil.cli.resources import _holder, _options
from frazil.model.errors import FrazilError


def said(**flags: object) -> dict[str, object]:
    assert set(flags) <= set(FLAGS)
    return dict.fromkeys(FLAGS) | flags


def test_one_lane_serves_every_role_that_has_none_of_its_own() -> None:
    compute = compute_resources(said(lane="big", auxiliary_lane="small", workers=3))
    assert (compute.preprocessing_lane, compute.reconstruction_lane, compute.auxiliary_lane) == ("big", "big", "small")
    assert compute.preprocessing_workers == 3


def test_a_change_touches_only_what_was_said() -> None:
    before = session_pb2.ComputeResources(
        preprocessing_lane="a", preprocessing_workers=4, priority=7, preprocessing_gpus=["GPU-1"], wait_for_exposures=True
    )
    after = compute_resources(said(workers=2, auto_pause=AutoPause.GRACEFUL, alternate=True), before)
    expected = session_pb2.ComputeResources()
    expected.CopyFrom(before)
    expected.preprocessing_workers = 2
    expected.auto_pause = session_pb2.ComputeResources.AUTO_PAUSE_GRACEFUL
    expected.alternation.enabled = True
    assert after == expected
    assert before.preprocessing_workers == 4


def test_a_change_can_take_back() -> None:
    before = session_pb2.ComputeResources(
        preprocessing_gpus=["GPU-1"],
        priority=9,
        wait_for_exposures=True,
        auto_pause=session_pb2.ComputeResources.AUTO_PAUSE_IMMEDIATE,
        streaming_start=session_pb2.ComputeResources.STREAMING_START_ON_REQUEST,
    )
    flags = said(
        preprocessing_gpus=["all"],
        priority=0,
        wait_for_exposures=False,
        auto_pause=AutoPause.OFF,
        streaming_start=StreamingStart.WITH_SESSION,
    )
    assert compute_resources(flags, before) == session_pb2.ComputeResources()


def test_the_pace_of_turns_can_be_set_and_is_said() -> None:
    before = compute_resources(said(alternate=True, update_interval=40))
    after = compute_resources(said(turn_minutes_min=8), before)
    assert (after.alternation.update_interval_minutes, after.alternation.turn_minutes_min) == (40, 8)
    assert list(compute_lines(after))[-1].strip() == "jobs take turns of 8 min or more, fresh classes every 40 min"


def test_compute_in_words() -> None:
    compute = session_pb2.ComputeResources(preprocessing_workers=2, preprocessing_lane="l", reconstruction_gpus=["GPU-9#0"])
    compute.alternation.enabled = True
    assert list(compute_lines(compute)) == [
        "preprocessing  2 × in lane l",
        "reconstruction in lane default, bound to GPU-9#0",
        "auxiliary      in lane default",
        "               jobs take turns of 5 min or more, fresh classes every 20 min",
    ]


def test_advice_says_who_waits_and_what_is_better(capsys: pytest.CaptureFixture[str]) -> None:
    waits = session_pb2.ComputeAdvice.PlannedJob(job_type="class2d_streaming", lane="l", sentence="Every slot is held.")
    suggestion = session_pb2.ComputeResources(preprocessing_workers=1)
    advice = session_pb2.ComputeAdvice(
        jobs=[waits], slots=2, free_slots=2, sentences=["Use one worker."], suggestion=suggestion
    )
    print_advice(advice)
    printed = capsys.readouterr().out
    assert "waits" in printed
    assert "Every slot is held." in printed
    assert "Use one worker." in printed
    assert "Better:" in printed


def test_a_slot_says_that_it_is_drained() -> None:
    slot = scheduler_pb2.GpuSlot(slot_key="GPU-1#0", drained="new cooling")
    assert _holder(slot, {}) == ("drained: new cooling", "")
    slot.lease.job_id = "j1"
    slot.lease.grant_time.FromJsonString("2026-01-02T03:04:05Z")
    who, since = _holder(slot, {"j1": scheduler_pb2.Job(job_id="j1", job_type="preprocess")})
    assert who == "preprocess j1 (then drained: new cooling)"
    assert since


def test_options_are_toml_or_text() -> None:
    options = _options(['nodes=["gpu*"]', "max_jobs=4", "partition=gpu", "quoted='a b'"])
    assert options == {"nodes": ["gpu*"], "max_jobs": 4, "partition": "gpu", "quoted": "a b"}
    with pytest.raises(FrazilError, match="NAME=VALUE"):
        _options(["partition"])
