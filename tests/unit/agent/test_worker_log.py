from __future__ import annotations

import os
from pathlib import Path

from frazil.agent import worker_log
from frazil.agent.worker_log import WorkerLog


def test_whole_lines_are_copied_as_they_come(tmp_path: Path) -> None:
    copied: list[bytes] = []
    log = WorkerLog(tmp_path / "logs" / "a.log", write=copied.append)
    descriptor = log.open()
    log.forward()
    os.write(descriptor, b"one\ntw")
    log.forward()
    os.write(descriptor, b"o\n")
    log.forward()
    log.forward()
    os.close(descriptor)
    assert copied == [b"one\n", b"two\n"]
    assert log.tail() == "one\ntwo\n"


def test_log_is_cut_to_its_end_while_the_worker_goes_on(tmp_path: Path) -> None:
    copied: list[bytes] = []
    log = WorkerLog(tmp_path / "a.log", write=copied.append)
    descriptor = log.open()
    line = b"x" * 1023 + b"\n"
    for number in range(6 * 1024):
        os.write(descriptor, line)
        if number % 100 == 0:
            log.forward()
    log.forward()
    os.write(descriptor, b"last\n")
    log.forward()
    os.close(descriptor)
    assert b"".join(copied) == line * (6 * 1024) + b"last\n"
    assert log.path.stat().st_size < 4.5 * 2**20
    assert log.tail().endswith("x\nlast\n")
    assert len(log.tail()) <= 16 * 1024


def test_successor_copies_only_what_is_new(tmp_path: Path) -> None:
    first = WorkerLog(tmp_path / "a.log")
    descriptor = first.open()
    os.write(descriptor, b"old\n")
    copied: list[bytes] = []
    successor = WorkerLog(tmp_path / "a.log", write=copied.append)
    os.write(descriptor, b"new\n")
    successor.forward()
    os.close(descriptor)
    assert copied == [b"new\n"]


def test_oldest_logs_are_deleted(tmp_path: Path) -> None:
    for number in range(worker_log._KEPT_FILES + 5):
        path = tmp_path / f"{number}.log"
        path.touch()
        os.utime(path, (number, number))
    os.close(WorkerLog(tmp_path / "new.log").open())
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == worker_log._KEPT_FILES + 1
    assert "0.log" not in names
    assert "54.log" in names


def test_absent_log_has_no_tail(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "a.log")
    log.forward()
    assert log.tail() == ""
