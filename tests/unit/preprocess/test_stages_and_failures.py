"""Stage times add up; every failure is given to the right side, with a sentence."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from frazil.io.source import SourceChangedError
from frazil.model.errors import DiskFullError, ErrorKind, FailureClass, FrazilError, InputError
from frazil_preprocess.jobs.preprocess import classify
from frazil_preprocess.stages import Stages


def test_stage_times_add_up_and_are_announced() -> None:
    times = iter([0.0, 1.5, 10.0, 10.25, 20.0, 22.0])
    announced: list[str] = []
    stages = Stages(announced.append, clock=lambda: next(times))
    for name in ("motion", "ctf", "motion"):
        with stages.stage(name):
            pass
    assert stages.seconds == {"motion": 3.5, "ctf": 0.25}
    assert announced == ["motion", "ctf", "motion"]


def test_a_stage_that_breaks_is_timed() -> None:
    times = iter([0.0, 4.0])
    stages = Stages(clock=lambda: next(times))
    with pytest.raises(ValueError, match="broken"), stages.stage("ctf"):
        raise ValueError("broken")
    assert stages.seconds == {"ctf": 4.0}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("GAIN_SHAPE", "The gain does not fit."), FailureClass.INPUT),
        (DiskFullError("DISK_FULL", "The disk is full."), FailureClass.INFRA),
        (SourceChangedError("SOURCE_CHANGED", "The movie changed."), FailureClass.INFRA),
        (FrazilError("AWAY", "The scheduler is away.", kind=ErrorKind.UNAVAILABLE), FailureClass.INFRA),
        (FrazilError("ODD", "Something is odd.", kind=ErrorKind.INTERNAL), FailureClass.CRASH),
        (OSError(errno.EIO, "Input/output error"), FailureClass.INFRA),
        (MemoryError(), FailureClass.RESOURCE),
        (ZeroDivisionError("division by zero"), FailureClass.CRASH),
    ],
)
def test_whose_fault_a_failure_is(error: Exception, expected: FailureClass) -> None:
    failure_class, sentence = classify(error)
    assert failure_class is expected
    assert sentence.endswith(".")
    assert "Traceback" not in sentence


def test_the_pipeline_imports_nothing_that_knows_files_or_wire() -> None:
    import frazil_preprocess.pipeline as page

    text = Path(page.__file__).read_text()
    assert "frazil.io" not in text
    assert "frazil.api" not in text
    assert "frazil.rpc" not in text
