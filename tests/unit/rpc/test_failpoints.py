from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frazil.rpc.failpoints import EXIT_CODE

CODE = """
from frazil.rpc.failpoints import failpoint
for number in range(5):
    print(number, flush=True)
    failpoint("a")
    failpoint("b")
print("end")
"""


def passes(**environ: str) -> tuple[int, int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAZIL_")} | environ
    run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout.count("\n")


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ("", (0, 6)),
        ("a", (EXIT_CODE, 1)),
        ("a:3", (EXIT_CODE, 3)),
        ("a:9", (0, 6)),
        ("c:1", (0, 6)),
        ("b:4, a:2", (EXIT_CODE, 2)),
        ("?:5", (EXIT_CODE, 5)),
    ],
)
def test_process_dies_at_the_nth_passing(points: str, expected: tuple[int, int]) -> None:
    assert passes(FRAZIL_FAILPOINT=points) == expected


def test_flag_makes_it_happen_once(tmp_path: Path) -> None:
    flag = tmp_path / "crashed"
    assert passes(FRAZIL_FAILPOINT="a:2", FRAZIL_FAILPOINT_FLAG=str(flag)) == (EXIT_CODE, 2)
    assert flag.exists()
    assert passes(FRAZIL_FAILPOINT="a:2", FRAZIL_FAILPOINT_FLAG=str(flag)) == (0, 6)


def test_in_a_folder_of_flags_every_point_crashes_once(tmp_path: Path) -> None:
    environ = {"FRAZIL_FAILPOINT": "*", "FRAZIL_FAILPOINT_FLAG": str(tmp_path)}
    assert [passes(**environ) for _ in range(3)] == [(EXIT_CODE, 1), (EXIT_CODE, 1), (0, 6)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
