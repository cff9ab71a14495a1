"""The checking process: same answers, little memory and time, and nothing that happens to it harms the asker."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile

from frazil.io.movie_check import FILES_PER_PROCESS, MEMORY_MAX_BYTES, MovieChecker
from frazil.io.movies import structure_complete
from frazil.simulator.eer import encode_eer

NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "good.tif", np.ones((3, 32, 48), np.uint8), photometric="minisblack", metadata=None)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "good.tif").read_bytes()[:2000])
    (tmp_path / "good.eer").write_bytes(encode_eer([NOTHING] * 3, (32, 48), total_dose_e_per_px=12.5))
    (tmp_path / "garbage.mrc").write_bytes(b"garbage" * 1000)
    (tmp_path / "file\udcff.mrc").write_bytes(b"")
    return tmp_path


def test_the_answers_are_those_of_the_parsers(folder: Path) -> None:
    with MovieChecker() as checker:
        for path in sorted(folder.iterdir()):
            assert checker.check(path) == structure_complete(path)
        with pytest.raises(FileNotFoundError):
            checker.check(folder / "absent.mrc")


def test_memory_and_writing_are_limited(folder: Path) -> None:
    with MovieChecker() as checker:
        checker.check(folder / "good.tif")
        assert checker._process is not None
        pid = checker._process.pid
        assert resource.prlimit(pid, resource.RLIMIT_AS)[0] == MEMORY_MAX_BYTES
        assert resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] == 0
        assert 10 <= resource.prlimit(pid, resource.RLIMIT_CPU)[0] <= 20


@pytest.mark.parametrize(
    ("ending", "sentence"), [(signal.SIGKILL, r"ended the process"), (signal.SIGXCPU, "10 s of computing")]
)
def test_a_file_that_kills_the_process_is_not_believed(folder: Path, ending: signal.Signals, sentence: str) -> None:
    with MovieChecker() as checker:
        checker.check(folder / "good.tif")
        assert checker._process is not None
        checker._process.send_signal(ending)
        checker._process.wait()
        answer = checker.check(folder / "good.tif")
        assert not answer.complete
        assert sentence in answer.sentence
        assert checker.check(folder / "good.tif").complete  # by a new process


def test_a_file_system_that_does_not_answer_is_not_the_files_fault(folder: Path) -> None:
    with MovieChecker(answer_seconds=0.3) as checker:
        checker._start().send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            checker.check(folder / "good.tif")


def test_errors_of_the_file_system_come_through(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MovieChecker() as checker:
        monkeypatch.setattr(checker, "_ask", lambda *_: {"errno": errno.ESTALE})
        with pytest.raises(OSError, match="Stale") as stale:
            checker.check(folder / "good.tif")
        assert stale.value.errno == errno.ESTALE


def test_the_process_is_replaced_now_and_then_and_ends(folder: Path) -> None:
    with MovieChecker() as checker:
        checker.check(folder / "good.tif")
        assert checker._process is not None
        first = checker._process.pid
        checker._checked = FILES_PER_PROCESS
        checker.check(folder / "good.tif")
        assert checker._process is not None
        second = checker._process.pid
        assert first != second
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
