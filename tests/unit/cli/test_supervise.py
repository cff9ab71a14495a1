"""The supervisor with toy children: crash, restart, order, orphans, two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from frazil.cli import processes
from frazil.cli.processes import MARK
from frazil.cli.supervise import Service, Supervisor, last_line, restart_delay_seconds
from frazil.model.errors import FrazilError

SLEEPER = "import time; open(__import__('sys').argv[1], 'a').write('up\\n'); time.sleep(600)"


def eventually(true: Callable[[], bool], *, seconds: float = 15.0) -> None:
    """Wait for something that a child process does."""
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.02)


def sleeper(name: str, mark: Path, code: str = SLEEPER, **more: float) -> Service:
    return Service(name=name, command=lambda: [sys.executable, "-c", code, str(mark)], is_healthy=lambda: mark.exists(), **more)


def pid_of(data_dir: Path, name: str) -> int:
    return next(record.pid for record in processes.read_records(data_dir / "run") if record.name == name)


def test_a_killed_child_is_started_again_and_it_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    mark = tmp_path / "mark"
    with Supervisor([sleeper("toy", mark)], tmp_path / "data", said.append):
        first = pid_of(tmp_path / "data", "toy")
        os.kill(first, signal.SIGKILL)
        eventually(lambda: mark.read_text() == "up\nup\n")
        eventually(lambda: pid_of(tmp_path / "data", "toy") != first)
        second = pid_of(tmp_path / "data", "toy")
    assert processes.start_ticks(second) is None
    assert len(said) == 1
    assert "toy service ended (signal 9)" in said[0]
    assert "again in 1 s" in said[0]
    assert processes.read_records(tmp_path / "data" / "run") == []


def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    note = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    open({note!r}, 'a').write({name!r} + ' ')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open(sys.argv[1], 'w').close()\n"
        "time.sleep(600)\n"
    )
    names = ["scheduler", "ingest", "agent"]
    services = [sleeper(name, tmp_path / f"{name}.up", code.format(note=str(note), name=name)) for name in names]
    with Supervisor(services, tmp_path / "data", lambda _: None):
        pass
    assert note.read_text().split() == ["agent", "ingest", "scheduler"]


def test_a_child_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    said: list[str] = []
    deaf = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(600)"
    with Supervisor([sleeper("deaf", tmp_path / "mark", deaf, stop_seconds=0.2)], tmp_path / "data", said.append):
        pid = pid_of(tmp_path / "data", "deaf")
    assert processes.start_ticks(pid) is None
    assert said == ["The deaf service did not stop in 0 s and was killed."]


def test_a_child_that_cannot_start_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    good = sleeper("good", tmp_path / "mark")
    bad = Service(
        name="bad",
        command=lambda: [sys.executable, "-c", "import sys; print('no port left'); sys.exit(3)"],
        is_healthy=lambda: False,
    )
    with pytest.raises(FrazilError) as raised, Supervisor([good, bad], tmp_path / "data", lambda _: None):
        pass
    assert "bad service stopped at once (exit code 3): no port left" in raised.value.sentence
    assert processes.find_marked(MARK, str(tmp_path / "data")) == []


def test_two_on_one_folder_is_one_sentence(tmp_path: Path) -> None:
    with Supervisor([], tmp_path, lambda _: None):
        with pytest.raises(FrazilError) as raised, Supervisor([], tmp_path, lambda _: None):
            pass
        assert raised.value.reason == "ALREADY_RUNNING"
        assert str(os.getpid()) in raised.value.sentence
    with Supervisor([], tmp_path, lambda _: None):
        pass


SUPERVISOR = """
import sys, time
from pathlib import Path
from frazil.cli.supervise import Service, Supervisor
data, mark, code = sys.argv[1:]
service = Service(name="agent", command=lambda: [sys.executable, "-c", code, mark], is_healthy=Path(mark).exists)
with Supervisor([service], Path(data), print):
    print("ready", flush=True)
    time.sleep(600)
"""
WITH_A_CHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").close()
time.sleep(600)
"""
COUNTING = """
import signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(open(sys.argv[1], "a").write("told ")))
open(sys.argv[1], "w").close()
while not told:
    time.sleep(0.02)
time.sleep(1.0)
"""


def killed_supervisor(data: Path, mark: Path, code: str, *, guardian_too: bool = False) -> list[processes.ProcessRecord]:
    """Kill a supervisor of a child that runs `code`; returns what it left but for its guardian."""
    command = [sys.executable, "-c", SUPERVISOR, str(data), str(mark), code]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    with supervisor.stdout:
        assert supervisor.stdout.readline() == "ready\n"
        left = processes.find_marked(MARK, str(data))
        if guardian_too:
            os.kill(pid_of(data, "guardian"), signal.SIGKILL)
        supervisor.kill()
        supervisor.wait()
    return left


def test_what_a_killed_supervisor_left_ends_by_itself(tmp_path: Path) -> None:
    data = tmp_path / "data"
    left = killed_supervisor(data, tmp_path / "mark", WITH_A_CHILD)
    assert len(left) == 2
    eventually(lambda: not any(record.is_alive() for record in left))
    eventually(lambda: processes.start_ticks(pid_of(data, "guardian")) is None)


def test_what_is_left_without_a_guardian_is_stopped_by_the_next(tmp_path: Path) -> None:
    data = tmp_path / "data"
    left = killed_supervisor(data, tmp_path / "mark", WITH_A_CHILD, guardian_too=True)
    assert [record.is_alive() for record in left] == [True, True]
    said: list[str] = []
    with Supervisor([], data, said.append):
        eventually(lambda: not any(record.is_alive() for record in left))
    assert said == ["Stopping 2 process(es) that an earlier run left behind."]


def test_only_one_tells_a_leftover_to_stop(tmp_path: Path) -> None:
    """An agent that is told twice kills its workers: the next supervisor waits for the guardian of the one before."""
    data, mark = tmp_path / "data", tmp_path / "mark"
    killed_supervisor(data, mark, COUNTING)
    eventually(lambda: mark.read_text() != "")
    with Supervisor([], data, lambda _: None):
        assert processes.find_marked(MARK, str(data)) == []
    assert mark.read_text() == "told "


def test_a_note_of_a_dead_process_never_hits_a_stranger(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        record = processes.record_of("web", stranger.pid)
        assert record is not None
        older = processes.ProcessRecord(
            name="web", pid=stranger.pid, boot_id=record.boot_id, start_ticks=record.start_ticks - 1
        )
        other_boot = processes.ProcessRecord(name="agent", pid=stranger.pid, boot_id="another", start_ticks=record.start_ticks)
        processes.write_record(tmp_path / "run", older)
        processes.write_record(tmp_path / "run", other_boot)
        (tmp_path / "run" / "torn.json").write_text('{"pid": 1')
        with Supervisor([], tmp_path, lambda _: None):
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_wait_before_a_restart_doubles_up_to_half_a_minute() -> None:
    assert [restart_delay_seconds(crashes) for crashes in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_last_line_that_says_something(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("one\ntwo\n\n")
    assert last_line(tmp_path / "a.log") == "two"
    assert last_line(tmp_path / "none.log") == "it said nothing"
    (tmp_path / "b.log").write_text('{"event": "not_started", "sentence": "The port is taken."}\n')
    assert last_line(tmp_path / "b.log") == "The port is taken."
    (tmp_path / "c.log").write_text('{"event": "crashed", "exception": "Traceback:\\n  here\\nKeyError: 1"}\n')
    assert last_line(tmp_path / "c.log") == "KeyError: 1"
