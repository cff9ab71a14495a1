"""One run: a day of faults, then peace, then what a run without faults would have had."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from frazil_scheduler.domain import sessions
from simulation.engine import Engine
from simulation.facility import Facility, quiet
from simulation.faults import Faults
from simulation.people import Microscope, Operators

HOUR = 3600.0
CHECKS = 6  # of every law, before the end
PEACE_HOURS = 8
_MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Size:
    """How much happens, and in how long."""

    hours: int = 24  # of faults
    bursts: int = 4  # of each session
    movies: int = 5  # of each burst
    faults: int = 24
    levers: int = 16


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a run."""

    seed: int
    events: int
    digest: str
    failure: str = ""  # empty: every law held and the day ended well
    trace: tuple[str, ...] = ()


def simulate(seed: int, size: Size = Size()) -> Report:
    """Run one seed."""
    engine = Engine(seed)
    with tempfile.TemporaryDirectory(dir=_MEMORY_FOLDER if _MEMORY_FOLDER.is_dir() else None) as name:
        facilities: list[Facility] = []
        with quiet(lambda path, likely_pid=0: facilities[0].holder(path, likely_pid)):
            try:
                _live(engine, Path(name), size, facilities)
            except Exception as error:  # noqa: BLE001 whatever it is, the seed has found it
                failure = "".join(traceback.format_exception(error, limit=-6))
                return Report(seed, engine.events, engine.digest, failure, tuple(engine.trace))
            finally:
                for facility in facilities:
                    facility.close()
    return Report(seed, engine.events, engine.digest)


def _live(engine: Engine, folder: Path, size: Size, facilities: list[Facility]) -> None:
    facility = Facility(engine, folder)
    facilities.append(facility)
    facility.begin()
    faults, operators, microscope = Faults(facility), Operators(facility), Microscope(facility)
    for name, workers, until in (("a", 2, ""), ("b", 1, "preprocess")):
        session_id = facility.create(name, until=until, workers_wanted=workers)
        facility.person(f"start {name}", lambda tx: sessions.start(tx, sessions.require(tx, session_id)))  # noqa: B023
        microscope.plan(name, engine.now, engine.now + 0.9 * size.hours * HOUR, size.bursts, size.movies)
    start, end = engine.now, engine.now + size.hours * HOUR
    faults.plan(start, end, size.faults)
    operators.plan(start, end, size.levers)
    for part in range(1, CHECKS + 1):
        engine.run(start + (end - start) * part / CHECKS)
        facility.check()
    operators.end()
    faults.end()
    engine.note("peace")
    _end_well(facility, operators, microscope)


def _end_well(facility: Facility, operators: Operators, microscope: Microscope) -> None:
    """Let careful people work until everything is done; every good movie must count exactly once, with its own particles."""
    operators.start_streaming()
    _until(facility, operators.put_right, lambda: microscope.writes() + facility.left_to_do())
    for session_id in facility.sessions.values():
        facility.person("complete", lambda tx: sessions.complete(tx, sessions.require(tx, session_id)))  # noqa: B023 at once
    _until(facility, operators.clear_slots, facility.left_over)
    facility.check_outcome()


def _until(facility: Facility, act: Callable[[], None], left: Callable[[], list[str]]) -> None:
    """Act every quarter of an hour until nothing is left."""
    for _ in range(PEACE_HOURS * 4):
        act()
        facility.engine.run(facility.engine.now + HOUR / 4)
        if not left():
            break
    facility.check()
    assert not left(), f"{PEACE_HOURS} hours after the last fault: {left()}"
