"""Simulated days: hours of faults, and in the end the same results as without any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.story import Size, simulate
from simulation.weakened import RULES, without

SMALL = Size(hours=4, bursts=1, movies=3, faults=6, levers=3)
ROUGH = Size(hours=2, bursts=4, movies=6, faults=40, levers=2)
SHOWS_LATE = ("a lost lease heals only while it is its job's newest", "a repeated request has one effect")
DAYS, CHUNK = 50, 2
WEAKENED_MAX = 40  # seeds within which a missing rule must show
TESTS = Path(__file__).parent.parent


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, DAYS, CHUNK))
def test_days_of_faults_end_as_if_there_had_been_none(first: int) -> None:
    for seed in range(first, first + CHUNK):
        report = simulate(seed)
        assert not report.failure, "\n".join((*report.trace, f"seed {seed}: {report.failure}"))


def test_a_seed_reproduces_its_day_in_every_process() -> None:
    program = "from simulation.story import *; print(simulate(3, Size(4, 1, 3, 6, 3)).digest)"
    environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == simulate(3, SMALL).digest
    assert simulate(4, SMALL).digest != simulate(3, SMALL).digest


def _shows_late(rule: str) -> object:
    return pytest.param(rule, marks=[pytest.mark.long] if rule in SHOWS_LATE else [])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", [_shows_late(rule) for rule in RULES])
def test_a_missing_rule_shows(rule: str) -> None:
    with without(rule):
        assert any(simulate(seed, ROUGH).failure for seed in range(WEAKENED_MAX))
