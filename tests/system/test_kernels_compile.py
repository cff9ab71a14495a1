"""Every CUDA kernel source compiles for every architecture we name, without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.nvrtc
@pytest.mark.timeout(300)
def test_kernels_compile_with_nvrtc() -> None:
    command = [sys.executable, REPOSITORY / "tests/system/infra/nvrtc_check.py", REPOSITORY / "src/frazil/kernels"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
