"""The throw-away process that uses a GPU once, with processes that end as told in its place."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from frazil.agent.cuda_probe import EXIT_UNKNOWN, CudaProbe, main


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-ISc", text)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("", ""),
        (f"raise SystemExit({EXIT_UNKNOWN})", ""),
        (
            "import sys; sys.exit('cuInit answers with CUDA error 999')",
            "a first use of the GPU failed: cuInit answers with CUDA error 999",
        ),
        ("raise SystemExit(7)", "a first use of the GPU failed: exit code 7"),
        ("import os; assert os.environ['CUDA_VISIBLE_DEVICES'] == 'GPU-a'", ""),
    ],
)
def test_end_of_the_process_is_the_answer(rig: Any, code: str, answer: str) -> None:
    probe = CudaProbe("GPU-a", rig.clock, script(code))
    found: list[str] = []
    rig.until(lambda: (said := probe.poll()) is not None and not found.append(said))
    assert found == [answer]


def test_process_that_hangs_is_ended_after_ten_seconds(rig: Any) -> None:
    probe = CudaProbe("GPU-a", rig.clock, script("import time; time.sleep(60)"))
    rig.clock.now += 9.9
    assert probe.poll() is None
    rig.clock.now += 0.1
    assert probe.poll() == "a first use of the GPU did not end within 10 s"
    assert probe._process.wait(5) == -9


def test_without_cudas_library_nothing_can_be_said() -> None:
    try:
        import ctypes

        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert main() == EXIT_UNKNOWN
        done = subprocess.run([sys.executable, "-m", "frazil.agent.cuda_probe"], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (EXIT_UNKNOWN, b"")
    else:
        pytest.skip("CUDA's driver library is installed here")
