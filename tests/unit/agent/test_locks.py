from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frazil.agent.locks import LockFolder, LockRecord, holder_of
from frazil.model.errors import FrazilError

KEY = "GPU-0a1b#0"


def test_lock_is_exclusive_and_free_again(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path)
    assert not locks.held(KEY)
    lock = locks.take(KEY)
    assert lock is not None
    with lock:
        assert locks.held(KEY)
        assert locks.take(KEY) is None
        assert LockFolder(tmp_path).take(KEY) is None
    assert not locks.held(KEY)


def test_record_survives_and_amax_only_grows(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path)
    assert locks.read(KEY) == LockRecord()
    record = LockRecord(lease_id="l", epoch=5, job_id="j", pid=1, boot_id="b", amax=5)
    lock = locks.take(KEY)
    assert lock is not None
    with lock:
        lock.write(record)
    assert LockFolder(tmp_path).read(KEY) == record
    assert locks.raise_amax(KEY, 4)
    assert locks.read(KEY).amax == 5
    assert locks.raise_amax(KEY, 9)
    assert locks.read(KEY).amax == 9
    assert locks.read(KEY).lease_id == "l"


def test_amax_is_not_raised_under_another_holder(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path)
    lock = locks.take(KEY)
    assert lock is not None
    with lock:
        assert not locks.raise_amax(KEY, 9)
    assert locks.read(KEY).amax == 0


def test_shorter_record_leaves_nothing_of_the_longer(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path)
    lock = locks.take(KEY)
    assert lock is not None
    with lock:
        lock.write(LockRecord(lease_id="x" * 500, amax=3))
        lock.write(LockRecord(amax=4))
        assert lock.read() == LockRecord(amax=4)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "\0" * 4096])
def test_unreadable_text_counts_as_none(tmp_path: Path, text: str) -> None:
    locks = LockFolder(tmp_path)
    locks.path(KEY).write_text(text)
    assert locks.read(KEY) == LockRecord()


def test_keys_with_slashes_stay_in_the_folder(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path)
    assert locks.path("cpu:../../etc#0").parent == tmp_path


def test_lock_lives_with_a_child_that_inherited_it_and_its_holder_is_found(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path)
    lock = locks.take(KEY)
    assert lock is not None
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with lock:
        child = subprocess.Popen(
            [sys.executable, "-IS", "-c", code],
            pass_fds=(lock.descriptor,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert locks.held(KEY)
        assert holder_of(locks.path(KEY)) == child.pid
        assert holder_of(locks.path(KEY), likely_pid=os.getppid()) == child.pid
        assert holder_of(locks.path("other#0")) is None
    assert not locks.held(KEY)
    assert holder_of(locks.path(KEY), child.pid) is None


def test_agents_of_one_name_exclude_each_other(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path)
    with locks.take_agent_lock("node"):
        with pytest.raises(FrazilError, match="Another agent named 'node'"):
            LockFolder(tmp_path).take_agent_lock("node")
        with LockFolder(tmp_path).take_agent_lock("other"):
            pass
    with locks.take_agent_lock("node"):
        pass


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FrazilError, match="--lock-dir"):
        LockFolder(tmp_path / "file" / "locks")
